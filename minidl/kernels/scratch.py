"""Buffers that live for one kernel call and are used again by the next: fresh memory costs a page fault every 4 KiB."""

import math
import threading

import numpy as np

_buffers = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
    """An uninitialised array, valid until the same thread asks for the same name again. Never keep or return it."""
    pool = _buffers.__dict__
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if name not in pool or pool[name].nbytes < size:
        pool[name] = np.empty(size, np.uint8)
    return pool[name][:size].view(dtype).reshape(shape)
