"""The fast NumPy kernels: the functions of reference.py, which says what each computes. All of them take an empty batch.

They compute on batch-last arrays, (C, H, W, N), see layout.py. Work is cut into chunks of channels or positions for
`parallel`. The intermediate results of a chunk are in scratch memory and fit the processor's cache, except for the largest
products.
"""

import math
import sys
from typing import Any

import numpy as np

from .. import random
from ..partition import ceil_div, chunks, length
from ..threads import CHUNK_BYTES, array_chunks, parallel
from . import columns, reference, winograd
from .columns import pad
from .layout import from_batch_last, to_batch_last
from .memory import scratch
from .shared import avg_pool2d as avg_pool2d
from .shared import avg_pool2d_backward as avg_pool2d_backward
from .shared import log_softmax as log_softmax
from .shared import multiply as multiply
from .shared import pad2d as pad2d
from .shared import sigmoid as sigmoid
from .shared import sigmoid_backward as sigmoid_backward
from .shared import tanh as tanh
from .shared import tanh_backward as tanh_backward
from .windows import views
from .winograd import winograd_tile as winograd_tile

RANDOM_WORDS = 256 << 10  # the random words drawn at a time
SHORT_RUN = 64  # bytes
ANY = sys.maxsize  # as most_bytes: chunks are only divided between threads, with no limit of their size


def _select(values, drop, out):
    """out = values, but 0 where `drop`. It masks the bits, because infinity times 0 would be NaN."""
    bits = np.dtype(f"i{values.itemsize}")
    np.subtract(drop.view(np.int8), 1, out=out.view(bits), dtype=bits)  # -1, all bits, to keep a value; 0 to drop it
    np.bitwise_and(values.view(bits), out.view(bits), out=out.view(bits))


# --- the fully connected layer: matrix products --------------------------------------------------------------------


def linear(x, weight, bias):
    """weight (O, F) @ x (F, N) + bias (O,), if there is one -> (O, N)."""
    x = to_batch_last(x)
    y = np.empty((len(weight), x.shape[1]), x.dtype)

    def work(outputs):
        np.matmul(weight[outputs], x, out=y[outputs])
        if bias is not None:
            y[outputs] += bias[outputs, None]

    parallel(work, array_chunks(weight, most_bytes=ANY))
    return from_batch_last(y)


def linear_backward(grad, x, weight, needs=(True, True, True), out=None):
    """(dx, dweight, dbias), None where it is not needed. dweight is written into `out` if given."""
    grad, x = to_batch_last(grad), to_batch_last(x)
    dx: Any = np.empty(x.shape, x.dtype) if needs[0] else None
    dweight: Any = (np.empty(weight.shape, x.dtype) if out is None else out) if needs[1] else None
    if needs[0]:
        parallel(lambda at: np.matmul(weight[:, at].T, grad, out=dx[at]), array_chunks(weight, axis=1, most_bytes=ANY))
    if needs[1]:
        parallel(lambda at: np.matmul(grad[at], x.T, out=dweight[at]), array_chunks(dweight, most_bytes=ANY))
    return from_batch_last(dx) if needs[0] else None, dweight, channel_sums(grad) if needs[2] else None


matmul = np.matmul


# --- convolution ---------------------------------------------------------------------------------------------------


def conv2d(x, weight, bias, stride, padding, groups, winograd_tile):
    """winograd_tile: see winograd.winograd_tile; None for im2col."""
    x = to_batch_last(x)
    if winograd_tile is None:
        return from_batch_last(columns.conv2d(x, weight, bias, stride, padding, groups))
    return from_batch_last(winograd.conv2d(x, weight, bias, padding, groups, winograd_tile))


def conv2d_backward(grad, x, weight, stride, padding, groups, winograd_tile, needs=(True, True, True), out=None):
    """(dx, dweight, dbias), None where it is not needed. dweight is written into `out` if given."""
    grad, x = to_batch_last(grad), to_batch_last(x)
    if winograd_tile is None:
        dx = columns.conv2d_input_gradient(grad, x.shape, weight, stride, padding, groups) if needs[0] else None
        dweight = columns.conv2d_weight_gradient(grad, x, weight, stride, padding, groups, out) if needs[1] else None
    else:
        dx, dweight = winograd.conv2d_backward(grad, x, weight, padding, groups, winograd_tile, needs, out)
    return from_batch_last(dx) if needs[0] else None, dweight, channel_sums(grad) if needs[2] else None


# --- pooling -------------------------------------------------------------------------------------------------------


def _phases(x, count):
    """(C, H, W, N) -> (count, C, H, W / count rounded up, N) in scratch: array i has the columns i, i + count, ...

    A view for a count of 1.
    """
    if count == 1:
        return x[None]
    C, H, W, N = x.shape
    dealt = scratch("phases", (count, C, H, ceil_div(W, count), N), x.dtype)
    for first, of_phase in enumerate(dealt):
        columns = x[:, :, first::count]
        of_phase[:, :, : columns.shape[2]] = columns
    return dealt


def _pooling_phases(x, stride) -> int:
    """The number of phases for pooling x (C, H, W, N): the stride if the batch is small, because copies of short runs are slow;
    else 1.
    """
    return stride[1] if x.shape[-1] * x.itemsize <= SHORT_RUN else 1


def max_pool2d(x, kernel_size, stride, padding, size, with_argmax=True):
    """y of shape (N, C, *size), and argmax, the position of the maximum in its window (None unless with_argmax).

    padding is ((top, bottom), (left, right)).
    """
    x = to_batch_last(x)
    y = np.empty((len(x), *size, x.shape[-1]), x.dtype)
    argmax = np.zeros(y.shape, np.min_scalar_type(kernel_size[0] * kernel_size[1])) if with_argmax else None
    is_padded = np.any(padding)

    def work(channels):
        best, padded = y[channels], pad(x[channels], padding, -np.inf)
        larger = scratch("mask", best.shape, bool)
        for i, j, value in views(_phases(padded, _pooling_phases(padded, stride)), kernel_size, stride, size):
            if i == j == 0:
                np.copyto(best, value)
                continue
            if argmax is not None:
                np.greater(value, best, out=larger)
                place = argmax.dtype.type(i * kernel_size[1] + j)
                place = np.multiply(larger, place, out=scratch("place", best.shape, argmax.dtype))
                np.maximum(argmax[channels], place, out=argmax[channels])
            np.maximum(best, value, out=best)
        if argmax is not None and (np.isnan(best.max(initial=0)) or (is_padded and best.min(initial=0) == -np.inf)):
            _, place = reference.max_pool2d(from_batch_last(x[channels]), kernel_size, stride, padding, size)
            argmax[channels] = to_batch_last(place)  # a window with a NaN, or with -inf only, which equals the padding

    parallel(work, array_chunks(x))
    return from_batch_last(y), from_batch_last(argmax) if with_argmax else None


def max_pool2d_backward(grad, argmax, x_shape, kernel_size, stride, padding):
    """dx of x_shape: each element of grad is added at the maximum of its window."""
    grad, argmax = to_batch_last(grad), to_batch_last(argmax)
    N, C, H, W = x_shape
    (top, bottom), (left, right) = padding
    is_padded = np.any(padding)
    dx = np.empty((C, H, W, N), grad.dtype)

    def work(channels):
        block = dx[channels]
        if is_padded:
            block = scratch("padded", (len(block), top + H + bottom, left + W + right, N), grad.dtype)
        count = _pooling_phases(block, stride)
        dealt = block[None]
        if count > 1:
            dealt = scratch("phases", (count, len(block), block.shape[1], ceil_div(block.shape[2], count), N), grad.dtype)
        dealt.fill(0)
        dy = grad[channels]
        mask, part = scratch("mask", dy.shape, bool), scratch("part", dy.shape, dy.dtype)
        finite = np.isfinite(dy.sum())  # then multiplication by 0 gives 0, and is faster than _select
        for i, j, target in views(dealt, kernel_size, stride, grad.shape[1:3]):
            place = i * kernel_size[1] + j
            if finite:
                np.multiply(dy, np.equal(argmax[channels], place, out=mask), out=part)
            else:
                _select(dy, np.not_equal(argmax[channels], place, out=mask), out=part)
            target += part
        for first in range(count if count > 1 else 0):
            columns = block[:, :, first::count]
            np.copyto(columns, dealt[first, :, :, : columns.shape[2]])
        if is_padded:
            dx[channels] = block[:, top : top + H, left : left + W]

    parallel(work, array_chunks(dx))
    return from_batch_last(dx)


# --- batch normalisation -------------------------------------------------------------------------------------------


def channel_statistics(x):
    """For each channel: the mean, and the sum of squared deviations from it (M2). Two float64 (C,)."""
    rows = _rows(x)
    mean, M2 = np.zeros(len(rows)), np.zeros(len(rows))

    def work(channels):
        block = rows[channels]
        centre = block.mean(axis=1, keepdims=True)
        # The mean of the deviations corrects the rounding of the first mean.
        distance = np.subtract(block, centre, out=scratch("part", block.shape, x.dtype))
        rest = distance.mean(axis=1, dtype=x.dtype)
        mean[channels] = centre[:, 0].astype(np.float64) + rest
        M2[channels] = np.einsum("cl,cl->c", distance, distance)

    parallel(work, array_chunks(rows) if rows.size else [])
    return mean, M2


def _rows(x):
    """(N, C, ...) -> (C, values): the values of each channel as a row."""
    x = to_batch_last(x)
    return x.reshape(len(x), math.prod(x.shape[1:]))


def _image(rows, shape):
    """The inverse of _rows, for x of this shape."""
    return from_batch_last(rows.reshape(*shape[1:], shape[0]))


def scale_and_shift(x, scale, shift):
    rows = _rows(x)
    y = np.empty_like(rows)

    def work(channels):
        np.multiply(rows[channels], scale[channels, None], out=y[channels])
        y[channels] += shift[channels, None]

    parallel(work, array_chunks(rows))
    return _image(y, x.shape)


def batch_norm_sums(grad, x, mean, inverse_std):
    """For each channel: the sum of grad, and of grad * (x - mean) * inverse_std. Two (C,)."""
    g, rows = _rows(grad), _rows(x)
    plain, weighted = np.empty(len(rows), x.dtype), np.empty(len(rows), x.dtype)

    def work(channels):
        part = scratch("part", rows[channels].shape, x.dtype)
        np.subtract(rows[channels], mean[channels, None], out=part)
        plain[channels] = g[channels].sum(axis=1)
        weighted[channels] = np.einsum("cl,cl->c", g[channels], part)

    parallel(work, array_chunks(rows))
    return plain, weighted * inverse_std


def batch_norm_backward(grad, x, mean, inverse_std, scale, mean_grad, mean_weighted):
    """dx = scale * (grad - mean_grad - xhat * mean_weighted), xhat = (x - mean) * inverse_std; the last five are (C,)."""
    g, rows = _rows(grad), _rows(x)
    dx = np.empty_like(rows)
    slope = -inverse_std * mean_weighted
    constant = -mean_grad - mean * slope

    def work(channels):
        out = dx[channels]
        np.multiply(rows[channels], slope[channels, None], out=out)
        out += constant[channels, None]
        out += g[channels]
        out *= scale[channels, None]

    parallel(work, array_chunks(rows))
    return _image(dx, x.shape)


# --- local response normalisation ----------------------------------------------------------------------------------


def _window_sum(a, before: int, after: int, out):
    """out[c] = a[c - before] + ... + a[c + after], without indices beyond the ends."""
    np.copyto(out, a)
    for d in range(1, min(before, len(a) - 1) + 1):
        out[d:] += a[:-d]
    for d in range(1, min(after, len(a) - 1) + 1):
        out[:-d] += a[d:]
    return out


def _inverse_power(s, beta: float, out):
    """s ** -beta. The beta of Krizhevsky 2012, 3/4, takes two square roots; a general power is ten times slower."""
    if beta == 0.75:
        np.sqrt(s, out=out)
        out *= np.sqrt(out, out=scratch("root", s.shape, s.dtype))
        return np.divide(1, out, out=out)
    return np.power(s, -beta, out=out)


def _of_groups(rows, groups: int):
    """Rows of channels, (C, L), as (C / groups, groups, L): the first axis is the channel within its group."""
    return rows.reshape(groups, len(rows) // groups, rows.shape[1]).swapaxes(0, 1)


def local_response_norm(x, before, after, alpha, beta, k, groups):
    """y = x / s ** beta and s = k + alpha * (sum of x ** 2 over the channels c - before to c + after of c's group)."""
    x_rows = _rows(x)
    y_rows, s_rows = np.empty_like(x_rows), np.empty_like(x_rows)
    rows, y, s = (_of_groups(array, groups) for array in (x_rows, y_rows, s_rows))

    def work(at):
        block = rows[:, :, at]
        square = np.multiply(block, block, out=scratch("part", block.shape, x.dtype))
        total = _window_sum(square, before, after, out=scratch("total", block.shape, x.dtype))
        total *= alpha
        total += k
        s[:, :, at] = total
        np.multiply(block, _inverse_power(total, beta, out=square), out=y[:, :, at])

    parallel(work, array_chunks(x_rows, axis=1))
    return _image(y_rows, x.shape), _image(s_rows, x.shape)


def local_response_norm_backward(grad, x, s, before, after, alpha, beta, groups):
    """dx = grad / s ** beta - 2 alpha beta x * (sum of grad x / s ** (beta + 1) over the channels whose window contains x)."""
    dx_rows = np.empty_like(_rows(x))
    g, rows, sums, dx = (_of_groups(array, groups) for array in (*map(_rows, (grad, x, s)), dx_rows))

    def work(at):
        block = rows[:, :, at]
        direct = _inverse_power(sums[:, :, at], beta, out=scratch("part", block.shape, x.dtype))
        direct *= g[:, :, at]
        ratio = np.multiply(direct, block, out=scratch("ratio", block.shape, x.dtype))
        ratio /= sums[:, :, at]
        through = _window_sum(ratio, after, before, out=scratch("total", block.shape, x.dtype))
        through *= block
        through *= -2 * alpha * beta
        np.add(direct, through, out=dx[:, :, at])

    parallel(work, array_chunks(dx_rows, axis=1))
    return _image(dx_rows, x.shape)


# --- the rest ------------------------------------------------------------------------------------------------------


def channel_sums(x):
    """x (C, ..., N), batch-last -> (C,), the sum of each channel: the gradient of a bias."""
    rows, sums = x.reshape(len(x), math.prod(x.shape[1:])), np.empty(len(x), x.dtype)
    parallel(lambda at: rows[at].sum(axis=1, out=sums[at]), array_chunks(rows))
    return sums


def relu(x):
    x = to_batch_last(x)
    y = np.empty_like(x)
    parallel(lambda at: np.maximum(x[at], 0, out=y[at]), array_chunks(x))
    return from_batch_last(y)


def relu_backward(grad, y):
    grad, y = to_batch_last(grad), to_batch_last(y)
    dx = np.empty_like(grad)

    def work(at):
        _select(grad[at], np.less_equal(y[at], 0, out=scratch("mask", y[at].shape, bool)), out=dx[at])

    parallel(work, array_chunks(grad))
    return from_batch_last(dx)


def dropout_mask(shape, p, draw, dtype):
    """0 with probability p, else 1 / (1 - p), for shape (N, ...). draw: (seed, step, key, first_sample, first_feature)."""
    seed, step, key, first, first_feature = draw
    N, *features = shape
    mask = np.empty((*features, N), dtype)
    by_sample = mask.reshape(math.prod(features), N)
    samples = np.arange(first, first + N)
    scale = np.dtype(dtype).type(1 / max(1 - p, 2**-32))

    def work(part):
        words = random.words(length(part), key, samples, step, seed, first_feature + part.start)
        np.multiply(words >= round(p * 2**32), scale, out=by_sample[part])

    parallel(work, chunks(len(by_sample), 4 * max(1, RANDOM_WORDS // (4 * max(1, N)))))
    return from_batch_last(mask)


def cross_entropy(x, labels, label_smoothing):
    """The loss of each sample (N,), and softmax(x), for x (N, C) and labels (N,)."""
    reference.check_labels(labels, x.shape[1])
    log_p = log_softmax(to_batch_last(x), axis=0)
    loss = -(1 - label_smoothing) * log_p[labels, np.arange(len(labels))]
    if label_smoothing:
        loss -= label_smoothing * log_p.mean(axis=0)
    return loss, from_batch_last(np.exp(log_p))


def cross_entropy_backward(grad, p, labels, label_smoothing):
    p = to_batch_last(p)
    dx = p - label_smoothing / len(p)
    dx[labels, np.arange(len(labels))] -= 1 - label_smoothing
    return from_batch_last(dx * grad)


def sgd_update(weight, grad, velocity, lr, momentum, weight_decay, nesterov, loss=None):
    """One step of SGD on flat arrays, in place, see optim.SGD; no step if `loss`, an array of one float64, is not finite."""
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

    parallel(work, array_chunks(weight, most_bytes=CHUNK_BYTES // 2))


def adam_update(weight, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay, loss=None):
    """One step of Adam on flat arrays, in place, see optim.Adam; no step if `loss`, an array of one float64, is not finite.

    step: the number of steps before this one, an array of one float64, which is increased here.
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

    parallel(work, array_chunks(weight, most_bytes=CHUNK_BYTES // 4))
