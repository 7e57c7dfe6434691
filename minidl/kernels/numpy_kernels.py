"""NumPy kernels. Arrays lie batch-last and C-contiguous: (C, H, W, N). Every kernel takes N = 0.

Large intermediate results are made block by block, small enough to stay in the processor's cache, in scratch memory.
"""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .. import random
from . import winograd
from .scratch import scratch
from .winograd import tile_size as tile_size

COLUMN_BYTES = 16 << 20  # of im2col's columns at a time
BLOCK_BYTES = 2 << 20  # of an elementwise kernel's block at a time


# --- convolution: im2col, one matrix product, col2im ---------------------------------------------------------------


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


def output_blocks(OH: int, OW: int, position_bytes: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut the OH x OW output positions into blocks (top, bottom, left, right) of about COLUMN_BYTES of columns.

    A block is some whole rows, or a piece of one row, so that its positions are neighbours in memory.
    """
    positions = max(1, COLUMN_BYTES // max(1, position_bytes))
    rows = max(1, positions // OW)
    width = min(positions, OW)
    for top in range(0, OH, rows):
        for left in range(0, OW, width):
            yield top, min(top + rows, OH), left, min(left + width, OW)


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


def _convolution_blocks(y, weight, groups):
    """For each group: (its inputs, its outputs, its weight as a matrix, its part of y as a matrix)."""
    O, CG, KH, KW = weight.shape
    OG = O // groups
    for g in range(groups):
        outputs = slice(g * OG, (g + 1) * OG)
        yield slice(g * CG, (g + 1) * CG), outputs, weight[outputs].reshape(OG, CG * KH * KW), y[outputs].reshape(OG, -1)


def conv2d(x, weight, bias, stride, padding, groups, tile=0):
    """x (C, H, W, N), weight (O, C / groups, KH, KW), bias (O,) or None -> (O, OH, OW, N). tile: see tile_size."""
    if tile:
        return winograd.conv2d(x, weight, bias, padding, groups, tile)
    _, H, W, N = x.shape
    O, CG, KH, KW = weight.shape
    (SH, SW), (PH, PW) = stride, padding
    OH, OW = (H + 2 * PH - KH) // SH + 1, (W + 2 * PW - KW) // SW + 1
    y = np.empty((O, OH, OW, N), x.dtype)
    padded = pad(x, ((PH, PH), (PW, PW)))
    for inputs, outputs, matrix, y_matrix in _convolution_blocks(y, weight, groups):
        for block in output_blocks(OH, OW, CG * KH * KW * N * x.itemsize):
            columns = im2col(padded[inputs], (KH, KW), stride, block)
            product = y_matrix[:, positions(block, OW, N)]
            np.matmul(matrix, columns, out=product)
            if bias is not None:
                product += bias[outputs, None]
    return y


def positions(block, OW: int, N: int) -> slice:
    """A block's place in the flattened (OH * OW * N) output."""
    top, bottom, left, right = block
    return slice((top * OW + left) * N, ((bottom - 1) * OW + right) * N)


def conv2d_gradients(grad, x, weight, stride, padding, groups, tile, needs):
    """(dx or None, dweight or None) from grad (O, OH, OW, N); needs: which of the two are wanted."""
    if tile:
        return winograd.conv2d_gradients(grad, x, weight, padding, groups, tile, needs)
    return (
        conv2d_input_gradient(grad, x.shape, weight, stride, padding, groups) if needs[0] else None,
        conv2d_weight_gradient(grad, x, weight, stride, padding, groups) if needs[1] else None,
    )


def conv2d_weight_gradient(grad, x, weight, stride, padding, groups):
    """dweight, like weight, from grad (O, OH, OW, N). The columns are made again, which is cheaper than keeping them."""
    _, OH, OW, N = grad.shape
    _, CG, KH, KW = weight.shape
    (PH, PW) = padding
    dweight = np.zeros_like(weight)
    padded = pad(x, ((PH, PH), (PW, PW)))
    for inputs, _, dmatrix, grad_matrix in _convolution_blocks(grad, dweight, groups):
        part = scratch("weight gradient", dmatrix.shape, x.dtype)
        for block in output_blocks(OH, OW, CG * KH * KW * N * x.itemsize):
            columns = im2col(padded[inputs], (KH, KW), stride, block)
            np.matmul(grad_matrix[:, positions(block, OW, N)], columns.T, out=part)
            dmatrix += part
    return dweight


def conv2d_input_gradient(grad, x_shape, weight, stride, padding, groups):
    """dx (C, H, W, N) from grad (O, OH, OW, N)."""
    C, H, W, N = x_shape
    _, OH, OW, _ = grad.shape
    _, CG, KH, KW = weight.shape
    (PH, PW) = padding
    padded = scratch("padded", (C, H + 2 * PH, W + 2 * PW, N), grad.dtype)
    padded.fill(0)
    for inputs, _, matrix, grad_matrix in _convolution_blocks(grad, weight, groups):
        for block in output_blocks(OH, OW, CG * KH * KW * N * grad.itemsize):
            part = grad_matrix[:, positions(block, OW, N)]
            columns = scratch("columns", (CG * KH * KW, part.shape[1]), grad.dtype)
            np.matmul(matrix.T, part, out=columns)
            col2im(columns, padded[inputs], (KH, KW), stride, block)
    return padded[:, PH : PH + H, PW : PW + W].copy()


# --- pooling -------------------------------------------------------------------------------------------------------


def _windows(x, kernel_size, stride, OH, OW):
    """For each place k in the window, the (C, OH, OW, N) view of x at that place of every window."""
    (KH, KW), (SH, SW) = kernel_size, stride
    for k in range(KH * KW):
        i, j = divmod(k, KW)
        yield k, x[:, i : i + (OH - 1) * SH + 1 : SH, j : j + (OW - 1) * SW + 1 : SW]


def _channel_blocks(C: int, channel_bytes: int) -> Iterator[slice]:
    step = max(1, BLOCK_BYTES // max(1, channel_bytes))
    for start in range(0, C, step):
        yield slice(start, min(start + step, C))


def max_pool2d(x, kernel_size, stride, padding, output_size, with_argmax):
    """x (C, H, W, N) -> y (C, OH, OW, N) and argmax, the first place of the maximum in its window (or None).

    padding is ((top, bottom), (left, right)).
    """
    C, _, _, N = x.shape
    OH, OW = output_size
    y = np.empty((C, OH, OW, N), x.dtype)
    argmax = np.zeros(y.shape, np.min_scalar_type(kernel_size[0] * kernel_size[1])) if with_argmax else None
    for channels in _channel_blocks(C, x[:1].nbytes):
        best = y[channels]
        larger = scratch("larger", best.shape, bool)
        for k, candidate in _windows(pad(x[channels], padding, -np.inf), kernel_size, stride, OH, OW):
            if k == 0:
                np.copyto(best, candidate)
                continue
            if argmax is not None:
                np.greater(candidate, best, out=larger)
                place = np.multiply(larger, argmax.dtype.type(k), out=scratch("place", best.shape, argmax.dtype))
                np.maximum(argmax[channels], place, out=argmax[channels])
            np.maximum(best, candidate, out=best)
    return y, argmax


def max_pool2d_gradient(grad, argmax, x_shape, kernel_size, stride, padding):
    """dx (C, H, W, N): each element of grad (C, OH, OW, N) goes to the maximum it came from, and adds up there."""
    C, H, W, N = x_shape
    _, OH, OW, _ = grad.shape
    (top, bottom), (left, right) = padding
    dx = np.empty(x_shape, grad.dtype)
    for channels in _channel_blocks(C, dx[:1].nbytes):
        block = dx[channels]
        if top or bottom or left or right:
            padded_shape = (len(block), top + H + bottom, left + W + right, N)
            block = scratch("padded", padded_shape, grad.dtype)
        block.fill(0)
        chosen = scratch("larger", grad[channels].shape, bool)
        part = scratch("part", grad[channels].shape, grad.dtype)
        for k, target in _windows(block, kernel_size, stride, OH, OW):
            np.equal(argmax[channels], k, out=chosen)
            np.multiply(grad[channels], chosen, out=part)
            target += part
        if block.base is not dx:
            dx[channels] = block[:, top : top + H, left : left + W]
    return dx


def window_sums(x, rows, columns):
    """x (C, H, W, N) -> (C, OH, OW, N), the sum of x over rows[oh] and columns[ow], two lists of ranges."""
    C, _, W, N = x.shape
    by_row, y = np.empty((C, len(rows), W, N), x.dtype), np.empty((C, len(rows), len(columns), N), x.dtype)
    for oh, r in enumerate(rows):
        x[:, r.start : r.stop].sum(axis=1, out=by_row[:, oh])
    for ow, c in enumerate(columns):
        by_row[:, :, c.start : c.stop].sum(axis=2, out=y[:, :, ow])
    return y


def window_sums_gradient(grad, rows, columns, x_shape):
    """dx of shape (C, H, W, N): each element of grad (C, OH, OW, N) is added to all that its window saw."""
    C, _, W, N = x_shape
    by_row, dx = np.zeros((C, len(rows), W, N), grad.dtype), np.zeros(x_shape, grad.dtype)
    for ow, c in enumerate(columns):
        by_row[:, :, c.start : c.stop] += grad[:, :, ow, None]
    for oh, r in enumerate(rows):
        dx[:, r.start : r.stop] += by_row[:, oh, None]
    return dx


# --- batch normalisation -------------------------------------------------------------------------------------------


def channel_statistics(x):
    """Of x (C, ..., N), for each channel: the mean, and the sum of squared distances from it (M2). Two float64 (C,)."""
    rows = x.reshape(len(x), -1)
    mean, M2 = np.zeros(len(x)), np.zeros(len(x))
    if rows.shape[1]:
        for channels in _channel_blocks(len(rows), rows[:1].nbytes):
            block = rows[channels]
            centre = block.mean(axis=1, keepdims=True)
            distance = np.subtract(block, centre, out=scratch("part", block.shape, x.dtype))
            rest = distance.mean(axis=1, dtype=x.dtype)
            mean[channels] = centre[:, 0].astype(np.float64) + rest
            M2[channels] = np.einsum("cl,cl->c", distance, distance)
    return mean, M2


def scale_and_shift(x, scale, shift):
    """x * scale + shift, with scale and shift (C,) for x (C, ..., N)."""
    rows = x.reshape(len(x), -1)
    y = np.empty_like(rows)
    for channels in _channel_blocks(len(rows), rows[:1].nbytes):
        np.multiply(rows[channels], scale[channels, None], out=y[channels])
        y[channels] += shift[channels, None]
    return y.reshape(x.shape)


def batch_norm_sums(grad, x, mean, inverse_std):
    """For each channel: the sum of grad, and of grad * (x - mean) * inverse_std. Two (C,)."""
    g, rows = grad.reshape(len(x), -1), x.reshape(len(x), -1)
    plain, weighted = np.empty(len(x), x.dtype), np.empty(len(x), x.dtype)
    for channels in _channel_blocks(len(rows), rows[:1].nbytes):
        part = scratch("part", rows[channels].shape, x.dtype)
        np.subtract(rows[channels], mean[channels, None], out=part)
        plain[channels] = g[channels].sum(axis=1)
        weighted[channels] = np.einsum("cl,cl->c", g[channels], part)
    return plain, weighted * inverse_std


def batch_norm_gradient(grad, x, mean, inverse_std, scale, mean_grad, mean_weighted):
    """dx = scale * (grad - mean_grad - xhat * mean_weighted), xhat = (x - mean) * inverse_std; the last six are (C,)."""
    g, rows = grad.reshape(len(x), -1), x.reshape(len(x), -1)
    dx = np.empty_like(rows)
    slope = -inverse_std * mean_weighted
    constant = -mean_grad - mean * slope
    for channels in _channel_blocks(len(rows), rows[:1].nbytes):
        out = dx[channels]
        np.multiply(rows[channels], slope[channels, None], out=out)
        out += constant[channels, None]
        out += g[channels]
        out *= scale[channels, None]
    return dx.reshape(x.shape)


# --- local response normalisation ----------------------------------------------------------------------------------


def _window_sum(a, before: int, after: int, out):
    """out[c] = a[c - before] + ... + a[c + after], nothing beyond the ends."""
    np.copyto(out, a)
    for d in range(1, min(before, len(a) - 1) + 1):
        out[d:] += a[:-d]
    for d in range(1, min(after, len(a) - 1) + 1):
        out[:-d] += a[d:]
    return out


def _inverse_power(s, beta: float, out):
    """s ** -beta. The paper's beta of 3/4 needs two square roots; a general power is ten times slower."""
    if beta == 0.75:
        np.sqrt(s, out=out)
        out *= np.sqrt(out, out=scratch("root", s.shape, s.dtype))
        return np.divide(1, out, out=out)
    return np.power(s, -beta, out=out)


def _position_blocks(x) -> Iterator[slice]:
    """Blocks of the flattened positions of x (C, L): all channels, some positions."""
    step = max(1, BLOCK_BYTES // max(1, x[:, :1].nbytes))
    for start in range(0, x.shape[1], step):
        yield slice(start, min(start + step, x.shape[1]))


def local_response_norm(x, before, after, alpha, beta, k):
    """y = x / s ** beta and s = k + alpha * (sum of x ** 2 from `before` channels before to `after` behind); (C, ..., N)."""
    rows = x.reshape(len(x), -1)
    y, s = np.empty_like(rows), np.empty_like(rows)
    for at in _position_blocks(rows):
        block = rows[:, at]
        square = np.multiply(block, block, out=scratch("part", block.shape, x.dtype))
        total = _window_sum(square, before, after, out=scratch("total", block.shape, x.dtype))
        total *= alpha
        total += k
        s[:, at] = total
        np.multiply(block, _inverse_power(total, beta, out=square), out=y[:, at])
    return y.reshape(x.shape), s.reshape(x.shape)


def local_response_norm_gradient(grad, x, s, before, after, alpha, beta):
    """dx = grad / s ** beta - 2 alpha beta x * (sum of grad x / s ** (beta + 1) over the channels whose window has x)."""
    g, rows, sums = (a.reshape(len(x), -1) for a in (grad, x, s))
    dx = np.empty_like(rows)
    for at in _position_blocks(rows):
        shape = rows[:, at].shape
        direct = _inverse_power(sums[:, at], beta, out=scratch("part", shape, x.dtype))
        direct *= g[:, at]
        ratio = np.multiply(direct, rows[:, at], out=scratch("ratio", shape, x.dtype))
        ratio /= sums[:, at]
        through = _window_sum(ratio, after, before, out=scratch("total", shape, x.dtype))
        through *= rows[:, at]
        through *= -2 * alpha * beta
        np.add(direct, through, out=dx[:, at])
    return dx.reshape(x.shape)


# --- the rest ------------------------------------------------------------------------------------------------------


def relu_gradient(grad, y):
    """grad where y > 0, else 0."""
    return np.multiply(grad, y > 0)


def dropout_mask(shape, p, draw, dtype):
    """0 with probability p, else 1 / (1 - p), for shape (..., N). draw: (seed, step, key, first_sample)."""
    seed, step, key, first = draw
    features = int(np.prod(shape[:-1]))
    keep = np.empty((features, shape[-1]), bool)
    samples = np.arange(first, first + shape[-1])
    np.greater_equal(random.words(features, key, samples, step, seed), round(p * 2**32), out=keep)
    mask = keep.astype(dtype).reshape(shape)
    mask *= 1 / max(1 - p, 2**-32)
    return mask


def at_labels(rows, labels):
    """rows[labels[n], n] for each sample n: rows (classes, N), labels (N,) integers -> (N,)."""
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(rows):
        raise ValueError(f"labels must lie in 0..{len(rows) - 1}; found {labels.min()} to {labels.max()}")
    return rows[labels, np.arange(rows.shape[1])]


def subtract_at_labels(rows, labels, value):
    """rows[labels[n], n] -= value, in place."""
    rows[labels, np.arange(rows.shape[1])] -= value


def sgd_update(weight, grad, velocity, lr, momentum, weight_decay, nesterov):
    """One step of SGD on flat arrays, in place: PyTorch's rule (see optim.SGD)."""
    size = BLOCK_BYTES // 4 // weight.itemsize
    for start in range(0, len(weight), size):
        w, g, v = (a[start : start + size] for a in (weight, grad, velocity))
        step = np.multiply(w, weight_decay, out=scratch("step", w.shape, w.dtype))
        step += g
        v *= momentum
        v += step
        if nesterov:
            step += np.multiply(v, momentum, out=scratch("nesterov", w.shape, w.dtype))
        else:
            np.copyto(step, v)
        step *= lr
        w -= step
