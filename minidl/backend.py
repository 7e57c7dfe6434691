"""The back ends NumPy and CuPy: the library of an array, and its device."""

import functools
import importlib.metadata
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import UserError

Array = Any  # numpy.ndarray or cupy.ndarray


@functools.cache
def _cupy():
    installed = sorted(
        {d.name for d in importlib.metadata.distributions() if d.name and re.fullmatch(r"cupy(-cuda\d+x|-rocm.*)?", d.name)}
    )
    if len(installed) > 1:
        raise UserError(f"two CuPy packages are installed, {' and '.join(installed)}: uninstall both, then install one again")
    try:
        import cupy
    except ImportError as error:
        if installed:
            raise UserError(f"{installed[0]} is installed, but does not work ({error}): install it again") from None
        raise UserError(
            "CuPy is not installed: pip install -e '.[cuda12]' or '.[cuda13]' in minidl's folder, or use the numpy back end"
        ) from None
    return cupy


NO_GPU = {
    35: "there is no NVIDIA driver, or it is older than CuPy's CUDA: install a newer one (nvidia-smi shows it)",
    100: "no GPU can be used (perhaps CUDA_VISIBLE_DEVICES hides all of them)",
    3: "CUDA cannot start in a process that was forked after CUDA was used; spawn it instead",
}


def use_device(device: str) -> None:
    """Compute on this device from now on, in this thread: "numpy", or "cupy:1" for the second GPU.

    Raises UserError, with advice, if the device does not exist or a library is missing.
    """
    if device == "numpy":
        return
    number, cupy = _number(device), _cupy()
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise UserError(f"{device}: {NO_GPU.get(error.status, error)}; or use the numpy back end") from None
    if number >= count:
        raise UserError(f"{device}: there is no such GPU; there are {count}, numbered from 0")
    cupy.cuda.Device(number).use()
    try:
        cupy.arange(2) @ cupy.arange(2.0)  # compiles a kernel, and calls cuBLAS
    except Exception as error:
        if type(error).__name__ not in ("DynamicLibNotFoundError", "ImportError", "RuntimeError", "CompileException"):
            raise
        line = str(error).strip().splitlines()[0]
        raise UserError(
            f"{device}: a CUDA library is missing ({line}): pip install -e '.[cuda12]' or '.[cuda13]' in minidl's folder"
        ) from None


PRECISIONS = ("fp32", "tf32", "fp16")
_precision = "fp32"


def set_matmul_precision(precision: str) -> None:
    """Set the precision of float32 linear and conv2d on GPUs from now on, in this process. Sums are always float32.

    "fp32": the default. "tf32": tensor cores round the factors to 11 significant bits. "fp16": the factors are rounded to
    float16. Before that, each matrix is scaled by a power of two, which brings its largest entry near the largest float16:
    entries that are 2^29 times smaller keep fewer than 11 bits, and entries 2^39 times smaller become 0. CPUs and float64
    are not affected. Do not change the precision between a forward and its backward. Raises UserError if the current GPU
    has no TF32.
    """
    global _precision
    if precision not in PRECISIONS:
        raise ValueError(f"set_matmul_precision takes one of {', '.join(PRECISIONS)}; got {precision!r}")
    if precision == "tf32":
        gpu = _cupy().cuda.Device()
        if _cupy().cuda.runtime.is_hip or int(gpu.compute_capability) < 80:
            raise UserError(f"tf32 needs an NVIDIA GPU of compute capability 8.0 or more, which cupy:{gpu.id} is not; use fp16")
    _precision = precision


def get_matmul_precision() -> str:
    """One of PRECISIONS."""
    return _precision


def _number(device: str) -> int:
    if not re.fullmatch(r"cupy(:\d+)?", device):
        raise ValueError(f'a device is "numpy", "cupy" or "cupy:0"; got {device!r}')
    return int(device.partition(":")[2] or 0)


def get_array_module(array: Array):
    """The library of an array: the module numpy or the module cupy. Code that uses it runs on both."""
    return np if isinstance(array, (np.ndarray, np.generic)) else _cupy()


def as_array(value, like: Array = None) -> Array:
    """`value` as an array. An array keeps its dtype; Python floats become float32, as in PyTorch.

    With `like`, a number becomes an array of that array's library, and of its dtype if that can represent it: `2 * x` never
    widens a floating-point x, and an integer x times 1.5 is floating-point.
    """
    if like is not None and isinstance(value, (bool, int, float, np.number, np.bool_)):
        number = value.item() if isinstance(value, np.generic) else value
        fits = like.dtype.kind == "f" or (like.dtype.kind in "iu" and not isinstance(number, float))
        xp = get_array_module(like)
        return xp.asarray(number, dtype=like.dtype if fits else xp.float32 if isinstance(number, float) else None)
    if hasattr(value, "__cuda_array_interface__"):
        return value
    if hasattr(value, "__array_interface__"):  # also NumPy's scalars and matrices, and Pillow's images
        return np.asarray(value)
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def check_index(array: Array, key: Any) -> None:
    """Raise IndexError if the key has integers that are out of range, in arrays on the host: CuPy would wrap them around."""
    parts = key if isinstance(key, tuple) else (key,)
    if not isinstance(array, np.ndarray) and not any(hasattr(part, "__cuda_array_interface__") for part in parts):
        np.broadcast_to(np.False_, array.shape)[key]


def to_device(array: Array, device: str) -> Array:
    """`array` on a device: "numpy" for the host, "cupy:1" for the second GPU. No copy if it is there already."""
    if device == "numpy":
        return to_numpy(array)
    number = _number(device)
    cupy = _cupy()
    with cupy.cuda.Device(number):
        return cupy.asarray(array)


def to_numpy(array: Array) -> np.ndarray:
    """`array` as a NumPy array: itself, or its copy from the GPU (which waits for the GPU)."""
    return array if isinstance(array, np.ndarray) else np.asarray(array) if np.isscalar(array) else array.get()


def device_of(array: Array) -> str:
    """The device of an array, as `to_device` takes it."""
    return "numpy" if isinstance(array, np.ndarray) else f"cupy:{array.device.id}"


def copy_to_host(array: Array) -> Callable[[], list]:
    """Start to copy `array` to the host. The returned function waits for the copy and returns its values."""
    if isinstance(array, np.ndarray):
        return array.tolist
    import cupyx

    host = cupyx.empty_pinned(array.shape, array.dtype)
    array.get(out=host, blocking=False)
    copied = _cupy().cuda.Event(disable_timing=True)
    copied.record()

    def read():
        copied.synchronize()
        return host.tolist()

    return read
