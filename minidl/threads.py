"""Work on several threads. NumPy lets go of Python's lock while it computes, so threads are enough."""

import contextvars
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import numpy  # first, so that threadpoolctl finds its BLAS library
import threadpoolctl

from .partition import chunks_of_bytes

CHUNK_BYTES = 2 << 20  # of what a kernel works on at a time, on each thread: about what its cache holds
SMALL_BYTES = 256 << 10  # too little to be worth dividing between threads

Part = TypeVar("Part")

_blas = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
_threads = max([library.num_threads for library in _blas], default=os.cpu_count() or 1)


def _setter(library: threadpoolctl.LibController) -> Callable[[int], object]:
    """What sets a BLAS library's number of threads, on whichever thread it is called.

    OpenBLAS has one number for all threads, and threadpoolctl 3.8 leaves it to the first thread that sets it: on the others it
    does nothing. So OpenBLAS's own function is called, but where OpenBLAS is on OpenMP, which has a number for each thread.
    """
    if library.internal_api == "openblas" and library.threading_layer != "openmp":
        for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64")):
            if own := getattr(library.dynlib, f"{prefix}openblas_set_num_threads{suffix}", None):
                return own
    return library.set_num_threads


_setters = [_setter(library) for library in _blas]


def _start() -> None:
    global _at_work, _pool
    _at_work, _pool = threading.Lock(), ThreadPoolExecutor(max(32, os.cpu_count() or 1), "minidl")


_at_work: threading.Lock  # held while `parallel` is at work
_pool: ThreadPoolExecutor
_start()


def _after_fork() -> None:
    """A forked process has none of its parent's threads."""
    limited = _at_work.locked()
    _start()
    if limited:
        set_num_threads(_threads)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def set_num_threads(n: int) -> None:
    """Compute on n threads from now on, in this process: minidl's kernels, and NumPy's BLAS library between them."""
    global _threads
    if not isinstance(n, (int, numpy.integer)) or isinstance(n, bool) or n < 1:
        raise ValueError(f"set_num_threads takes an integer of at least 1; got {n!r}")
    _threads = int(n)
    with _at_work:
        _limit_blas([_threads] * len(_blas))


def get_num_threads() -> int:
    """The number of threads that are computed on; at first that of NumPy's BLAS library."""
    return _threads


def array_chunks(a: numpy.ndarray, axis: int = 0, most_bytes: int | None = None) -> list:
    """Chunks of a's axis to work on in parallel: of about most_bytes (CHUNK_BYTES) or less, and enough for all threads.

    A single number, which has no axis, is one chunk.
    """
    if not a.ndim:
        return [...]
    about = min(_threads, max(1, a.nbytes // SMALL_BYTES))
    return chunks_of_bytes(a.shape[axis], a.nbytes, most_bytes or CHUNK_BYTES, about)


def parallel(work: Callable[[Part], object], parts: Sequence[Part]) -> None:
    """Call work(part) for every part, each thread taking the next; raises what a call raises, once all threads have stopped.

    BLAS has one thread in each meanwhile: its own threads would, after a product, wait for the next one at full speed and
    take the time from ours. Within a call of parallel, or beside another thread's, the parts are done one after the other.
    """
    queue = iter(parts)

    def run() -> None:
        try:
            for part in queue:
                work(part)
        except BaseException:
            for _ in queue:  # leave the others nothing to begin
                pass
            raise

    def run_beside() -> None:
        _limit_blas([1] * len(_blas))  # for this thread too, where each has its own number
        run()

    if not _at_work.acquire(blocking=False):
        return run()
    others: list[Future] = []
    blas_threads = [library.num_threads for library in _blas]
    try:
        _limit_blas([1] * len(_blas))
        others.extend(_pool.submit(contextvars.copy_context().run, run_beside) for _ in range(min(_threads, len(parts)) - 1))
        run()
    finally:
        try:
            wait(others)
        finally:
            _limit_blas(blas_threads)
            _at_work.release()
    for other in others:
        other.result()
    return None


def _limit_blas(threads: Sequence[int]) -> None:
    for set_threads, n in zip(_setters, threads, strict=True):
        set_threads(n)
