"""Sums over windows, for average pooling: the same code for NumPy and CuPy arrays (C, H, W, N)."""

from ..backend import get_array_module


def window_sums(x, rows, columns):
    """x (C, H, W, N) -> (C, OH, OW, N), the sum of x over rows[oh] and columns[ow], two lists of ranges."""
    xp = get_array_module(x)
    C, _, W, N = x.shape
    by_row, y = xp.empty((C, len(rows), W, N), x.dtype), xp.empty((C, len(rows), len(columns), N), x.dtype)
    for oh, r in enumerate(rows):
        by_row[:, oh] = x[:, r.start : r.stop].sum(axis=1)
    for ow, c in enumerate(columns):
        y[:, :, ow] = by_row[:, :, c.start : c.stop].sum(axis=2)
    return y


def window_sums_gradient(grad, rows, columns, x_shape):
    """dx of shape (C, H, W, N): each element of grad (C, OH, OW, N) is added to all that its window saw."""
    xp = get_array_module(grad)
    C, _, W, N = x_shape
    by_row, dx = xp.zeros((C, len(rows), W, N), grad.dtype), xp.zeros(x_shape, grad.dtype)
    for ow, c in enumerate(columns):
        by_row[:, :, c.start : c.stop] += grad[:, :, ow, None]
    for oh, r in enumerate(rows):
        dx[:, r.start : r.stop] += by_row[:, oh, None]
    return dx
