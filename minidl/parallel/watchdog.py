"""Ends a process that waits for others in vain: MPI and NCCL do not give up by themselves."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator


class Watchdog:
    """A thread that looks from time to time whether what is watched lasts longer than `timeout` seconds."""

    def __init__(self, rank: int, timeout: float):
        self.rank, self.timeout = rank, timeout
        self._watched: tuple[float, str] | None = None
        threading.Thread(target=self._look, name="watchdog", daemon=True).start()

    @contextlib.contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """Inside, the clock runs. The process ends with status 1, and a line on standard error, if it runs out."""
        self._watched = time.monotonic() + self.timeout, what
        try:
            yield
        finally:
            self._watched = None

    def _look(self) -> None:
        while True:
            time.sleep(min(1.0, self.timeout / 4))
            watched = self._watched
            if watched and time.monotonic() > watched[0]:
                print(
                    f"rank {self.rank} waited in vain for the others in {watched[1]}, for {self.timeout:g} s (set by "
                    "MINIDL_TIMEOUT): one of them hangs",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(1)
