"""Buffers that live for one kernel call and are used again by the next: fresh memory costs a page fault every 4 KiB."""

import ctypes
import math
import sys
import threading

import numpy as np

_buffers = threading.local()

if sys.platform == "linux":  # the arrays that live longer too: let glibc keep what is freed, for the next step's
    M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
    ctypes.CDLL(None).mallopt(M_MMAP_MAX, 0)
    ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def scratch(name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
    """An uninitialised array, valid until the same thread asks for the same name again. Never keep or return it."""
    pool = _buffers.__dict__
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if name not in pool or pool[name].nbytes < size:
        pool[name] = np.empty(size, np.uint8)
    return pool[name][:size].view(dtype).reshape(shape)
