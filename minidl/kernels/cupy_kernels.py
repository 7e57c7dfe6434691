"""The CuPy kernels: the functions of reference.py on a GPU. reference.py says what each computes.

Inside, arrays are batch-last and C-contiguous, (C, H, W, N), see layout.py. cuBLAS computes the matrix products, and the
kernels in kernels.cu all other steps; a kernel is compiled at its first use. Nothing here waits for the GPU.
"""

import functools
import math
from typing import Any

import cupy as cp
import numpy as np

from ..backend import get_matmul_precision
from ..partition import ceil_div, chunks, length
from . import winograd
from .cuda import each, each_channel, product
from .layout import from_batch_last, to_batch_last
from .shared import avg_pool2d as avg_pool2d
from .shared import avg_pool2d_backward as avg_pool2d_backward
from .shared import log_softmax as log_softmax
from .shared import multiply as multiply
from .shared import pad2d as pad2d
from .shared import sigmoid as sigmoid
from .shared import sigmoid_backward as sigmoid_backward
from .shared import tanh as tanh
from .shared import tanh_backward as tanh_backward
from .windows import output_size

COLUMN_BYTES = 256 << 20  # the size of one chunk of im2col's columns
MOST_WINDOW = 1 << 16  # elements of a pooling window, as argmax is uint16


def _length(x) -> int:
    """The number of values in a channel of x (C, ..., N)."""
    return math.prod(x.shape[1:])


def _like(x, dtype=None):
    """An array of x's shape, C-contiguous whatever x is."""
    return cp.empty(x.shape, dtype or x.dtype)


# --- the fully connected layer -----------------------------------------------------------------------------------------


def linear(x, weight, bias):
    """weight (O, F) @ x (F, N) + bias (O,), if there is one -> (O, N)."""
    y = product(weight, to_batch_last(x))
    if bias is not None and y.size:
        _place(y, bias, y, 0)
    return from_batch_last(y)


def linear_backward(grad, x, weight, needs=(True, True, True), out=None):
    """(dx, dweight, dbias), None where it is not needed. dweight is written into `out` if given."""
    grad, x = to_batch_last(grad), to_batch_last(x)
    dx = from_batch_last(product(weight.T, grad)) if needs[0] else None
    dweight = product(grad, x.T, out) if needs[1] else None
    return dx, dweight, channel_sums(grad) if needs[2] else None


def matmul(a, b):
    """The product of stacks of matrices, broadcast as in NumPy. float32: in the precision of backend.set_matmul_precision."""
    if a.dtype != b.dtype or a.dtype.kind != "f" or a.dtype.itemsize < 4:
        return cp.matmul(a, b)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (cp.broadcast_to(factor, (*batch, *factor.shape[-2:])) for factor in (a, b))
    return product(a, b)


def _place(values, bias, y, start):
    """y (O, total)[:, start : start + length] = values (O, length) + bias (O,), or without bias if that is None."""
    length = values.size // len(y)
    each("place", y.dtype, values.size, product=values, bias=_dense(bias), y=y, length=length, start=start, total=_length(y))


def _dense(bias):
    return None if bias is None else cp.ascontiguousarray(bias)


# --- convolution -------------------------------------------------------------------------------------------------------


def conv2d(x, weight, bias, stride, padding, groups, winograd_tile):
    """winograd_tile: see winograd.winograd_tile; None for im2col."""
    x = to_batch_last(x)
    if winograd_tile is not None:
        return from_batch_last(_winograd(x, weight, bias, padding, groups, winograd_tile))
    O, CG, KH, KW = weight.shape
    OH, OW = (output_size(*axis) for axis in zip(x.shape[1:3], (KH, KW), stride, padding, strict=True))
    y = cp.empty((O, OH, OW, x.shape[-1]), x.dtype)
    for rows in _row_chunks(x, weight, OH, OW):
        columns = _im2col(x, (KH, KW), stride, padding, rows, OW).reshape(groups, CG * KH * KW, -1)
        values = product(weight.reshape(groups, O // groups, -1), columns)
        _place(values.reshape(O, -1), bias, y, rows.start * OW * x.shape[-1])
    return from_batch_last(y)


def conv2d_backward(grad, x, weight, stride, padding, groups, winograd_tile, needs=(True, True, True), out=None):
    """(dx, dweight, dbias), None where it is not needed. dweight is written into `out` if given."""
    grad, x = to_batch_last(grad), to_batch_last(x)
    if winograd_tile is None:
        dx, dweight = _im2col_backward(grad, x, weight, stride, padding, groups, needs, out)
    else:
        dx, dweight = _winograd_backward(grad, x, weight, padding, groups, winograd_tile, needs, out)
    return from_batch_last(dx) if needs[0] else None, dweight, channel_sums(grad) if needs[2] else None


def _im2col_backward(grad, x, weight, stride, padding, groups, needs, out):
    O, CG, KH, KW = weight.shape
    _, OH, OW, _ = grad.shape
    dx: Any = cp.zeros(x.shape, x.dtype) if needs[0] else None
    dweight: Any = (cp.empty_like(weight) if out is None else out) if needs[1] else None
    if needs[1]:
        dweight.fill(0)
    for rows in _row_chunks(x, weight, OH, OW):
        part = cp.ascontiguousarray(grad[:, rows]).reshape(groups, O // groups, -1)
        if needs[1]:
            columns = _im2col(x, (KH, KW), stride, padding, rows, OW).reshape(groups, CG * KH * KW, -1)
            dweight += product(part, columns.transpose(0, 2, 1)).reshape(weight.shape)
        if needs[0]:
            columns = product(weight.reshape(groups, O // groups, -1).transpose(0, 2, 1), part)
            geometry = _geometry(x, (KH, KW), stride, padding, rows, OW)
            each("col2im", x.dtype, dx.size, columns=cp.ascontiguousarray(columns), dx=dx, **geometry)
    return dx, dweight


def _row_chunks(x, weight, OH, OW) -> list[slice]:
    """Chunks of output rows whose columns take about COLUMN_BYTES."""
    row_bytes = len(x) * math.prod(weight.shape[2:]) * OW * x.shape[-1] * x.itemsize
    return chunks(OH, max(1, COLUMN_BYTES // max(1, row_bytes)))


def _geometry(x, kernel_size, stride, padding, rows, OW):
    """The shape arguments of im2col and col2im for some rows of outputs."""
    _, H, W, N = x.shape
    (KH, KW), (SH, SW), (PH, PW) = kernel_size, stride, padding
    return dict(H=H, W=W, N=N, KH=KH, KW=KW, SH=SH, SW=SW, PH=PH, PW=PW, top=rows.start, bottom=rows.stop, OW=OW)


def _im2col(x, kernel_size, stride, padding, rows, OW):
    columns = cp.empty((len(x) * math.prod(kernel_size), length(rows) * OW * x.shape[-1]), x.dtype)
    geometry = _geometry(x, kernel_size, stride, padding, rows, OW)
    each("im2col", x.dtype, columns.size, x=x, columns=columns, **geometry)
    return columns


# --- convolution by Winograd's algorithm, see winograd.py --------------------------------------------------------------


def winograd_tile(*geometry) -> int | None:
    """winograd.winograd_tile; None if float32 is not multiplied in full precision, as Winograd's algorithm rounds more."""
    full = get_matmul_precision() == "fp32" or geometry[-1] != np.float32
    return winograd.winograd_tile(*geometry) if full else None


@functools.cache
def _transforms(m: int, r: int, dtype, device: int):
    return tuple(cp.asarray(matrix) for matrix in winograd.transforms(m, r, dtype))


def _winograd(x, weight, bias, padding, groups, m):
    O, _, r, _ = weight.shape
    A, G, B = _transforms(m, r, x.dtype, x.device.id)
    OH, OW = (output_size(n, r, 1, p) for n, p in zip(x.shape[1:3], padding, strict=True))
    y = cp.empty((O, OH, OW, x.shape[-1]), x.dtype)
    tiles = ceil_div(OH, m), ceil_div(OW, m)
    V = _at_points(B, _read_tiles(x, m + r - 1, m, padding, tiles), groups)
    M = product(_kernels_at_points(G, weight, groups), V)
    values = product(A.T, M.reshape(len(M), -1)).reshape(m * m, O, -1)
    _add_tiles(values, bias, y, m, m, (0, 0), tiles)
    return y


def _winograd_backward(grad, x, weight, padding, groups, m, needs, out):
    r = weight.shape[2]
    n = m + r - 1
    A, G, B = _transforms(m, r, x.dtype, x.device.id)
    tiles = ceil_div(grad.shape[1], m), ceil_div(grad.shape[2], m)
    dM = _at_points(A, _read_tiles(grad, m, m, (0, 0), tiles), groups)
    dx: Any = None
    dweight: Any = None
    if needs[1]:
        V = _at_points(B, _read_tiles(x, n, m, padding, tiles), groups)
        dU = product(dM, V.transpose(0, 1, 3, 2))
        dweight = cp.empty_like(weight) if out is None else out
        dweight[...] = product(G.T, dU.reshape(n * n, -1)).T.reshape(weight.shape)
    if needs[0]:
        dV = product(_kernels_at_points(G, weight, groups).transpose(0, 1, 3, 2), dM)
        values = product(B.T, dV.reshape(n * n, -1)).reshape(n * n, len(x), -1)
        dx = cp.empty(x.shape, x.dtype)
        _add_tiles(values, None, dx, n, m, padding, tiles)
    return dx, dweight


def _kernels_at_points(G, weight, groups):
    """U (n^2, groups, O / groups, C / groups)."""
    O, CG, r, _ = weight.shape
    return product(G, weight.reshape(O * CG, r * r).T).reshape(len(G), groups, O // groups, CG)


def _at_points(matrix, tiles, groups):
    """matrix (n^2, size^2) @ tiles (size^2, channels, L) -> (n^2, groups, channels / groups, L)."""
    _, channels, L = tiles.shape
    return product(matrix, tiles.reshape(len(tiles), -1)).reshape(len(matrix), groups, channels // groups, L)


def _tile_geometry(x, size, m, padding, tiles):
    C, H, W, N = x.shape
    (PH, PW), (rows, columns) = padding, tiles
    return dict(C=C, H=H, W=W, N=N, size=size, m=m, PH=PH, PW=PW, rows=rows, columns=columns)


def _read_tiles(x, size, m, padding, tiles):
    values = cp.empty((size * size, len(x), math.prod(tiles) * x.shape[-1]), x.dtype)
    each("read_tiles", x.dtype, values.size, x=x, tiles=values, **_tile_geometry(x, size, m, padding, tiles))
    return values


def _add_tiles(values, bias, x, size, m, padding, tiles):
    each("add_tiles", x.dtype, x.size, tiles=values, bias=_dense(bias), x=x, **_tile_geometry(x, size, m, padding, tiles))


# --- pooling -----------------------------------------------------------------------------------------------------------


def max_pool2d(x, kernel_size, stride, padding, size, with_argmax=True):
    """y of shape (N, C, *size), and argmax, the position of the maximum in its window (None unless with_argmax).

    padding is ((top, bottom), (left, right)).
    """
    if math.prod(kernel_size) > MOST_WINDOW:
        raise ValueError(f"max_pool2d on a GPU takes windows of at most {MOST_WINDOW:,} elements; got {kernel_size}")
    x = to_batch_last(x)
    y = cp.empty((len(x), *size, x.shape[-1]), x.dtype)
    argmax = _like(y, np.uint16) if with_argmax else None
    geometry = _window_geometry(x.shape, kernel_size, stride, padding, size)
    each("max_pool2d", x.dtype, y.size, x=x, y=y, argmax=argmax, **geometry)
    return from_batch_last(y), from_batch_last(argmax) if with_argmax else None


def max_pool2d_backward(grad, argmax, x_shape, kernel_size, stride, padding):
    """dx of x_shape: each element of grad is added at the maximum of its window."""
    grad, argmax = to_batch_last(grad), to_batch_last(argmax)
    dx = cp.empty((*x_shape[1:], x_shape[0]), grad.dtype)
    geometry = _window_geometry(dx.shape, kernel_size, stride, padding, grad.shape[1:3])
    each("max_pool2d_backward", grad.dtype, dx.size, grad=grad, argmax=argmax, dx=dx, **geometry)
    return from_batch_last(dx)


def _window_geometry(shape, kernel_size, stride, padding, size):
    _, H, W, N = shape
    (KH, KW), (SH, SW), ((top, _), (left, _)), (OH, OW) = kernel_size, stride, padding, size
    return dict(H=H, W=W, N=N, KH=KH, KW=KW, SH=SH, SW=SW, top=top, left=left, OH=OH, OW=OW)


# --- normalisation -----------------------------------------------------------------------------------------------------


def channel_statistics(x):
    """For each channel: the mean, and the sum of squared deviations from it (M2). Two float64 (C,)."""
    x = to_batch_last(x)
    mean, M2 = cp.empty(len(x), np.float64), cp.empty(len(x), np.float64)
    each_channel("channel_statistics", x.dtype, len(x), _length(x), x=x, mean=mean, M2=M2)
    return mean, M2


def scale_and_shift(x, scale, shift):
    x = to_batch_last(x)
    y = _like(x)
    each("scale_and_shift", x.dtype, x.size, x=x, scale=scale, shift=shift, y=y, length=_length(x))
    return from_batch_last(y)


def batch_norm_sums(grad, x, mean, inverse_std):
    """For each channel: the sum of grad, and of grad * (x - mean) * inverse_std. Two (C,)."""
    grad, x = to_batch_last(grad), to_batch_last(x)
    plain, weighted = cp.empty(len(x), x.dtype), cp.empty(len(x), x.dtype)
    arrays = dict(grad=grad, x=x, mean=mean, inverse_std=inverse_std, plain=plain, weighted=weighted)
    each_channel("batch_norm_sums", x.dtype, len(x), _length(x), **arrays)
    return plain, weighted


def batch_norm_backward(grad, x, mean, inverse_std, scale, mean_grad, mean_weighted):
    """dx = scale * (grad - mean_grad - xhat * mean_weighted), xhat = (x - mean) * inverse_std; the last five are (C,)."""
    grad, x = to_batch_last(grad), to_batch_last(x)
    dx = _like(x)
    of_channels = dict(mean=mean, inverse_std=inverse_std, scale=scale, mean_grad=mean_grad, mean_weighted=mean_weighted)
    each("batch_norm_backward", x.dtype, x.size, grad=grad, x=x, **of_channels, dx=dx, length=_length(x))
    return from_batch_last(dx)


def local_response_norm(x, before, after, alpha, beta, k, groups):
    """y = x / s ** beta and s = k + alpha * (sum of x ** 2 over the channels c - before to c + after of c's group)."""
    x = to_batch_last(x)
    y, s = _like(x), _like(x)
    window = dict(of_group=len(x) // groups, before=before, after=after, alpha=alpha, beta=beta, k=k)
    each("local_response_norm", x.dtype, x.size, x=x, y=y, s=s, length=_length(x), **window)
    return from_batch_last(y), from_batch_last(s)


def local_response_norm_backward(grad, x, s, before, after, alpha, beta, groups):
    """dx = grad / s ** beta - 2 alpha beta x * (sum of grad x / s ** (beta + 1) over the channels whose window contains x)."""
    grad, x, s = map(to_batch_last, (grad, x, s))
    dx = _like(x)
    window = dict(of_group=len(x) // groups, before=before, after=after, alpha=alpha, beta=beta)
    each("local_response_norm_backward", x.dtype, x.size, grad=grad, x=x, s=s, dx=dx, length=_length(x), **window)
    return from_batch_last(dx)


# --- the rest ----------------------------------------------------------------------------------------------------------


def channel_sums(x):
    """x (C, ..., N), batch-last -> (C,), the sum of each channel: the gradient of a bias."""
    sums = cp.empty(len(x), x.dtype)
    each_channel("channel_sums", x.dtype, len(x), _length(x), x=x, sums=sums)
    return sums


def relu(x):
    x = to_batch_last(x)
    y = _like(x)
    each("relu", x.dtype, x.size, x=x, y=y)
    return from_batch_last(y)


def relu_backward(grad, y):
    grad, y = to_batch_last(grad), to_batch_last(y)
    dx = _like(grad)
    each("relu_backward", grad.dtype, grad.size, grad=grad, y=y, dx=dx)
    return from_batch_last(dx)


def dropout_mask(shape, p, draw, dtype):
    """0 with probability p, else 1 / (1 - p), for shape (N, ...). draw: (seed, step, key, first_sample, first_feature)."""
    seed, step, key, first, first_feature = draw
    N, *rest = shape
    mask = cp.empty((*rest, N), dtype)
    features = math.prod(rest)
    numbers = dict(features=features, N=N, threshold=round(p * 2**32), scale=1 / max(1 - p, 2**-32))
    numbers |= dict(first_block=first_feature // 4, skipped=first_feature % 4)
    words = dict(seed_low=seed, seed_high=seed >> 32, stream=key, time=step, first=first)
    words = {name: word & 0xFFFFFFFF for name, word in words.items()}
    each("dropout_mask", dtype, ceil_div(first_feature % 4 + features, 4) * N, mask=mask, **numbers, **words)
    return from_batch_last(mask)


def cross_entropy(x, labels, label_smoothing):
    """The loss of each sample (N,), and softmax(x), for x (N, C) and labels (N,); NaN where a label is not in 0 to C - 1."""
    log_p = log_softmax(to_batch_last(x), axis=0)
    picked = cp.empty(len(labels), x.dtype)
    each("at_labels", x.dtype, picked.size, rows=log_p, labels=labels.astype(np.int64), picked=picked, classes=len(log_p))
    loss = -(1 - label_smoothing) * picked
    if label_smoothing:
        loss -= label_smoothing * log_p.mean(axis=0)
    return loss, from_batch_last(cp.exp(log_p))


def cross_entropy_backward(grad, p, labels, label_smoothing):
    p = to_batch_last(p)
    dx, labels = p - label_smoothing / len(p), labels.astype(np.int64)
    each("subtract_at_labels", dx.dtype, len(labels), rows=dx, labels=labels, classes=len(p), value=1 - label_smoothing)
    return from_batch_last(dx * grad)


def sgd_update(weight, grad, velocity, lr, momentum, weight_decay, nesterov, loss=None):
    """One step of SGD on flat arrays, in place, see optim.SGD; no step if `loss`, an array of one float64, is not finite."""
    coefficients = dict(lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)
    each("sgd_update", weight.dtype, weight.size, weight=weight, grad=grad, velocity=velocity, **coefficients, loss=loss)


def adam_update(weight, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay, loss=None):
    """One step of Adam on flat arrays, in place, see optim.Adam; no step if `loss`, an array of one float64, is not finite.

    step: the number of steps before this one, an array of one float64. It is increased here, on the GPU, because only the
    GPU knows the loss.
    """
    correction = cp.empty(2, np.float64)
    common = dict(correction=correction, beta1=betas[0], beta2=betas[1], loss=loss)
    each("adam_correction", weight.dtype, 1, step=step, **common)
    arrays = dict(weight=weight, grad=grad, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    each("adam_update", weight.dtype, weight.size, **arrays, lr=lr, eps=eps, weight_decay=weight_decay, **common)
