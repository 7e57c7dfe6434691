"""Atomic writing of files, complete or not at all, and reading of regular files only."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PART = ".part"  # the suffix of a file that is not complete yet; a killed process can leave one


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name of a new, empty file beside `path`, to be written inside the context; at the end it replaces `path`.

    If an exception is raised inside, `path` is unchanged and nothing is left of the new file. If `path` is a symbolic link,
    the link is replaced, not followed. The file's mode follows the umask. Raises OSError if the file cannot be written.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent} to save {path.name} in; make it first")
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, f"{path} is not a regular file; remove it, or choose another name")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield part
        _to_disk(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _to_disk(path.parent)


def append(path: Path, content: bytes) -> None:
    """Append to a regular file, which is created if it does not exist. If it raises OSError, a part may have been written.

    If `path` is a symbolic link, it is refused, not followed.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    handle = os.open(
        path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0), 0o666
    )
    with _regular(handle, "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a file. Raises OSError, without waiting, if it is not a regular file or has more than `limit` bytes."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with _regular(handle, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes, the most that such a file has")
    return content


@contextlib.contextmanager
def _regular(handle: int, mode: str) -> Iterator[Any]:
    """An open regular file, which is closed at the end of the context. Raises OSError if it is not a regular file."""
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with open(handle, mode, closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
