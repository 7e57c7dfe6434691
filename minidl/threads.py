"""Computation on several threads. Threads suffice, because NumPy releases Python's global lock (GIL) while it computes."""

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

CHUNK_BYTES = 2 << 20  # the size of the chunk that a kernel processes on one thread: about the size of the cache
SMALL_BYTES = 256 << 10  # smaller arrays are not divided between threads

Part = TypeVar("Part")

_blas = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
_threads = max([library.num_threads for library in _blas], default=os.cpu_count() or 1)


def _setter(library: threadpoolctl.LibController) -> Callable[[int], object]:
    """The function that sets a BLAS library's number of threads, from any thread.

    OpenBLAS has one number for all threads, and in threadpoolctl 3.8 only the first thread that sets it has an effect. So
    OpenBLAS's own function is used, except for OpenBLAS on OpenMP, which has a number for each thread.
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


_at_work: threading.Lock  # held while `parallel` runs
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
    """Compute on n threads from now on, in this process: minidl's kernels, and NumPy's BLAS library outside them."""
    global _threads
    if not isinstance(n, (int, numpy.integer)) or isinstance(n, bool) or n < 1:
        raise ValueError(f"set_num_threads takes an integer of at least 1; got {n!r}")
    _threads = int(n)
    with _at_work:
        _limit_blas([_threads] * len(_blas))


def get_num_threads() -> int:
    """The number of threads for computation; initially that of NumPy's BLAS library."""
    return _threads


def array_chunks(a: numpy.ndarray, axis: int = 0, most_bytes: int | None = None) -> list:
    """Chunks of an axis of `a` to process in parallel: of about most_bytes (CHUNK_BYTES) at most, and enough for all threads.

    A single number, which has no axis, is one chunk.
    """
    if not a.ndim:
        return [...]
    about = min(_threads, max(1, a.nbytes // SMALL_BYTES))
    return chunks_of_bytes(a.shape[axis], a.nbytes, most_bytes or CHUNK_BYTES, about)


def parallel(work: Callable[[Part], object], parts: Sequence[Part]) -> None:
    """Call work(part) for every part on several threads; each thread takes the next part when it is free.

    If a call raises an exception, it is raised here when all threads have stopped. Meanwhile BLAS uses one thread in each of
    these: after a product, its own threads would wait for the next one in a busy loop, and take processor time. A call
    inside another call of parallel, or at the same time as another thread's, processes its parts one after the other.
    """
    queue = iter(parts)

    def run() -> None:
        try:
            for part in queue:
                work(part)
        except BaseException:
            for _ in queue:  # empty the queue, so that the other threads stop
                pass
            raise

    def run_beside() -> None:
        _limit_blas([1] * len(_blas))  # for this thread too, if each thread has its own number
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
