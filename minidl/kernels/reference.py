"""The plain version of every kernel, written from its formula. NumPy, arrays (N, C, H, W), forward and backward.

Convolution and pooling loop over the positions (i, j) of the window: for each, a view of the image holds the element at (i, j)
of all windows. Nothing is reused, cut into chunks or stored for speed. `with minidl.use_kernels("reference"):` computes
everything with these kernels, for example in a debugger. Arguments that only the fast kernels use (*_) are ignored: a
convolution's algorithm, which results are needed, and where to write them.

In the formulas n is the image, c an input and o an output channel, (h, w) a position in the image, (i, j) a position in the
window, s the stride; dy stands for dL/dy, and so on.
"""

import numpy as np

from .. import random
from .windows import output_size


def places(x, kernel_size, stride, size):
    """For each position of the window: (i, j, a view (N, C, OH, OW) of element (i, j) of every window). x is padded already."""
    (KH, KW), (SH, SW), (OH, OW) = kernel_size, stride, size
    for i in range(KH):
        for j in range(KW):
            yield i, j, x[:, :, i : i + (OH - 1) * SH + 1 : SH, j : j + (OW - 1) * SW + 1 : SW]


# --- the fully connected layer -----------------------------------------------------------------------------------------


def linear(x, weight, bias):
    """y[n, o] = sum over f of x[n, f] W[o, f], + b[o]."""
    y = x @ weight.T
    return y if bias is None else y + bias


def linear_backward(grad, x, weight, *_):
    """dx[n, f] = sum over o of dy[n, o] W[o, f];  dW[o, f] = sum over n of dy[n, o] x[n, f];  db[o] = sum over n of dy[n, o]."""
    return grad @ weight, grad.T @ x, grad.sum(axis=0)


def matmul(a, b):
    """Y[i, j] = sum over k of A[i, k] B[k, j], for matrices and stacks of them."""
    return a @ b


# --- convolution -------------------------------------------------------------------------------------------------------


def winograd_tile(*_):
    """None: the reference convolves by the definition."""
    return


def conv2d(x, weight, bias, stride, padding, groups, *_):
    """y[n, o, h, w] = b[o] + sum over c, i, j of W[o, c, i, j] xpad[n, c, h s + i, w s + j]

    Each of the G groups of output channels reads its own group of input channels. For one position (i, j) of the
    window this is a matrix product, (O / G, C / G) with (C / G, OH OW), for each image and group.
    """
    O, CG, *kernel_size = weight.shape
    N, size = len(x), _output_size(x, kernel_size, stride, padding)
    y = np.zeros((N, groups, O // groups, size[0] * size[1]), x.dtype)
    for i, j, seen in places(_pad(x, padding), kernel_size, stride, size):
        y += _matrices(weight, groups, i, j) @ seen.reshape(N, groups, CG, size[0] * size[1])
    y = y.reshape(N, O, *size)
    return y if bias is None else y + bias[:, None, None]


def conv2d_backward(grad, x, weight, stride, padding, groups, *_):
    """dW[o, c, i, j] = sum over n, h, w of dy[n, o, h, w] xpad[n, c, h s + i, w s + j]

    db[o] is the sum of dy[n, o, h, w] over the same n, h, w. A pixel belongs to several windows, at a different position (i, j)
    in each, and its gradient is a sum over all of them: dxpad[n, c, h s + i, w s + j] += sum over o of W[o, c, i, j]
    dy[n, o, h, w]. Then the padding is cut off.
    """
    O, CG, *kernel_size = weight.shape
    (N, _, H, W), size, (PH, PW) = x.shape, grad.shape[2:], padding
    dy = grad.reshape(N, groups, O // groups, size[0] * size[1])
    xpad, dweight = _pad(x, padding), np.zeros_like(weight)
    dxpad = np.zeros_like(xpad)
    for i, j, seen in places(xpad, kernel_size, stride, size):
        patches = seen.reshape(N, groups, CG, size[0] * size[1])
        dweight[:, :, i, j] = (dy @ patches.swapaxes(2, 3)).sum(axis=0).reshape(O, CG)
    for i, j, target in places(dxpad, kernel_size, stride, size):
        target += (_matrices(weight, groups, i, j).swapaxes(1, 2) @ dy).reshape(target.shape)
    return dxpad[:, :, PH : PH + H, PW : PW + W], dweight, grad.sum(axis=(0, 2, 3))


def _matrices(weight, groups, i, j):
    """W[:, :, i, j] as a matrix for each group: (G, O / G, C / G)."""
    matrix = weight[:, :, i, j].copy()  # contiguous: without a copy NumPy would not use BLAS, and be tens of times slower
    return matrix.reshape(groups, -1, weight.shape[1])


def _output_size(x, kernel_size, stride, padding):
    return tuple(output_size(*axis) for axis in zip(x.shape[2:], kernel_size, stride, padding, strict=True))


def _pad(x, padding, value=0.0):
    """Pad H and W with a value: by p on both sides, or by (before, after)."""
    around = [p if isinstance(p, tuple) else (p, p) for p in padding]
    return np.pad(x, ((0, 0), (0, 0), *around), constant_values=value)


# --- pooling -----------------------------------------------------------------------------------------------------------


def max_pool2d(x, kernel_size, stride, padding, size, *_):
    """y[n, c, h, w] = max over i, j of x[n, c, h s + i, w s + j], and its position i KW + j.

    padding is ((top, bottom), (left, right)); `ceil_mode` adds to bottom and right.
    Among equal maxima the position is that of the first. Padding is never the maximum. NaN counts as the largest; among
    several NaN the position is that of the last.
    """
    window = kernel_size, stride, size
    xpad, inside = _pad(x, padding), _pad(np.ones((1, 1, *x.shape[2:]), bool), padding, False)
    y = np.full((*x.shape[:2], *size), -np.inf, x.dtype)
    argmax = np.full(y.shape, -1)
    for (i, j, value), (_, _, there) in zip(places(xpad, *window), places(inside, *window), strict=True):
        better = there & ((argmax < 0) | (value > y) | np.isnan(value))
        y[better] = value[better]
        argmax[better] = i * kernel_size[1] + j
    return y, argmax


def max_pool2d_backward(grad, argmax, x_shape, kernel_size, stride, padding):
    """dx[n, c, h s + i, w s + j] += dy[n, c, h, w] where (i, j) is the position of the maximum of window (h, w).

    If windows overlap (s < k), a pixel can be the maximum of several, and gets the sum.
    """
    (top, _), (left, _) = padding
    dxpad = _pad(np.zeros(x_shape, grad.dtype), padding)
    for i, j, target in places(dxpad, kernel_size, stride, grad.shape[2:]):
        target += np.where(argmax == i * kernel_size[1] + j, grad, 0)
    return dxpad[:, :, top : top + x_shape[2], left : left + x_shape[3]]


def avg_pool2d(x, windows, divisors):
    """y[n, c, h, w] = 1 / m_hw  sum over i in R_h, j in C_w of x[n, c, i, j]; windows: the ranges R and C; divisors: m."""
    rows, columns = windows
    y = np.empty((*x.shape[:2], len(rows), len(columns)), x.dtype)
    for h, R in enumerate(rows):
        for w, C in enumerate(columns):
            y[:, :, h, w] = x[:, :, R.start : R.stop, C.start : C.stop].sum(axis=(2, 3)) / divisors[h][w]
    return y


def avg_pool2d_backward(grad, windows, divisors, x_shape):
    """dx[n, c, i, j] = sum over the windows (h, w) that contain (i, j) of dy[n, c, h, w] / m_hw."""
    rows, columns = windows
    dx = np.zeros(x_shape, grad.dtype)
    for h, R in enumerate(rows):
        for w, C in enumerate(columns):
            dx[:, :, R.start : R.stop, C.start : C.stop] += (grad[:, :, h, w] / divisors[h][w])[:, :, None, None]
    return dx


def pad2d(x, left, right, top, bottom):
    """y[n, c, h + top, w + left] = x[n, c, h, w], and 0 around it."""
    return _pad(x, ((top, bottom), (left, right)))


# --- batch normalisation -----------------------------------------------------------------------------------------------


def channel_statistics(x):
    """For each channel c: the mean of its values x[n, c, h, w], and the sum of their squared deviations from it."""
    x = x.astype(np.float64)
    mean = x.mean(axis=_all_but_channels(x)) if x.size else np.zeros(x.shape[1])
    return mean, ((x - _of_channels(mean, x)) ** 2).sum(axis=_all_but_channels(x))


def scale_and_shift(x, scale, shift):
    """y[n, c, h, w] = x[n, c, h, w] scale[c] + shift[c]."""
    return x * _of_channels(scale, x) + _of_channels(shift, x)


def batch_norm_sums(grad, x, mean, inverse_std):
    """dbeta[c] = sum of dy, and dgamma[c] = sum of dy xhat, where xhat = (x - mean) / std."""
    xhat = (x - _of_channels(mean, x)) * _of_channels(inverse_std, x)
    return grad.sum(axis=_all_but_channels(x)), (grad * xhat).sum(axis=_all_but_channels(x))


def batch_norm_backward(grad, x, mean, inverse_std, scale, mean_grad, mean_weighted):
    """dx = scale (dy - mean of dy - xhat mean of dy xhat), scale = gamma / std: the mean and std depend on x too."""
    mean, inverse_std, scale, mean_grad, mean_weighted = (
        _of_channels(values, x) for values in (mean, inverse_std, scale, mean_grad, mean_weighted)
    )
    return scale * (grad - mean_grad - (x - mean) * inverse_std * mean_weighted)


def _of_channels(values, x):
    """(C,) -> (C, 1, 1), to broadcast with x (N, C, H, W)."""
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _all_but_channels(x):
    return (0, *range(2, x.ndim))


# --- local response normalisation --------------------------------------------------------------------------------------


def local_response_norm(x, before, after, alpha, beta, k, groups):
    """y[c] = x[c] / s[c]^beta,  s[c] = k + alpha sum over j of x[j]^2, for the channels j from c - before to c + after.

    With groups of channels, only those of c's own group.
    """
    s = np.empty_like(x)
    for c in range(x.shape[1]):
        s[:, c] = k + alpha * (x[:, _neighbours(c, before, after, x.shape[1] // groups)] ** 2).sum(axis=1)
    return x / s**beta, s


def local_response_norm_backward(grad, x, s, before, after, alpha, beta, groups):
    """dx[c] = dy[c] / s[c]^beta - 2 alpha beta x[c] sum over j of dy[j] x[j] / s[j]^(beta + 1)

    x[c] occurs in y[c] directly, and in every s[j] whose window contains c: those j from c - after to c + before.
    """
    through = grad * x / s ** (beta + 1)
    dx = grad / s**beta
    for c in range(x.shape[1]):
        window = _neighbours(c, after, before, x.shape[1] // groups)
        dx[:, c] -= 2 * alpha * beta * x[:, c] * through[:, window].sum(axis=1)
    return dx


def _neighbours(c, before, after, of_group):
    """The channels from c - before to c + after that are in c's group; a group is `of_group` consecutive channels."""
    first = c // of_group * of_group
    return slice(max(first, c - before), min(first + of_group, c + after + 1))


# --- activations and dropout -------------------------------------------------------------------------------------------


def relu(x):
    """y = max(x, 0)."""
    return np.maximum(x, 0)


def relu_backward(grad, y):
    """dx = dy where y > 0 (or is NaN), else 0."""
    return np.where(y <= 0, 0, grad)


def tanh(x):
    """y = tanh(x)."""
    return np.tanh(x)


def tanh_backward(grad, y):
    """dx = dy (1 - y^2)."""
    return grad * (1 - y**2)


def sigmoid(x):
    """y = 1 / (1 + exp(-x)), which equals exp(x) / (1 + exp(x)): the form with a negative exponent does not overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


def sigmoid_backward(grad, y):
    """dx = dy y (1 - y)."""
    return grad * y * (1 - y)


def dropout_mask(shape, p, draw, dtype):
    """m = 0 with probability p, else 1 / (1 - p): the random word of (seed, step, key, sample) and the feature decides."""
    seed, step, key, first_sample, first_feature = draw
    N, *rest = shape
    features = int(np.prod(rest))
    words = random.words(features, key, np.arange(first_sample, first_sample + N), step, seed, first_feature).T
    return np.where(words >= round(p * 2**32), 1 / max(1 - p, 2**-32), 0).astype(dtype).reshape(shape)


def multiply(x, mask):
    """y = x m, and dx = dy m."""
    return x * mask


# --- softmax and cross-entropy -----------------------------------------------------------------------------------------


def log_softmax(x, axis):
    """y = x - log sum exp(x); the largest x is subtracted first, so that nothing overflows."""
    if not x.size:
        return x
    x = x - x.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def cross_entropy(x, labels, label_smoothing):
    """L[n] = -sum over c of t[n, c] log p[n, c], and p = softmax(x); t: see _targets."""
    check_labels(labels, x.shape[1])
    log_p = log_softmax(x, axis=1)
    t = _targets(x, labels, label_smoothing)
    return -np.where(t == 0, 0, t * log_p).sum(axis=1), np.exp(log_p)


def cross_entropy_backward(grad, p, labels, label_smoothing):
    """dx[n, c] = dL[n] (p[n, c] - t[n, c])."""
    return grad[:, None] * (p - _targets(p, labels, label_smoothing))


def _targets(x, labels, e):
    """t[n, c] = e / C, plus 1 - e at the label."""
    t = np.full(x.shape, e / x.shape[1], x.dtype)
    t[np.arange(len(t)), labels] += 1 - e
    return t


def check_labels(labels, classes):
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels must lie in 0..{classes - 1}; found {labels.min()} to {labels.max()}")


# --- the optimiser's update --------------------------------------------------------------------------------------------


def sgd_update(weight, grad, velocity, lr, momentum, weight_decay, nesterov, loss=None):
    """d = dw + weight_decay w;  v = momentum v + d;  w = w - lr v, or w - lr (d + momentum v). No step if loss is not finite."""
    if loss is not None and not np.isfinite(loss).all():
        return
    step = grad + weight_decay * weight
    velocity[...] = momentum * velocity + step
    weight -= lr * (step + momentum * velocity if nesterov else velocity)


def adam_update(weight, grad, exp_avg, exp_avg_sq, step, lr, betas, eps, weight_decay, loss=None):
    """d = dw + weight_decay w;  m = beta1 m + (1 - beta1) d;  v = beta2 v + (1 - beta2) d^2;  t = t + 1

    w = w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps). No step if loss is not finite.
    """
    if loss is not None and not np.isfinite(loss).all():
        return
    beta1, beta2 = betas
    step += 1
    t = step.item()
    d = grad + weight_decay * weight
    exp_avg[...] = beta1 * exp_avg + (1 - beta1) * d
    exp_avg_sq[...] = beta2 * exp_avg_sq + (1 - beta2) * d**2
    weight -= lr * (exp_avg / (1 - beta1**t)) / (np.sqrt(exp_avg_sq / (1 - beta2**t)) + eps)
