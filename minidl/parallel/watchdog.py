"""A timeout for a process that waits for others: MPI and NCCL have none."""

import collections
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from .communicator import Patience


class Watchdog:
    """A thread that ends the process if an operation is not done within `timeout` seconds after the operation before it.

    start: the thread calls this first.
    """

    def __init__(self, rank: int, timeout: float, start: Callable[[], object] = lambda: None):
        self.rank, self.timeout, self._start = rank, timeout, start
        self._watched: collections.deque[tuple[str, Callable[[], bool]]] = collections.deque()
        threading.Thread(target=self._look, name="watchdog", daemon=True).start()

    def add(self, what: str, done: Callable[[], bool]) -> None:
        """Watch an operation until done() is true. If it times out, print a line on standard error and exit with status 1."""
        self._watched.append((what, done))

    @contextlib.contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """Watch the operation inside the block."""
        left = threading.Event()
        self.add(what, left.is_set)
        try:
            yield
        finally:
            left.set()

    def _look(self) -> None:
        self._start()
        patience = Patience(self.timeout)
        while True:
            time.sleep(min(0.5, self.timeout / 4))
            while self._watched and self._watched[0][1]():
                self._watched.popleft()
                patience = Patience(self.timeout)
            if not self._watched:
                patience = Patience(self.timeout)
            elif patience.ended():
                print(
                    f"rank {self.rank} timed out in {self._watched[0][0]}, after {self.timeout:g} s (set by MINIDL_TIMEOUT): "
                    "another rank hangs",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(1)
