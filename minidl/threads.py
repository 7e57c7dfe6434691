"""Work on several threads. NumPy lets go of Python's lock while it computes, so threads are enough."""

import contextvars
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import threadpoolctl

Part = TypeVar("Part")

_blas = threadpoolctl.ThreadpoolController().select(user_api="blas")
_lock: threading.Lock
_pool: ThreadPoolExecutor
_threads_before: list[int] = []  # what BLAS libraries had before `parallel` limited them; empty while it is not at work


def _start() -> None:
    global _lock, _pool
    _lock, _pool = threading.Lock(), ThreadPoolExecutor(max(32, os.cpu_count() or 1), "minidl")


_start()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start)  # a forked process has none of its parent's threads


def set_num_threads(n: int) -> None:
    """Compute on n threads from now on, in this process: minidl's kernels, and NumPy's BLAS library between them."""
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"set_num_threads takes an integer of at least 1; got {n!r}")
    _limit_blas([n] * len(_blas.lib_controllers))


def get_num_threads() -> int:
    """The number of threads that are computed on: those of NumPy's BLAS library; 1 where it cannot tell."""
    return max(_threads_before or [library.num_threads for library in _blas.lib_controllers], default=1)


def slices(length: int, size: int) -> list[slice]:
    """range(length) in slices of `size`, the last one perhaps shorter: parts for `parallel`."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def parallel(work: Callable[[Part], object], parts: Sequence[Part]) -> None:
    """Call work(part) for every part, each thread taking the next; raises what a call raises.

    BLAS has one thread in each meanwhile: its own threads would, after a product, wait for the next one at full speed and
    take the time from ours. Within another call of parallel the parts are done one after the other.
    """
    with _lock:
        outermost = not _threads_before
        if outermost:
            threads = get_num_threads()
            _threads_before[:] = [library.num_threads for library in _blas.lib_controllers] or [1]
            _limit_blas([1] * len(_blas.lib_controllers))
    queue = iter(parts)

    def run() -> None:
        for part in queue:
            work(part)

    if not outermost:
        return run()
    try:
        others = [_pool.submit(contextvars.copy_context().run, run) for _ in range(min(threads, len(parts)) - 1)]
        try:
            run()
        finally:
            errors = [other.exception() for other in others]
        for error in filter(None, errors):
            raise error
    finally:
        with _lock:
            _limit_blas(_threads_before)
            _threads_before.clear()
    return None


def _limit_blas(threads: Sequence[int]) -> None:
    for library, n in zip(_blas.lib_controllers, threads, strict=False):
        library.set_num_threads(n)
