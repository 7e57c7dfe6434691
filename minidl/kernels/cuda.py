"""Tools for cupy_kernels.py: checked launches of the kernels in kernels.cu, and matrix products by cuBLAS.

CuPy hardly checks the arguments of a kernel. Here they are checked against the kernel's signature. Nothing waits for the GPU.
"""

import functools
import math
import re
from pathlib import Path
from typing import Any

import cupy as cp
import numpy as np
from cupy.cuda import cublas

from ..backend import get_matmul_precision
from ..partition import ceil_div

SOURCE = Path(__file__).with_name("kernels.cu")
THREADS = 256  # the most threads of a block; block_sum in kernels.cu has space for this many
BLOCKS = 1 << 16  # the most blocks of an elementwise kernel
CUBLAS_TYPES = {"float32": cp.cuda.runtime.CUDA_R_32F, "float64": cp.cuda.runtime.CUDA_R_64F}
TYPES = {  # in kernels.cu, besides `real`
    "double": np.float64,
    "int": np.int32,
    "unsigned int": np.uint32,
    "int64": np.int64,
    "long long": np.int64,
    "unsigned long long": np.uint64,
    "unsigned short": np.uint16,
}


@functools.cache
def _kernel(name: str, dtype: str, device: int):
    return _module(dtype, device).get_function(name)


@functools.cache
def _module(dtype: str, device: int):
    """kernels.cu compiled for one dtype; each device loads its own copy."""
    real = {"float32": "float", "float64": "double"}[dtype]
    return cp.RawModule(code=SOURCE.read_text(), options=(f"-Dreal={real}",))


@functools.cache
def _parameters(name: str) -> dict[str, str]:
    """The parameters of a kernel and their types, read from kernels.cu: {"x": "real*", "count": "int64", ...}"""
    source = re.search(rf"__global__ void {name}\(([^)]*)\)", SOURCE.read_text())
    assert source, name
    declared = (parameter.replace("const ", "").rpartition(" ") for parameter in source[1].split(","))
    return {parameter: kind.strip() for kind, _, parameter in declared}


def launch(name: str, dtype, blocks: int, threads: int, **arguments) -> None:
    """Launch a kernel of kernels.cu with `real` = dtype, after a check of its arguments.

    arguments: by the names of the kernel's parameters. Arrays must be C-contiguous and on the current device; None is a null
    pointer. Numbers are converted to the parameter's type. CuPy checks none of this: it would misread a wrong argument
    silently.
    """
    device = cp.cuda.runtime.getDevice()
    parameters = _parameters(name)
    if arguments.keys() != parameters.keys():
        raise TypeError(f"{name} takes {', '.join(parameters)}; it was given {', '.join(arguments)}")
    values: list[Any] = []
    for parameter, kind in parameters.items():
        arg = arguments[parameter]
        wanted = np.dtype(TYPES.get(kind.rstrip("*"), dtype))
        if kind.endswith("*") and arg is None:
            values.append(np.uint64(0))
        elif kind.endswith("*") and isinstance(arg, cp.ndarray):
            if arg.device.id != device:
                raise ValueError(f"{parameter} is on cupy:{arg.device.id}, but the current device is cupy:{device}")
            if not arg.flags.c_contiguous or arg.dtype != wanted:
                raise ValueError(
                    f"{name} of {dtype} was given {arg.dtype} {arg.shape} with strides {arg.strides} as {parameter}, for {wanted}"
                )
            values.append(arg)
        elif not kind.endswith("*") and isinstance(arg, (int, float, np.number)):
            values.append(wanted.type(arg))
        else:
            raise ValueError(f"{name} of {dtype} was given {type(arg).__name__} as {parameter}, for {kind}")
    if blocks:
        _kernel(name, np.dtype(dtype).name, device)((blocks,), (threads,), tuple(values))


def each(name: str, dtype, count: int, **arguments) -> None:
    """Launch a kernel that processes `count` elements."""
    launch(name, dtype, min(BLOCKS, ceil_div(count, THREADS)), THREADS, count=count, **arguments)


def each_channel(name: str, dtype, channels: int, length: int, **arguments) -> None:
    """Launch a kernel that reduces each channel, a row of `length` numbers, in one block; short rows take fewer threads."""
    threads = min(THREADS, max(32, 1 << (length - 1).bit_length()))
    launch(name, dtype, channels, threads, length=length, **arguments)


def product(a, b, out=None):
    """a (..., m, k) @ b (..., k, n) -> (..., m, n), matrix by matrix, in the wider of their dtypes.

    float32 matrices are multiplied in the precision of backend.set_matmul_precision. A transposed matrix is not copied.
    """
    device = cp.cuda.runtime.getDevice()
    if not a.device.id == b.device.id == device:  # CuPy's matmul does not check this, and the GPU then faults
        raise ValueError(f"a product of arrays on cupy:{a.device.id} and cupy:{b.device.id}; both belong on the current device")
    (*batch, m, k), n, dtype = a.shape, b.shape[-1], np.promote_types(a.dtype, b.dtype)
    if dtype.name not in CUBLAS_TYPES or b.shape != (*batch, k, n):
        raise ValueError(f"a product of {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    y = cp.empty((*batch, m, n), dtype) if out is None else out
    if not (y.flags.c_contiguous and y.dtype == dtype and y.shape == (*batch, m, n)):
        raise ValueError(f"a product of {dtype} {(*batch, m, n)} cannot go to {y.dtype} {y.shape} with strides {y.strides}")
    if not a.size or not b.size:
        y.fill(0)
        return y
    a, b = (factor.astype(dtype, copy=False) for factor in (a, b))
    kind = result = CUBLAS_TYPES[dtype.name]
    sums, scale = result, None
    if dtype == np.float32 and get_matmul_precision() == "tf32":
        sums = cublas.CUBLAS_COMPUTE_32F_FAST_TF32
    elif dtype == np.float32 and get_matmul_precision() == "fp16":
        (a, scale_a), (b, scale_b) = _halves(a), _halves(b)
        kind, scale = cp.cuda.runtime.CUDA_R_16F, scale_a.astype(np.float64) * scale_b  # may overflow float32
    (a, transposed_a, row_a), (b, transposed_b, row_b) = _as_cublas_reads(a), _as_cublas_reads(b)
    one, zero = np.ones(1, dtype), np.zeros(1, dtype)
    # cuBLAS stores matrices by columns, so it computes the transposed product, y^T = b^T a^T.
    cublas.gemmStridedBatchedEx(
        *(cp.cuda.device.get_cublas_handle(), transposed_b, transposed_a, n, m, k, one.ctypes.data),
        *(b.data.ptr, kind, row_b, k * n, a.data.ptr, kind, row_a, m * k),
        *(zero.ctypes.data, y.data.ptr, result, n, m * n, math.prod(batch), sums, cublas.CUBLAS_GEMM_DEFAULT),
    )
    if scale is not None:
        y *= scale
    return y


def _as_cublas_reads(a):
    """(the matrices as consecutive rows, whether they are those of `a` transposed (0 or 1), the row stride in elements)."""
    turned = a.swapaxes(-1, -2)
    if turned.flags.c_contiguous and not a.flags.c_contiguous:
        return turned, 1, a.shape[-2]
    return cp.ascontiguousarray(a), 0, a.shape[-1]


_largest = cp.ReductionKernel("T x", "T y", "abs(x)", "max(a, b)", "y = a", "0", "largest")
_divided = cp.ElementwiseKernel("T x, T scale", "float16 y", "y = x / scale", "divided")


def _halves(a):
    """(a / scale as float16, scale); scale is the power of two with which the largest entry is between 2^14 and 2^15.

    Without it small gradients would become 0: the smallest float16 is 6e-8, the largest 65504.
    """
    _, exponent = cp.frexp(_largest(a))
    scale = cp.ldexp(np.float32(1), cp.maximum(exponent - 15, -126))
    return _divided(a, scale), scale
