"""Fast kernels with the same code for NumPy and CuPy arrays. Inside, arrays are batch-last, (C, H, W, N), see layout.py."""

from ..backend import get_array_module
from .layout import from_batch_last, to_batch_last

# --- average pooling: first along rows, then along columns -------------------------------------------------------------


def avg_pool2d(x, windows, divisors):
    """The sum of x over each window, divided by divisors[h][w]. windows: the lists of ranges of rows and of columns."""
    xp, x = get_array_module(x), to_batch_last(x)
    (rows, columns), (C, _, W, N) = windows, x.shape
    by_row, y = xp.empty((C, len(rows), W, N), x.dtype), xp.empty((C, len(rows), len(columns), N), x.dtype)
    for oh, r in enumerate(rows):
        by_row[:, oh] = x[:, r.start : r.stop].sum(axis=1)
    for ow, c in enumerate(columns):
        y[:, :, ow] = by_row[:, :, c.start : c.stop].sum(axis=2)
    return from_batch_last(y / xp.asarray(divisors, y.dtype)[:, :, None])


def avg_pool2d_backward(grad, windows, divisors, x_shape):
    """dx of x_shape: each element of grad, divided by its divisor, is added to all elements of its window."""
    xp, grad = get_array_module(grad), to_batch_last(grad)
    grad = grad / xp.asarray(divisors, grad.dtype)[:, :, None]
    (rows, columns), (N, C, H, W) = windows, x_shape
    by_row, dx = xp.zeros((C, len(rows), W, N), grad.dtype), xp.zeros((C, H, W, N), grad.dtype)
    for ow, c in enumerate(columns):
        by_row[:, :, c.start : c.stop] += grad[:, :, ow, None]
    for oh, r in enumerate(rows):
        dx[:, r.start : r.stop] += by_row[:, oh, None]
    return from_batch_last(dx)


def pad2d(x, left, right, top, bottom):
    C, H, W, N = to_batch_last(x).shape
    y = get_array_module(x).zeros((C, top + H + bottom, left + W + right, N), x.dtype)
    y[:, top : top + H, left : left + W] = to_batch_last(x)
    return from_batch_last(y)


# --- elementwise -------------------------------------------------------------------------------------------------------


def tanh(x):
    return from_batch_last(get_array_module(x).tanh(to_batch_last(x)))


def tanh_backward(grad, y):
    y = to_batch_last(y)
    return from_batch_last(to_batch_last(grad) * (1 - y * y))


def sigmoid(x):
    xp, x = get_array_module(x), to_batch_last(x)
    small = xp.exp(-abs(x))
    return from_batch_last(xp.where(x < 0, small, 1) / (1 + small))


def sigmoid_backward(grad, y):
    y = to_batch_last(y)
    return from_batch_last(to_batch_last(grad) * y * (1 - y))


def multiply(x, mask):
    return from_batch_last(to_batch_last(x) * to_batch_last(mask))


def log_softmax(x, axis):
    """x - log sum exp(x) along an axis of x; the largest x is subtracted first, so that nothing overflows."""
    xp = get_array_module(x)
    if not x.size:
        return x
    x = x - x.max(axis=axis, keepdims=True)
    return x - xp.log(xp.exp(x).sum(axis=axis, keepdims=True))
