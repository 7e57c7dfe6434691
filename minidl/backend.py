"""NumPy or CuPy: which library an array belongs to, where it lives, and how it lies in memory.

Shapes are (N, C, H, W) to the caller, but activations lie *batch-last* in memory, (C, H, W, N): the batch is the fastest
axis. A convolution's columns are then long contiguous runs, its product is written in place without a transpose, and
pooling and normalisation work on whole rows. The pair `to_batch_last` and `from_batch_last` is the only way in and out.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import UserError

Array = Any  # numpy.ndarray or cupy.ndarray


@functools.cache
def _cupy():
    try:
        import cupy
    except ImportError:
        raise UserError(
            "CuPy is not installed: pip install 'minidl[cuda12]' or 'minidl[cuda13]', or use the numpy backend"
        ) from None
    return cupy


def get_array_module(array: Array):
    """The library an array belongs to: the module numpy or the module cupy. Code written with it runs on both."""
    return np if isinstance(array, (np.ndarray, np.generic)) else _cupy()


def as_array(value, like: Array = None) -> Array:
    """`value` as an array. An array keeps its dtype; Python floats become float32, as in PyTorch.

    With `like`, a number takes that array's library, and its dtype where that can hold it: `2 * x` never widens a
    floating-point x, and an integer x times 1.5 is floating-point.
    """
    if like is not None and isinstance(value, (bool, int, float, np.number, np.bool_)):
        number = value.item() if isinstance(value, np.generic) else value
        fits = like.dtype.kind == "f" or (like.dtype.kind in "iu" and not isinstance(number, float))
        xp = get_array_module(like)
        return xp.asarray(number, dtype=like.dtype if fits else xp.float32 if isinstance(number, float) else None)
    if hasattr(value, "__array_interface__") or hasattr(value, "__cuda_array_interface__"):
        return np.asarray(value) if isinstance(value, np.generic) else value
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def to_device(array: Array, device: str) -> Array:
    """`array` on a device: "numpy" for the host, "cupy:1" for the second GPU. No copy if it is there already."""
    if device == "numpy":
        return to_numpy(array)
    if not re.fullmatch(r"cupy(:\d+)?", device):
        raise ValueError(f'a device is "numpy", "cupy" or "cupy:0"; got {device!r}')
    cupy = _cupy()
    with cupy.cuda.Device(int(device.partition(":")[2] or 0)):
        return cupy.asarray(array)


def to_numpy(array: Array) -> np.ndarray:
    """`array` as a NumPy array: itself, or its copy from the GPU (which waits for the GPU)."""
    return array if isinstance(array, np.ndarray) else np.asarray(array) if np.isscalar(array) else array.get()


def device_of(array: Array) -> str:
    """Where an array is, as `to_device` takes it."""
    return "numpy" if isinstance(array, np.ndarray) else f"cupy:{array.device.id}"


def copy_to_host(array: Array) -> Callable[[], list]:
    """Begin to copy `array` from its device, and go on; the function returned waits for the copy and gives its values."""
    return array.tolist


def to_batch_last(x: Array) -> Array:
    """(N, C, H, W) -> (C, H, W, N), C-contiguous; any rank works. A view where x already lies so, else a copy."""
    return get_array_module(x).ascontiguousarray(x.transpose(*range(1, x.ndim), 0))


def from_batch_last(x: Array) -> Array:
    """(C, H, W, N) -> (N, C, H, W), the inverse of `to_batch_last`: always a view."""
    return x.transpose(-1, *range(x.ndim - 1))
