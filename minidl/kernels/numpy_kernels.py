"""NumPy kernels. Arrays lie batch-last and C-contiguous: (C, H, W, N). Every kernel takes N = 0.

Work is cut into parts for `parallel`: blocks of channels or positions, whose intermediate results lie in scratch memory and, but
for the largest products, fit the processor's cache.
"""

import math
import sys

import numpy as np

from .. import random
from ..threads import get_num_threads, parallel, slices
from . import im2col, winograd
from .im2col import pad
from .scratch import scratch
from .windows import window_sums as window_sums
from .windows import window_sums_gradient as window_sums_gradient
from .winograd import tile_size as tile_size

DRAWN = 256 << 10  # random words at a time
BLOCK_BYTES = 2 << 20  # of an elementwise kernel's block at a time
SMALL_BYTES = 256 << 10  # too little to be worth dividing between threads
ANY = sys.maxsize  # `most` for blocks that are only divided between threads


def blocks(a, axis=0, most=None) -> list[slice]:
    """a's axis in slices of about `most` bytes (BLOCK_BYTES) or less, enough for all threads: parts to work on in parallel."""
    length, size = a.shape[axis], min(most or BLOCK_BYTES, max(SMALL_BYTES, a.nbytes // get_num_threads()))
    return slices(length, max(1, -(-size * length // max(1, a.nbytes))))


# --- the fully connected layer: products of matrices ---------------------------------------------------------------


def linear(x, weight, bias):
    """weight (O, F) @ x (F, N) + bias (O,), if there is one -> (O, N)."""
    y = np.empty((len(weight), x.shape[1]), np.result_type(weight, x))

    def work(outputs):
        np.matmul(weight[outputs], x, out=y[outputs])
        if bias is not None:
            y[outputs] += bias[outputs, None]

    parallel(work, blocks(weight, most=ANY))
    return y


def linear_input_gradient(grad, weight):
    """dx = weight.T (F, O) @ grad (O, N) -> (F, N)."""
    dx = np.empty((weight.shape[1], grad.shape[1]), np.result_type(weight, grad))
    parallel(lambda at: np.matmul(weight[:, at].T, grad, out=dx[at]), blocks(weight, axis=1, most=ANY))
    return dx


def linear_weight_gradient(grad, x, out=None):
    """dweight = grad (O, N) @ x.T (N, F) -> (O, F), written into `out` if given."""
    dweight = np.empty((len(grad), len(x)), np.result_type(grad, x)) if out is None else out
    parallel(lambda outputs: np.matmul(grad[outputs], x.T, out=dweight[outputs]), blocks(dweight, most=ANY))
    return dweight


# --- convolution ---------------------------------------------------------------------------------------------------


def conv2d(x, weight, bias, stride, padding, groups, tile=0):
    """x (C, H, W, N), weight (O, C / groups, KH, KW), bias (O,) or None -> (O, OH, OW, N). tile: see tile_size."""
    if tile:
        return winograd.conv2d(x, weight, bias, padding, groups, tile)
    return im2col.conv2d(x, weight, bias, stride, padding, groups)


def conv2d_gradients(grad, x, weight, stride, padding, groups, tile, needs, out=None):
    """(dx or None, dweight or None) from grad (O, OH, OW, N); needs: which of the two are wanted. out: where to write dweight."""
    if tile:
        return winograd.conv2d_gradients(grad, x, weight, padding, groups, tile, needs, out)
    return (
        im2col.conv2d_input_gradient(grad, x.shape, weight, stride, padding, groups) if needs[0] else None,
        im2col.conv2d_weight_gradient(grad, x, weight, stride, padding, groups, out) if needs[1] else None,
    )


# --- pooling -------------------------------------------------------------------------------------------------------


def _windows(x, kernel_size, stride, OH, OW):
    """For each place k in the window, the (C, OH, OW, N) view of x at that place of every window."""
    (KH, KW), (SH, SW) = kernel_size, stride
    for k in range(KH * KW):
        i, j = divmod(k, KW)
        yield k, x[:, i : i + (OH - 1) * SH + 1 : SH, j : j + (OW - 1) * SW + 1 : SW]


def max_pool2d(x, kernel_size, stride, padding, output_size, with_argmax):
    """x (C, H, W, N) -> y (C, OH, OW, N) and argmax, the first place of the maximum in its window (or None).

    padding is ((top, bottom), (left, right)).
    """
    C, _, _, N = x.shape
    OH, OW = output_size
    y = np.empty((C, OH, OW, N), x.dtype)
    argmax = np.zeros(y.shape, np.min_scalar_type(kernel_size[0] * kernel_size[1])) if with_argmax else None

    def work(channels):
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

    parallel(work, blocks(x))
    return y, argmax


def max_pool2d_gradient(grad, argmax, x_shape, kernel_size, stride, padding):
    """dx (C, H, W, N): each element of grad (C, OH, OW, N) goes to the maximum it came from, and adds up there."""
    _, H, W, N = x_shape
    _, OH, OW, _ = grad.shape
    (top, bottom), (left, right) = padding
    dx = np.empty(x_shape, grad.dtype)

    def work(channels):
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

    parallel(work, blocks(dx))
    return dx


# --- batch normalisation -------------------------------------------------------------------------------------------


def channel_statistics(x):
    """Of x (C, ..., N), for each channel: the mean, and the sum of squared distances from it (M2). Two float64 (C,)."""
    rows = x.reshape(len(x), -1)
    mean, M2 = np.zeros(len(x)), np.zeros(len(x))

    def work(channels):
        block = rows[channels]
        centre = block.mean(axis=1, keepdims=True)
        distance = np.subtract(block, centre, out=scratch("part", block.shape, x.dtype))
        rest = distance.mean(axis=1, dtype=x.dtype)
        mean[channels] = centre[:, 0].astype(np.float64) + rest
        M2[channels] = np.einsum("cl,cl->c", distance, distance)

    parallel(work, blocks(rows) if rows.size else [])
    return mean, M2


def scale_and_shift(x, scale, shift):
    """x * scale + shift, with scale and shift (C,) for x (C, ..., N)."""
    rows = x.reshape(len(x), -1)
    y = np.empty_like(rows)

    def work(channels):
        np.multiply(rows[channels], scale[channels, None], out=y[channels])
        y[channels] += shift[channels, None]

    parallel(work, blocks(rows))
    return y.reshape(x.shape)


def batch_norm_sums(grad, x, mean, inverse_std):
    """For each channel: the sum of grad, and of grad * (x - mean) * inverse_std. Two (C,)."""
    g, rows = grad.reshape(len(x), -1), x.reshape(len(x), -1)
    plain, weighted = np.empty(len(x), x.dtype), np.empty(len(x), x.dtype)

    def work(channels):
        part = scratch("part", rows[channels].shape, x.dtype)
        np.subtract(rows[channels], mean[channels, None], out=part)
        plain[channels] = g[channels].sum(axis=1)
        weighted[channels] = np.einsum("cl,cl->c", g[channels], part)

    parallel(work, blocks(rows))
    return plain, weighted * inverse_std


def batch_norm_gradient(grad, x, mean, inverse_std, scale, mean_grad, mean_weighted):
    """dx = scale * (grad - mean_grad - xhat * mean_weighted), xhat = (x - mean) * inverse_std; the last six are (C,)."""
    g, rows = grad.reshape(len(x), -1), x.reshape(len(x), -1)
    dx = np.empty_like(rows)
    slope = -inverse_std * mean_weighted
    constant = -mean_grad - mean * slope

    def work(channels):
        out = dx[channels]
        np.multiply(rows[channels], slope[channels, None], out=out)
        out += constant[channels, None]
        out += g[channels]
        out *= scale[channels, None]

    parallel(work, blocks(rows))
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


def local_response_norm(x, before, after, alpha, beta, k):
    """y = x / s ** beta and s = k + alpha * (sum of x ** 2 from `before` channels before to `after` behind); (C, ..., N)."""
    rows = x.reshape(len(x), -1)
    y, s = np.empty_like(rows), np.empty_like(rows)

    def work(at):
        block = rows[:, at]
        square = np.multiply(block, block, out=scratch("part", block.shape, x.dtype))
        total = _window_sum(square, before, after, out=scratch("total", block.shape, x.dtype))
        total *= alpha
        total += k
        s[:, at] = total
        np.multiply(block, _inverse_power(total, beta, out=square), out=y[:, at])

    parallel(work, blocks(rows, axis=1))
    return y.reshape(x.shape), s.reshape(x.shape)


def local_response_norm_gradient(grad, x, s, before, after, alpha, beta):
    """dx = grad / s ** beta - 2 alpha beta x * (sum of grad x / s ** (beta + 1) over the channels whose window has x)."""
    g, rows, sums = (a.reshape(len(x), -1) for a in (grad, x, s))
    dx = np.empty_like(rows)

    def work(at):
        shape = rows[:, at].shape
        direct = _inverse_power(sums[:, at], beta, out=scratch("part", shape, x.dtype))
        direct *= g[:, at]
        ratio = np.multiply(direct, rows[:, at], out=scratch("ratio", shape, x.dtype))
        ratio /= sums[:, at]
        through = _window_sum(ratio, after, before, out=scratch("total", shape, x.dtype))
        through *= rows[:, at]
        through *= -2 * alpha * beta
        np.add(direct, through, out=dx[:, at])

    parallel(work, blocks(rows, axis=1))
    return dx.reshape(x.shape)


# --- the rest ------------------------------------------------------------------------------------------------------


def channel_sums(x):
    """x (C, ..., N) -> (C,), the sum of each channel: the gradient of what was added to it."""
    rows, sums = x.reshape(len(x), -1), np.empty(len(x), x.dtype)
    parallel(lambda at: rows[at].sum(axis=1, out=sums[at]), blocks(rows))
    return sums


def relu(x):
    """max(x, 0)."""
    y = np.empty_like(x)
    parallel(lambda at: np.maximum(x[at], 0, out=y[at]), blocks(x))
    return y


def relu_gradient(grad, y):
    """grad where y > 0, else 0."""
    dx = np.empty_like(grad)

    def work(at):
        positive = np.greater(y[at], 0, out=scratch("larger", y[at].shape, bool))
        np.multiply(grad[at], positive, out=dx[at])

    parallel(work, blocks(grad))
    return dx


def dropout_mask(shape, p, draw, dtype):
    """0 with probability p, else 1 / (1 - p), for shape (..., N). draw: (seed, step, key, first_sample)."""
    seed, step, key, first = draw
    mask = np.empty(shape, dtype)
    by_sample = mask.reshape(math.prod(shape[:-1]), shape[-1])
    samples = np.arange(first, first + shape[-1])
    scale = np.dtype(dtype).type(1 / max(1 - p, 2**-32))

    def work(features):
        words = random.words(features.stop - features.start, key, samples, step, seed, features.start)
        np.multiply(words >= round(p * 2**32), scale, out=by_sample[features])

    parallel(work, slices(len(by_sample), 4 * max(1, DRAWN // (4 * max(1, shape[-1])))))
    return mask


def at_labels(rows, labels):
    """rows[labels[n], n] for each sample n: rows (classes, N), labels (N,) integers -> (N,)."""
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(rows):
        raise ValueError(f"labels must lie in 0..{len(rows) - 1}; found {labels.min()} to {labels.max()}")
    return rows[labels, np.arange(rows.shape[1])]


def subtract_at_labels(rows, labels, value):
    """rows[labels[n], n] -= value, in place."""
    rows[labels, np.arange(rows.shape[1])] -= value


def sgd_update(weight, grad, velocity, lr, momentum, weight_decay, nesterov, loss=None):
    """One step of SGD on flat arrays, in place, see optim.SGD; none if `loss`, an array of one float64, is not finite."""
    if loss is not None and not np.isfinite(loss).all():
        return

    def work(at):
        w, g, v = (a[at] for a in (weight, grad, velocity))
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

    parallel(work, blocks(weight, most=BLOCK_BYTES // 2))


def adam_update(weight, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay, loss=None):
    """One step of Adam on flat arrays, in place, see optim.Adam; none if `loss`, an array of one float64, is not finite.

    step: how many there were, an array of one float64, which counts this one.
    """
    if loss is not None and not np.isfinite(loss).all():
        return
    beta1, beta2 = betas
    step += 1
    t = step.item()
    rate, root = lr / (1 - beta1**t), math.sqrt(1 - beta2**t)

    def work(at):
        w, g, m, v = (a[at] for a in (weight, grad, exp_avg, exp_avg_sq))
        d = np.multiply(w, weight_decay, out=scratch("step", w.shape, w.dtype))
        d += g
        m *= beta1
        m += np.multiply(d, 1 - beta1, out=scratch("part", w.shape, w.dtype))
        d *= d
        d *= 1 - beta2
        v *= beta2
        v += d
        np.sqrt(v, out=d)
        d /= root
        d += eps
        np.divide(m, d, out=d)
        d *= rate
        w -= d

    parallel(work, blocks(weight, most=BLOCK_BYTES // 4))
