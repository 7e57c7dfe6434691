"""The lock on a run's folder. The kernel holds it, so it ends with the processes that have it, even if they are killed."""

import errno
import os
import time
from multiprocessing import context, reduction
from pathlib import Path
from typing import Any

from minidl.errors import UserError

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

ATTEMPTS = 4  # a tenth of a second apart: a process that calls in_use() holds the lock for a moment
NONE_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # errors of file systems without locks


class FolderLock:
    """Held from acquire() until release(), or until this process and all processes that were spawned with it have ended.

    The lock is on a file in the folder, as not every file system can lock a folder. The file stays after the release.
    """

    FILE = ".lock"

    def __init__(self) -> None:
        self._handle: int | None = None

    def acquire(self, folder: Path) -> bool:
        """Take the lock. False if the system or the file system has none. Raises UserError if another process has it, and
        OSError if the file cannot be made.
        """
        if fcntl is None:
            return False
        handle = os.open(folder / self.FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            for attempt in range(ATTEMPTS):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if attempt == ATTEMPTS - 1:
                        raise
                    time.sleep(0.1)
        except BlockingIOError:
            os.close(handle)
            raise UserError(f"another process is using {folder}; wait until it ends, or stop it") from None
        except OSError as error:
            os.close(handle)
            if error.errno in NONE_HERE:
                return False
            raise
        self._handle = handle
        return True

    @classmethod
    def in_use(cls, folder: Path) -> bool:
        """Whether a process holds the folder's lock."""
        lock = cls()
        try:
            if (folder / cls.FILE).exists():
                lock.acquire(folder)
        except UserError:
            return True
        except OSError:
            pass  # the folder cannot be written to; then no process here writes in it
        finally:
            lock.release()
        return False

    def check(self, folder: Path) -> None:
        """Raise OSError if the locked file is no longer in the folder: another process may have locked a new one."""
        if self._handle is not None:
            try:
                same = os.path.samestat(os.fstat(self._handle), os.stat(folder / self.FILE))
            except FileNotFoundError:
                same = False
            if not same:
                raise OSError(
                    errno.ENOLCK, f"its {self.FILE} was removed, and another process may be using it; leave that file alone"
                )

    def release(self) -> None:
        """Release the lock in this process."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        """A process that is being spawned gets the open file, so that it holds the lock together with this process."""
        if self._handle is None or context.get_spawning_popen() is None:
            return {"handle": None}
        return {"handle": reduction.DupFd(self._handle)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._handle = state["handle"] and state["handle"].detach()
