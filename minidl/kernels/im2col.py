"""Convolution as a product of matrices: im2col, one product, col2im. NumPy, batch-last arrays, (C, H, W, N).

The columns are made a block of output positions at a time, in scratch memory, and made again for the backward pass.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..threads import get_num_threads, parallel, slices
from .scratch import scratch

COLUMN_BYTES = 1 << 20  # of im2col's columns at a time


def pad(x, padding, value=0.0):
    """(C, H, W, N) -> (C, H + top + bottom, W + left + right, N) in scratch; x itself where there is nothing to add."""
    (top, bottom), (left, right) = padding
    if not (top or bottom or left or right):
        return x
    C, H, W, N = x.shape
    padded = scratch("padded", (C, top + H + bottom, left + W + right, N), x.dtype)
    padded[:, :top] = padded[:, top + H :] = value
    padded[:, :, :left] = padded[:, :, left + W :] = value
    padded[:, top : top + H, left : left + W] = x
    return padded


def output_blocks(OH: int, OW: int, position_bytes: int) -> list[tuple[int, int, int, int]]:
    """Cut the OH x OW output positions into blocks (top, bottom, left, right) of about COLUMN_BYTES of columns.

    A block is some whole rows, or a piece of one row, so that its positions are neighbours in memory.
    """
    positions = max(1, COLUMN_BYTES // max(1, position_bytes))
    return [
        (rows.start, rows.stop, columns.start, columns.stop)
        for rows in slices(OH, max(1, positions // OW))
        for columns in slices(OW, positions)
    ]


def im2col(x, kernel_size, stride, block):
    """The patches that a block of outputs sees, side by side: (C, H, W, N) -> (C * KH * KW, positions * N), in scratch.

    Row (c, i, j) and column (oh, ow, n) hold x[c, oh * stride + i, ow * stride + j, n]; x is padded already.
    """
    C, _, _, N = x.shape
    (KH, KW), (SH, SW), (top, bottom, left, right) = kernel_size, stride, block
    c, h, w, n = x.strides
    columns = scratch("columns", (C, KH, KW, bottom - top, right - left, N), x.dtype)
    patches = as_strided(x[:, top * SH :, left * SW :], columns.shape, (c, h, w, h * SH, w * SW, n))
    np.copyto(columns, patches)
    return columns.reshape(C * KH * KW, -1)


def col2im(columns, x, kernel_size, stride, block):
    """im2col's adjoint: add every element of the columns to the place in x (C, H, W, N) that im2col took it from."""
    C, _, _, N = x.shape
    (KH, KW), (SH, SW), (top, bottom, left, right) = kernel_size, stride, block
    columns = columns.reshape(C, KH, KW, bottom - top, right - left, N)
    for i in range(KH):
        for j in range(KW):
            target = x[:, i + top * SH : i + bottom * SH : SH, j + left * SW : j + right * SW : SW]
            target = target[:, : bottom - top, : right - left]
            target += columns[:, i, j]


def conv2d(x, weight, bias, stride, padding, groups):
    """x (C, H, W, N), weight (O, C / groups, KH, KW), bias (O,) or None -> (O, OH, OW, N)."""
    _, H, W, N = x.shape
    O, _, KH, KW = weight.shape
    (SH, SW), (PH, PW) = stride, padding
    y = np.empty((O, (H + 2 * PH - KH) // SH + 1, (W + 2 * PW - KW) // SW + 1, N), x.dtype)
    padded = pad(x, ((PH, PH), (PW, PW)))
    parts = _parts(y, weight, groups)

    def work(part):
        inputs, outputs, block = part
        product = _as_matrix(y, outputs, block)
        np.matmul(_as_matrix(weight, outputs), im2col(padded[inputs], (KH, KW), stride, block), out=product)
        if bias is not None:
            product += bias[outputs, None]

    parallel(work, parts)
    return y


def conv2d_weight_gradient(grad, x, weight, stride, padding, groups, out=None):
    """dweight, like weight, from grad (O, OH, OW, N)."""
    KH, KW = weight.shape[2:]
    padded = pad(x, tuple((p, p) for p in padding))
    parts = _parts(grad, weight, groups)
    shares = slices(len(parts), -(-len(parts) // get_num_threads()) or 1)
    sums = np.zeros((len(shares), *weight.shape), x.dtype)

    def work(share):
        for inputs, outputs, block in parts[shares[share]]:
            columns = im2col(padded[inputs], (KH, KW), stride, block)
            total = _as_matrix(sums[share], outputs)
            total += np.matmul(_as_matrix(grad, outputs, block), columns.T, out=scratch("product", total.shape, x.dtype))

    parallel(work, range(len(shares)))
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
        matrix = weight[outputs, channels].reshape(outputs.stop - outputs.start, -1)
        for block in output_blocks(OH, OW, matrix.shape[1] * N * grad.itemsize):
            product = _as_matrix(grad, outputs, block)
            columns = scratch("columns", (matrix.shape[1], product.shape[1]), grad.dtype)
            col2im(np.matmul(matrix.T, product, out=columns), target, (KH, KW), stride, block)
        dx[inputs][channels] = target[:, PH : PH + H, PW : PW + W]

    few = slices(CG, -(-CG // get_num_threads()))
    parallel(work, [(inputs, outputs, channels) for inputs, outputs in channel_groups(weight, groups) for channels in few])
    return dx


def channel_groups(weight, groups) -> list[tuple[slice, slice]]:
    """For each group of a convolution: its input channels and its output channels."""
    O, CG = weight.shape[:2]
    return [(slice(g * CG, (g + 1) * CG), slice(g * O // groups, (g + 1) * O // groups)) for g in range(groups)]


def _parts(y, weight, groups):
    """The parts of outputs y (O, OH, OW, N) that are one product each: (input channels, output channels, block)."""
    _, OH, OW, N = y.shape
    positions = output_blocks(OH, OW, weight[0].size * N * y.itemsize)
    return [(*channels, block) for channels in channel_groups(weight, groups) for block in positions]


def _as_matrix(a, channels, block=None):
    """Some channels of a (channels, ...) as a matrix, a channel a row: all of it, or a block of positions of (O, OH, OW, N)."""
    if block is None:
        return a[channels].reshape(channels.stop - channels.start, -1)
    top, bottom, left, right = block
    _, _, OW, N = a.shape
    return a[channels].reshape(channels.stop - channels.start, -1)[:, (top * OW + left) * N : ((bottom - 1) * OW + right) * N]
