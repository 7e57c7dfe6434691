"""CuPy kernels: the functions of numpy_kernels.py, on a GPU. Arrays lie batch-last and C-contiguous: (C, H, W, N).

Products of matrices are cuBLAS's; what lies between them is in kernels.cu, each function one kernel, compiled at its first use.
Nothing here waits for the GPU.
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
from . import winograd
from .windows import window_sums as window_sums
from .windows import window_sums_gradient as window_sums_gradient

SOURCE = Path(__file__).with_name("kernels.cu")
THREADS = 256  # of a block, at most; block_sum in kernels.cu has room for so many
BLOCKS = 1 << 16  # of an elementwise kernel, at most
COLUMN_BYTES = 256 << 20  # of im2col's columns at a time
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
    """kernels.cu for one dtype; each device loads it for itself."""
    real = {"float32": "float", "float64": "double"}[dtype]
    return cp.RawModule(code=SOURCE.read_text(), options=(f"-Dreal={real}",))


@functools.cache
def _parameters(name: str) -> list[str]:
    """The types of a kernel's parameters, as kernels.cu has them: "real*", "int64", ..."""
    source = re.search(rf"__global__ void {name}\(([^)]*)\)", SOURCE.read_text())
    assert source, name
    return [parameter.replace("const ", "").rpartition(" ")[0].strip() for parameter in source[1].split(",")]


def _launch(name: str, dtype, blocks: int, threads: int, *args) -> None:
    """Launch a kernel of kernels.cu with `real` = dtype. Everything a kernel is given goes through here.

    args: arrays, C-contiguous and on the current device, or None for a null pointer; and numbers, which become what the
    kernel takes. CuPy checks none of this, and a wrong one is silently read as something else.
    """
    device = cp.cuda.runtime.getDevice()
    values: list[Any] = []
    for kind, arg in zip(_parameters(name), args, strict=True):
        wanted = np.dtype(TYPES.get(kind.rstrip("*"), dtype))
        if kind.endswith("*") and arg is None:
            values.append(np.uint64(0))
        elif kind.endswith("*") and isinstance(arg, cp.ndarray):
            if arg.device.id != device:
                raise ValueError(f"an array is on cupy:{arg.device.id}, but the current device is cupy:{device}")
            if not arg.flags.c_contiguous or arg.dtype != wanted:
                raise ValueError(f"{name} of {dtype} was given {arg.dtype} {arg.shape} with strides {arg.strides} for {wanted}")
            values.append(arg)
        elif not kind.endswith("*") and isinstance(arg, (int, float, np.number)):
            values.append(wanted.type(arg))
        else:
            raise ValueError(f"{name} of {dtype} was given {type(arg).__name__} for {kind}")
    if blocks:
        _kernel(name, np.dtype(dtype).name, device)((blocks,), (threads,), tuple(values))


def _each(name: str, dtype, count: int, *args) -> None:
    """A kernel that walks through `count` elements; args have `count` among them."""
    _launch(name, dtype, min(BLOCKS, -(-count // THREADS)), THREADS, *args)


def _each_channel(name: str, x, *args) -> None:
    """A kernel that reduces rows of x (C, ..., N), a block each, with fewer threads for short ones."""
    length = math.prod(x.shape[1:])
    threads = min(THREADS, max(32, 1 << (length - 1).bit_length()))
    _launch(name, x.dtype, len(x), threads, *args, length)


def _product(a, b, out=None):
    """a (..., m, k) @ b (..., k, n) -> (..., m, n), matrix by matrix, in the wider of their dtypes.

    float32 matrices are multiplied in the precision of backend.set_matmul_precision. A transposed one is read where it lies.
    """
    device = cp.cuda.runtime.getDevice()
    if not a.device.id == b.device.id == device:  # CuPy's own matmul takes them without complaint, and the GPU then faults
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
        kind, scale = cp.cuda.runtime.CUDA_R_16F, scale_a.astype(np.float64) * scale_b  # may be beyond float32
    (a, transposed_a, row_a), (b, transposed_b, row_b) = _as_cublas_reads(a), _as_cublas_reads(b)
    one, zero = np.ones(1, dtype), np.zeros(1, dtype)
    # cuBLAS takes columns for rows, so it is given the transposed product, y^T = b^T a^T.
    cublas.gemmStridedBatchedEx(
        *(cp.cuda.device.get_cublas_handle(), transposed_b, transposed_a, n, m, k, one.ctypes.data),
        *(b.data.ptr, kind, row_b, k * n, a.data.ptr, kind, row_a, m * k),
        *(zero.ctypes.data, y.data.ptr, result, n, m * n, math.prod(batch), sums, cublas.CUBLAS_GEMM_DEFAULT),
    )
    if scale is not None:
        y *= scale
    return y


def _as_cublas_reads(a):
    """(matrices that lie one behind the other, 1 if they are those of `a` transposed, numbers from row to row)."""
    turned = a.swapaxes(-1, -2)
    if turned.flags.c_contiguous and not a.flags.c_contiguous:
        return turned, 1, a.shape[-2]
    return cp.ascontiguousarray(a), 0, a.shape[-1]


_largest = cp.ReductionKernel("T x", "T y", "abs(x)", "max(a, b)", "y = a", "0", "largest")
_divided = cp.ElementwiseKernel("T x, T scale", "float16 y", "y = x / scale", "divided")


def _halves(a):
    """(a / scale as float16, scale), scale the power of two that brings the largest entry to between 2^14 and 2^15.

    Without it gradients would vanish, as float16 ends at 6e-8; upwards it ends at 65504.
    """
    _, exponent = cp.frexp(_largest(a))
    scale = cp.ldexp(np.float32(1), cp.maximum(exponent - 15, -126))
    return _divided(a, scale), scale


def _length(x) -> int:
    return math.prod(x.shape[1:])


# --- the fully connected layer -----------------------------------------------------------------------------------------


def linear(x, weight, bias):
    """weight (O, F) @ x (F, N) + bias (O,), if there is one -> (O, N)."""
    y = _product(weight, x)
    if bias is not None:
        _each("place", y.dtype, y.size, y, bias, y, y.size, _length(y), 0, _length(y))
    return y


def linear_input_gradient(grad, weight):
    """dx = weight.T (F, O) @ grad (O, N) -> (F, N)."""
    return _product(weight.T, grad)


def linear_weight_gradient(grad, x, out=None):
    """dweight = grad (O, N) @ x.T (N, F) -> (O, F), written into `out` if given."""
    return _product(grad, x.T, out)


# --- convolution -------------------------------------------------------------------------------------------------------


def conv2d(x, weight, bias, stride, padding, groups, tile=0):
    """x (C, H, W, N), weight (O, C / groups, KH, KW), bias (O,) or None -> (O, OH, OW, N). tile: see tile_size."""
    if tile:
        return _winograd(x, weight, bias, padding, groups, tile)
    _, H, W, N = x.shape
    O, CG, KH, KW = weight.shape
    OH, OW = ((n + 2 * p - k) // s + 1 for n, p, k, s in zip((H, W), padding, (KH, KW), stride, strict=True))
    y = cp.empty((O, OH, OW, N), x.dtype)
    for top, bottom in _bands(x, weight, OH, OW):
        columns = _im2col(x, (KH, KW), stride, padding, top, bottom, OW).reshape(groups, CG * KH * KW, -1)
        product = _product(weight.reshape(groups, O // groups, -1), columns)
        length, start = (bottom - top) * OW * N, top * OW * N
        _each("place", x.dtype, product.size, product, bias, y, product.size, length, start, _length(y))
    return y


def conv2d_gradients(grad, x, weight, stride, padding, groups, tile, needs, out=None):
    """(dx or None, dweight or None) from grad (O, OH, OW, N); needs: which of the two are wanted. out: where to write dweight."""
    if tile:
        return _winograd_gradients(grad, x, weight, padding, groups, tile, needs, out)
    _, H, W, N = x.shape
    O, CG, KH, KW = weight.shape
    _, OH, OW, _ = grad.shape
    dx: Any = cp.zeros(x.shape, x.dtype) if needs[0] else None
    dweight: Any = (cp.empty_like(weight) if out is None else out) if needs[1] else None
    if needs[1]:
        dweight.fill(0)
    for top, bottom in _bands(x, weight, OH, OW):
        part = cp.ascontiguousarray(grad[:, top:bottom]).reshape(groups, O // groups, -1)
        if needs[1]:
            columns = _im2col(x, (KH, KW), stride, padding, top, bottom, OW).reshape(groups, CG * KH * KW, -1)
            dweight += _product(part, columns.transpose(0, 2, 1)).reshape(weight.shape)
        if needs[0]:
            columns = _product(weight.reshape(groups, O // groups, -1).transpose(0, 2, 1), part)
            geometry = H, W, N, KH, KW, *stride, *padding, top, bottom, OW
            _each("col2im", x.dtype, dx.size, cp.ascontiguousarray(columns), dx, dx.size, *geometry)
    return dx, dweight


def _bands(x, weight, OH, OW):
    """Rows of outputs (top, bottom) whose columns take about COLUMN_BYTES."""
    size = max(1, COLUMN_BYTES // max(1, len(x) * math.prod(weight.shape[2:]) * OW * x.shape[-1] * x.itemsize))
    return [(top, min(top + size, OH)) for top in range(0, OH, size)]


def _im2col(x, kernel_size, stride, padding, top, bottom, OW):
    C, H, W, N = x.shape
    columns = cp.empty((C * math.prod(kernel_size), (bottom - top) * OW * N), x.dtype)
    geometry = H, W, N, *kernel_size, *stride, *padding, top, bottom, OW
    _each("im2col", x.dtype, columns.size, x, columns, columns.size, *geometry)
    return columns


# --- convolution in Winograd's way, see winograd.py --------------------------------------------------------------------


def tile_size(*geometry) -> int:
    """winograd.tile_size; 0 where float32 is not multiplied in full precision, as Winograd's way makes rounding larger."""
    full = get_matmul_precision() == "fp32" or geometry[-1] != np.float32
    return winograd.tile_size(*geometry) if full else 0


@functools.cache
def _transforms(m: int, r: int, dtype, device: int):
    return tuple(cp.asarray(matrix) for matrix in winograd.transforms(m, r, dtype))


def _winograd(x, weight, bias, padding, groups, m):
    (O, _, r, _), (_, H, W, N) = weight.shape, x.shape
    A, G, B = _transforms(m, r, x.dtype, x.device.id)
    y = cp.empty((O, H + 2 * padding[0] - r + 1, W + 2 * padding[1] - r + 1, N), x.dtype)
    tiles = -(-y.shape[1] // m), -(-y.shape[2] // m)
    V = _at_points(B, _read_tiles(x, m + r - 1, m, padding, tiles), groups)
    M = _product(_kernels_at_points(G, weight, groups), V)
    values = _product(A.T, M.reshape(len(M), -1)).reshape(m * m, O, -1)
    _add_tiles(values, bias, y, m, m, (0, 0), tiles)
    return y


def _winograd_gradients(grad, x, weight, padding, groups, m, needs, out):
    r = weight.shape[2]
    n = m + r - 1
    A, G, B = _transforms(m, r, x.dtype, x.device.id)
    tiles = -(-grad.shape[1] // m), -(-grad.shape[2] // m)
    dM = _at_points(A, _read_tiles(grad, m, m, (0, 0), tiles), groups)
    dx: Any = None
    dweight: Any = None
    if needs[1]:
        V = _at_points(B, _read_tiles(x, n, m, padding, tiles), groups)
        dU = _product(dM, V.transpose(0, 1, 3, 2))
        dweight = cp.empty_like(weight) if out is None else out
        dweight[...] = _product(G.T, dU.reshape(n * n, -1)).T.reshape(weight.shape)
    if needs[0]:
        dV = _product(_kernels_at_points(G, weight, groups).transpose(0, 1, 3, 2), dM)
        values = _product(B.T, dV.reshape(n * n, -1)).reshape(n * n, len(x), -1)
        dx = cp.empty(x.shape, x.dtype)
        _add_tiles(values, None, dx, n, m, padding, tiles)
    return dx, dweight


def _kernels_at_points(G, weight, groups):
    """U (n^2, groups, O / groups, C / groups)."""
    O, CG, r, _ = weight.shape
    return _product(G, weight.reshape(O * CG, r * r).T).reshape(len(G), groups, O // groups, CG)


def _at_points(matrix, tiles, groups):
    """matrix (n^2, size^2) @ tiles (size^2, channels, L) -> (n^2, groups, channels / groups, L)."""
    _, channels, L = tiles.shape
    return _product(matrix, tiles.reshape(len(tiles), -1)).reshape(len(matrix), groups, channels // groups, L)


def _read_tiles(x, size, m, padding, tiles):
    C, H, W, N = x.shape
    values = cp.empty((size * size, C, math.prod(tiles) * N), x.dtype)
    _each("read_tiles", x.dtype, values.size, x, values, values.size, C, H, W, N, size, m, *padding, *tiles)
    return values


def _add_tiles(values, bias, x, size, m, padding, tiles):
    C, H, W, N = x.shape
    _each("add_tiles", x.dtype, x.size, values, bias, x, x.size, C, H, W, N, size, m, *padding, *tiles)


# --- pooling -----------------------------------------------------------------------------------------------------------


def max_pool2d(x, kernel_size, stride, padding, output_size, with_argmax):
    """x (C, H, W, N) -> y (C, OH, OW, N) and argmax, the first place of the maximum in its window (or None).

    padding is ((top, bottom), (left, right)).
    """
    C, H, W, N = x.shape
    y = cp.empty((C, *output_size, N), x.dtype)
    argmax = cp.empty(y.shape, np.uint16) if with_argmax else None
    geometry = H, W, N, *kernel_size, *stride, padding[0][0], padding[1][0], *output_size
    _each("max_pool2d", x.dtype, y.size, x, y, argmax, y.size, *geometry)
    return y, argmax


def max_pool2d_gradient(grad, argmax, x_shape, kernel_size, stride, padding):
    """dx (C, H, W, N): each element of grad (C, OH, OW, N) goes to the maximum it came from, and adds up there."""
    _, H, W, N = x_shape
    dx = cp.empty(x_shape, grad.dtype)
    geometry = H, W, N, *kernel_size, *stride, padding[0][0], padding[1][0], *grad.shape[1:3]
    _each("max_pool2d_gradient", grad.dtype, dx.size, grad, argmax, dx, dx.size, *geometry)
    return dx


# --- normalisation -----------------------------------------------------------------------------------------------------


def channel_statistics(x):
    """Of x (C, ..., N), for each channel: the mean, and the sum of squared distances from it (M2). Two float64 (C,)."""
    mean, M2 = cp.empty(len(x), np.float64), cp.empty(len(x), np.float64)
    _each_channel("channel_statistics", x, x, mean, M2)
    return mean, M2


def scale_and_shift(x, scale, shift):
    """x * scale + shift, with scale and shift (C,) for x (C, ..., N)."""
    y = cp.empty(x.shape, x.dtype)
    _each("scale_and_shift", x.dtype, x.size, x, scale, shift, y, x.size, _length(x))
    return y


def batch_norm_sums(grad, x, mean, inverse_std):
    """For each channel: the sum of grad, and of grad * (x - mean) * inverse_std. Two (C,)."""
    plain, weighted = cp.empty(len(x), x.dtype), cp.empty(len(x), x.dtype)
    _each_channel("batch_norm_sums", x, grad, x, mean, inverse_std, plain, weighted)
    return plain, weighted


def batch_norm_gradient(grad, x, mean, inverse_std, scale, mean_grad, mean_weighted):
    """dx = scale * (grad - mean_grad - xhat * mean_weighted), xhat = (x - mean) * inverse_std; the last six are (C,)."""
    dx = cp.empty(x.shape, x.dtype)
    of_channels = mean, inverse_std, scale, mean_grad, mean_weighted
    _each("batch_norm_gradient", x.dtype, x.size, grad, x, *of_channels, dx, x.size, _length(x))
    return dx


def local_response_norm(x, before, after, alpha, beta, k):
    """y = x / s ** beta and s = k + alpha * (sum of x ** 2 from `before` channels before to `after` behind); (C, ..., N)."""
    y, s = cp.empty(x.shape, x.dtype), cp.empty(x.shape, x.dtype)
    window = len(x), before, after, alpha, beta, k
    _each("local_response_norm", x.dtype, x.size, x, y, s, x.size, _length(x), *window)
    return y, s


def local_response_norm_gradient(grad, x, s, before, after, alpha, beta):
    """dx = grad / s ** beta - 2 alpha beta x * (sum of grad x / s ** (beta + 1) over the channels whose window has x)."""
    dx = cp.empty(x.shape, x.dtype)
    window = len(x), before, after, alpha, beta
    _each("local_response_norm_gradient", x.dtype, x.size, grad, x, s, dx, x.size, _length(x), *window)
    return dx


# --- the rest ----------------------------------------------------------------------------------------------------------


def channel_sums(x):
    """x (C, ..., N) -> (C,), the sum of each channel: the gradient of what was added to it."""
    sums = cp.empty(len(x), x.dtype)
    _each_channel("channel_sums", x, x, sums)
    return sums


def relu(x):
    """max(x, 0)."""
    y = cp.empty(x.shape, x.dtype)
    _each("relu", x.dtype, x.size, x, y, x.size)
    return y


def relu_gradient(grad, y):
    """grad where y > 0, else 0."""
    dx = cp.empty(grad.shape, grad.dtype)
    _each("relu_gradient", grad.dtype, grad.size, grad, y, dx, grad.size)
    return dx


def dropout_mask(shape, p, draw, dtype):
    """0 with probability p, else 1 / (1 - p), for shape (..., N). draw: (seed, step, key, first_sample)."""
    seed, step, key, first = draw
    mask = cp.empty(shape, dtype)
    N, features = shape[-1], math.prod(shape[:-1])
    count = -(-features // 4) * N
    numbers = round(p * 2**32), 1 / max(1 - p, 2**-32)
    words = (word & 0xFFFFFFFF for word in (seed, seed >> 32, key, step, first))
    _each("dropout_mask", dtype, count, mask, count, features, N, *numbers, *words)
    return mask


def at_labels(rows, labels):
    """rows[labels[n], n] for each sample n: rows (classes, N), labels (N,) integers -> (N,); nan for a label that is no class."""
    picked = cp.empty(rows.shape[1], rows.dtype)
    _each("at_labels", rows.dtype, picked.size, rows, labels.astype(np.int64), picked, picked.size, len(rows))
    return picked


def subtract_at_labels(rows, labels, value):
    """rows[labels[n], n] -= value, in place."""
    count = rows.shape[1]
    _each("subtract_at_labels", rows.dtype, count, rows, labels.astype(np.int64), count, len(rows), value)


def sgd_update(weight, grad, velocity, lr, momentum, weight_decay, nesterov, loss=None):
    """One step of SGD on flat arrays, in place, see optim.SGD; none if `loss`, an array of one float64, is not finite."""
    coefficients = lr, momentum, weight_decay, nesterov
    _each("sgd_update", weight.dtype, weight.size, weight, grad, velocity, weight.size, *coefficients, loss)
