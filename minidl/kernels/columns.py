"""Convolution as a matrix product: im2col, one product, col2im. NumPy, batch-last arrays, (C, H, W, N).

The columns are made for one chunk of output positions at a time, in scratch memory, and made again for the backward pass.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..partition import ceil_div, chunks, length
from ..threads import get_num_threads, parallel
from .memory import scratch
from .windows import output_size

COLUMN_BYTES = 1 << 20  # the size of one chunk of im2col's columns


def pad(x, padding, value=0.0):
    """(C, H, W, N) -> (C, H + top + bottom, W + left + right, N) in scratch; x itself if there is no padding."""
    (top, bottom), (left, right) = padding
    if not (top or bottom or left or right):
        return x
    C, H, W, N = x.shape
    padded = scratch("padded", (C, top + H + bottom, left + W + right, N), x.dtype)
    padded[:, :top] = padded[:, top + H :] = value
    padded[:, :, :left] = padded[:, :, left + W :] = value
    padded[:, top : top + H, left : left + W] = x
    return padded


def position_chunks(OH: int, OW: int, position_bytes: int) -> list[tuple[int, int, int, int]]:
    """Cut the OH x OW output positions into chunks (top, bottom, left, right) of about COLUMN_BYTES of columns.

    A chunk is several whole rows or a part of one row, so its positions are contiguous in memory.
    """
    positions = max(1, COLUMN_BYTES // max(1, position_bytes))
    return [
        (rows.start, rows.stop, columns.start, columns.stop)
        for rows in chunks(OH, max(1, positions // OW))
        for columns in chunks(OW, positions)
    ]


def im2col(x, kernel_size, stride, chunk):
    """The patches of a chunk of outputs as columns: (C, H, W, N) -> (C * KH * KW, positions * N), in scratch.

    Row (c, i, j) and column (oh, ow, n) hold x[c, oh * stride + i, ow * stride + j, n]. x is padded already.
    """
    C, _, _, N = x.shape
    (KH, KW), (SH, SW), (top, bottom, left, right) = kernel_size, stride, chunk
    c, h, w, n = x.strides
    columns = scratch("columns", (C, KH, KW, bottom - top, right - left, N), x.dtype)
    patches = as_strided(x[:, top * SH :, left * SW :], columns.shape, (c, h, w, h * SH, w * SW, n))
    np.copyto(columns, patches)
    return columns.reshape(C * KH * KW, -1)


def col2im(columns, x, kernel_size, stride, chunk):
    """The adjoint of im2col: add every element of the columns to the element of x (C, H, W, N) that im2col copied it from."""
    C, _, _, N = x.shape
    (KH, KW), (SH, SW), (top, bottom, left, right) = kernel_size, stride, chunk
    columns = columns.reshape(C, KH, KW, bottom - top, right - left, N)
    for i in range(KH):
        for j in range(KW):
            target = x[:, i + top * SH : i + bottom * SH : SH, j + left * SW : j + right * SW : SW]
            target = target[:, : bottom - top, : right - left]
            target += columns[:, i, j]


def conv2d(x, weight, bias, stride, padding, groups):
    """x (C, H, W, N), weight (O, C / groups, KH, KW), bias (O,) or None -> (O, OH, OW, N)."""
    O, _, *kernel_size = weight.shape
    size = (output_size(*axis) for axis in zip(x.shape[1:3], kernel_size, stride, padding, strict=True))
    y = np.empty((O, *size, x.shape[-1]), x.dtype)
    padded = pad(x, tuple((p, p) for p in padding))

    def work(part):
        inputs, outputs, chunk = part
        product = _as_matrix(y, outputs, chunk)
        np.matmul(_as_matrix(weight, outputs), im2col(padded[inputs], kernel_size, stride, chunk), out=product)
        if bias is not None:
            product += bias[outputs, None]

    parallel(work, _products(y, weight, groups))
    return y


def conv2d_weight_gradient(grad, x, weight, stride, padding, groups, out=None):
    """dweight, like weight, from grad (O, OH, OW, N)."""
    KH, KW = weight.shape[2:]
    padded = pad(x, tuple((p, p) for p in padding))
    products = _products(grad, weight, groups)
    of_threads = chunks(len(products), ceil_div(len(products), get_num_threads()) or 1)
    sums = np.zeros((len(of_threads), *weight.shape), x.dtype)

    def work(thread):
        for inputs, outputs, chunk in products[of_threads[thread]]:
            columns = im2col(padded[inputs], (KH, KW), stride, chunk)
            total = _as_matrix(sums[thread], outputs)
            total += np.matmul(_as_matrix(grad, outputs, chunk), columns.T, out=scratch("product", total.shape, x.dtype))

    parallel(work, range(len(of_threads)))
    return sums.sum(axis=0, out=out)


def conv2d_input_gradient(grad, x_shape, weight, stride, padding, groups):
    """dx (C, H, W, N) from grad (O, OH, OW, N)."""
    C, H, W, N = x_shape
    _, OH, OW, _ = grad.shape
    _, CG, KH, KW = weight.shape
    (PH, PW) = padding
    padded = scratch("padded", (C, H + 2 * PH, W + 2 * PW, N), grad.dtype)
    dx = np.empty(x_shape, grad.dtype)

    def work(part):
        inputs, outputs, channels = part
        target = padded[inputs][channels]
        target.fill(0)
        matrix = weight[outputs, channels].reshape(length(outputs), -1)
        for chunk in position_chunks(OH, OW, matrix.shape[1] * N * grad.itemsize):
            product = _as_matrix(grad, outputs, chunk)
            columns = scratch("columns", (matrix.shape[1], product.shape[1]), grad.dtype)
            col2im(np.matmul(matrix.T, product, out=columns), target, (KH, KW), stride, chunk)
        dx[inputs][channels] = target[:, PH : PH + H, PW : PW + W]

    of_threads = chunks(CG, ceil_div(CG, get_num_threads()))
    pairs = channel_groups(weight, groups)
    parallel(work, [(inputs, outputs, channels) for inputs, outputs in pairs for channels in of_threads])
    return dx


def channel_groups(weight, groups) -> list[tuple[slice, slice]]:
    """For each group of a convolution: its input channels and its output channels."""
    O, CG = weight.shape[:2]
    return [(slice(g * CG, (g + 1) * CG), slice(g * O // groups, (g + 1) * O // groups)) for g in range(groups)]


def _products(y, weight, groups):
    """The products that make up outputs y (O, OH, OW, N), each as (input channels, output channels, chunk of positions)."""
    _, OH, OW, N = y.shape
    positions = position_chunks(OH, OW, weight[0].size * N * y.itemsize)
    return [(*channels, chunk) for channels in channel_groups(weight, groups) for chunk in positions]


def _as_matrix(a, channels, chunk=None):
    """Some channels of a (channels, ...) as the rows of a matrix: all positions, or a chunk of those of a (O, OH, OW, N)."""
    matrix = a[channels].reshape(length(channels), -1)
    if chunk is None:
        return matrix
    top, bottom, left, right = chunk
    _, _, OW, N = a.shape
    return matrix[:, (top * OW + left) * N : ((bottom - 1) * OW + right) * N]
