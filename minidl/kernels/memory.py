"""Reuse of memory: newly allocated memory would cost a page fault for every 4 KiB, at every step."""

import ctypes
import math
import sys
import threading

import numpy as np

_buffers = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
    """An uninitialised array, valid until the same thread asks for the same name again. Never keep or return it."""
    pool = _buffers.__dict__
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if name not in pool or pool[name].nbytes < size:
        pool.pop(name, None)
        pool[name] = np.empty(size, np.uint8)
    return pool[name][:size].view(dtype).reshape(shape)


def keep_freed_memory() -> None:
    """Let this process keep freed memory for later arrays, as every step allocates and frees its activations.

    By default glibc returns the memory of large arrays to the system at once. With other C libraries this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


keep_freed_memory()
