"""CuPy kernels: the functions of numpy_kernels.py, on a GPU. Arrays lie batch-last and C-contiguous: (C, H, W, N).

Products of matrices are cuBLAS's; what lies between them is in kernels.cu, each function one kernel, compiled at its first use.
Nothing here waits for the GPU.
"""

import functools
import math
from typing import Any

import cupy as cp
import numpy as np

from ..backend import get_matmul_precision
from . import winograd
from .cuda import each, each_channel, product
from .windows import window_sums as window_sums
from .windows import window_sums_gradient as window_sums_gradient

COLUMN_BYTES = 256 << 20  # of im2col's columns at a time


def _length(x) -> int:
    return math.prod(x.shape[1:])


# --- the fully connected layer -----------------------------------------------------------------------------------------


def linear(x, weight, bias):
    """weight (O, F) @ x (F, N) + bias (O,), if there is one -> (O, N)."""
    y = product(weight, x)
    if bias is not None:
        each("place", y.dtype, y.size, y, bias, y, y.size, _length(y), 0, _length(y))
    return y


def linear_input_gradient(grad, weight):
    """dx = weight.T (F, O) @ grad (O, N) -> (F, N)."""
    return product(weight.T, grad)


def linear_weight_gradient(grad, x, out=None):
    """dweight = grad (O, N) @ x.T (N, F) -> (O, F), written into `out` if given."""
    return product(grad, x.T, out)


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
        values = product(weight.reshape(groups, O // groups, -1), columns)
        length, start = (bottom - top) * OW * N, top * OW * N
        each("place", x.dtype, values.size, values, bias, y, values.size, length, start, _length(y))
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
            dweight += product(part, columns.transpose(0, 2, 1)).reshape(weight.shape)
        if needs[0]:
            columns = product(weight.reshape(groups, O // groups, -1).transpose(0, 2, 1), part)
            geometry = H, W, N, KH, KW, *stride, *padding, top, bottom, OW
            each("col2im", x.dtype, dx.size, cp.ascontiguousarray(columns), dx, dx.size, *geometry)
    return dx, dweight


def _bands(x, weight, OH, OW):
    """Rows of outputs (top, bottom) whose columns take about COLUMN_BYTES."""
    size = max(1, COLUMN_BYTES // max(1, len(x) * math.prod(weight.shape[2:]) * OW * x.shape[-1] * x.itemsize))
    return [(top, min(top + size, OH)) for top in range(0, OH, size)]


def _im2col(x, kernel_size, stride, padding, top, bottom, OW):
    C, H, W, N = x.shape
    columns = cp.empty((C * math.prod(kernel_size), (bottom - top) * OW * N), x.dtype)
    geometry = H, W, N, *kernel_size, *stride, *padding, top, bottom, OW
    each("im2col", x.dtype, columns.size, x, columns, columns.size, *geometry)
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
    M = product(_kernels_at_points(G, weight, groups), V)
    values = product(A.T, M.reshape(len(M), -1)).reshape(m * m, O, -1)
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


def _read_tiles(x, size, m, padding, tiles):
    C, H, W, N = x.shape
    values = cp.empty((size * size, C, math.prod(tiles) * N), x.dtype)
    each("read_tiles", x.dtype, values.size, x, values, values.size, C, H, W, N, size, m, *padding, *tiles)
    return values


def _add_tiles(values, bias, x, size, m, padding, tiles):
    C, H, W, N = x.shape
    each("add_tiles", x.dtype, x.size, values, bias, x, x.size, C, H, W, N, size, m, *padding, *tiles)


# --- pooling -----------------------------------------------------------------------------------------------------------


def max_pool2d(x, kernel_size, stride, padding, output_size, with_argmax):
    """x (C, H, W, N) -> y (C, OH, OW, N) and argmax, the first place of the maximum in its window (or None).

    padding is ((top, bottom), (left, right)).
    """
    C, H, W, N = x.shape
    y = cp.empty((C, *output_size, N), x.dtype)
    argmax = cp.empty(y.shape, np.uint16) if with_argmax else None
    geometry = H, W, N, *kernel_size, *stride, padding[0][0], padding[1][0], *output_size
    each("max_pool2d", x.dtype, y.size, x, y, argmax, y.size, *geometry)
    return y, argmax


def max_pool2d_gradient(grad, argmax, x_shape, kernel_size, stride, padding):
    """dx (C, H, W, N): each element of grad (C, OH, OW, N) goes to the maximum it came from, and adds up there."""
    _, H, W, N = x_shape
    dx = cp.empty(x_shape, grad.dtype)
    geometry = H, W, N, *kernel_size, *stride, padding[0][0], padding[1][0], *grad.shape[1:3]
    each("max_pool2d_gradient", grad.dtype, dx.size, grad, argmax, dx, dx.size, *geometry)
    return dx


# --- normalisation -----------------------------------------------------------------------------------------------------


def channel_statistics(x):
    """Of x (C, ..., N), for each channel: the mean, and the sum of squared distances from it (M2). Two float64 (C,)."""
    mean, M2 = cp.empty(len(x), np.float64), cp.empty(len(x), np.float64)
    each_channel("channel_statistics", x, x, mean, M2)
    return mean, M2


def scale_and_shift(x, scale, shift):
    """x * scale + shift, with scale and shift (C,) for x (C, ..., N)."""
    y = cp.empty(x.shape, x.dtype)
    each("scale_and_shift", x.dtype, x.size, x, scale, shift, y, x.size, _length(x))
    return y


def batch_norm_sums(grad, x, mean, inverse_std):
    """For each channel: the sum of grad, and of grad * (x - mean) * inverse_std. Two (C,)."""
    plain, weighted = cp.empty(len(x), x.dtype), cp.empty(len(x), x.dtype)
    each_channel("batch_norm_sums", x, grad, x, mean, inverse_std, plain, weighted)
    return plain, weighted


def batch_norm_gradient(grad, x, mean, inverse_std, scale, mean_grad, mean_weighted):
    """dx = scale * (grad - mean_grad - xhat * mean_weighted), xhat = (x - mean) * inverse_std; the last six are (C,)."""
    dx = cp.empty(x.shape, x.dtype)
    of_channels = mean, inverse_std, scale, mean_grad, mean_weighted
    each("batch_norm_gradient", x.dtype, x.size, grad, x, *of_channels, dx, x.size, _length(x))
    return dx


def local_response_norm(x, before, after, alpha, beta, k):
    """y = x / s ** beta and s = k + alpha * (sum of x ** 2 from `before` channels before to `after` behind); (C, ..., N)."""
    y, s = cp.empty(x.shape, x.dtype), cp.empty(x.shape, x.dtype)
    window = len(x), before, after, alpha, beta, k
    each("local_response_norm", x.dtype, x.size, x, y, s, x.size, _length(x), *window)
    return y, s


def local_response_norm_gradient(grad, x, s, before, after, alpha, beta):
    """dx = grad / s ** beta - 2 alpha beta x * (sum of grad x / s ** (beta + 1) over the channels whose window has x)."""
    dx = cp.empty(x.shape, x.dtype)
    window = len(x), before, after, alpha, beta
    each("local_response_norm_gradient", x.dtype, x.size, grad, x, s, dx, x.size, _length(x), *window)
    return dx


# --- the rest ----------------------------------------------------------------------------------------------------------


def channel_sums(x):
    """x (C, ..., N) -> (C,), the sum of each channel: the gradient of what was added to it."""
    sums = cp.empty(len(x), x.dtype)
    each_channel("channel_sums", x, x, sums)
    return sums


def relu(x):
    """max(x, 0)."""
    y = cp.empty(x.shape, x.dtype)
    each("relu", x.dtype, x.size, x, y, x.size)
    return y


def relu_gradient(grad, y):
    """grad where y > 0, else 0."""
    dx = cp.empty(grad.shape, grad.dtype)
    each("relu_gradient", grad.dtype, grad.size, grad, y, dx, grad.size)
    return dx


def dropout_mask(shape, p, draw, dtype):
    """0 with probability p, else 1 / (1 - p), for shape (..., N). draw: (seed, step, key, first_sample)."""
    seed, step, key, first = draw
    mask = cp.empty(shape, dtype)
    N, features = shape[-1], math.prod(shape[:-1])
    count = -(-features // 4) * N
    numbers = round(p * 2**32), 1 / max(1 - p, 2**-32)
    words = (word & 0xFFFFFFFF for word in (seed, seed >> 32, key, step, first))
    each("dropout_mask", dtype, count, mask, count, features, N, *numbers, *words)
    return mask


def at_labels(rows, labels):
    """rows[labels[n], n] for each sample n: rows (classes, N), labels (N,) integers -> (N,); nan for a label that is no class."""
    picked = cp.empty(rows.shape[1], rows.dtype)
    each("at_labels", rows.dtype, picked.size, rows, labels.astype(np.int64), picked, picked.size, len(rows))
    return picked


def subtract_at_labels(rows, labels, value):
    """rows[labels[n], n] -= value, in place."""
    count = rows.shape[1]
    each("subtract_at_labels", rows.dtype, count, rows, labels.astype(np.int64), count, len(rows), value)


def sgd_update(weight, grad, velocity, lr, momentum, weight_decay, nesterov, loss=None):
    """One step of SGD on flat arrays, in place, see optim.SGD; none if `loss`, an array of one float64, is not finite."""
    coefficients = lr, momentum, weight_decay, nesterov
    each("sgd_update", weight.dtype, weight.size, weight, grad, velocity, weight.size, *coefficients, loss)


def adam_update(weight, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay, loss=None):
    """One step of Adam on flat arrays, in place, see optim.Adam; none if `loss`, an array of one float64, is not finite.

    step: how many there were, an array of one float64, which counts this one: on the GPU, as the loss is known there only.
    """
    correction = cp.empty(2, np.float64)
    each("adam_correction", weight.dtype, 1, step, correction, 1, *betas, loss)
    arrays = weight, grad, exp_avg, exp_avg_sq, correction
    each("adam_update", weight.dtype, weight.size, *arrays, weight.size, lr, *betas, eps, weight_decay, loss)
