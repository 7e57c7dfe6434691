"""Work on several threads. NumPy lets go of Python's lock while it computes, so threads are enough."""

import contextvars
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import threadpoolctl

Part = TypeVar("Part")

_lock = threading.Lock()
_pool = ThreadPoolExecutor(max(32, os.cpu_count() or 1), "minidl")
_blas = threadpoolctl.ThreadpoolController().select(user_api="blas")
_inside = 0  # how many calls of `parallel` are at work; BLAS has one thread meanwhile
_before: list[int] = []  # the threads that BLAS libraries had before


def set_num_threads(n: int) -> None:
    """Compute on n threads from now on, in this process: minidl's kernels, and NumPy's BLAS library between them."""
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"set_num_threads takes an integer of at least 1; got {n!r}")
    for library in _blas.lib_controllers:
        library.set_num_threads(n)


def get_num_threads() -> int:
    """The number of threads that are computed on: those of NumPy's BLAS library; 1 where it cannot tell."""
    return max([library.num_threads for library in _blas.lib_controllers] if not _inside else _before, default=1)


def parallel(work: Callable[[Part], None], parts: Sequence[Part]) -> None:
    """Call work(part) for every part, on all threads, each with one thread of BLAS; raises what a call raises.

    Within another call of parallel, or on one thread, the parts are done one after the other.
    """
    global _inside, _before
    threads = min(get_num_threads(), len(parts))
    with _lock:
        alone = _inside == 0 and threads > 1
        if alone:
            _inside, _before = 1, [library.num_threads for library in _blas.lib_controllers]
    if not alone:
        for part in parts:
            work(part)
        return

    def run(first: int) -> None:
        for part in parts[first::threads]:
            work(part)

    try:
        for library in _blas.lib_controllers:
            library.set_num_threads(1)
        others = [_pool.submit(contextvars.copy_context().run, run, i) for i in range(1, threads)]
        try:
            run(0)
        finally:
            errors = [other.exception() for other in others]
        for error in filter(None, errors):
            raise error
    finally:
        for library, n in zip(_blas.lib_controllers, _before, strict=True):
            library.set_num_threads(n)
        with _lock:
            _inside = 0
