"""Every function again, written from its definition with loops: slow, simple and independent of the library."""

import math

import numpy as np


def conv2d(x, weight, bias, stride, padding, groups):
    (SH, SW), (PH, PW) = stride, padding
    N, C, H, W = x.shape
    O, CG, KH, KW = weight.shape
    padded = np.zeros((N, C, H + 2 * PH, W + 2 * PW))
    padded[:, :, PH : PH + H, PW : PW + W] = x
    OH, OW = (H + 2 * PH - KH) // SH + 1, (W + 2 * PW - KW) // SW + 1
    y = np.zeros((N, O, OH, OW))
    for n, o, h, w in np.ndindex(N, O, OH, OW):
        first = o // (O // groups) * CG
        patch = padded[n, first : first + CG, h * SH : h * SH + KH, w * SW : w * SW + KW]
        y[n, o, h, w] = (patch * weight[o]).sum() + (0 if bias is None else bias[o])
    return y


def max_pool2d(x, kernel_size, stride, padding, ceil_mode):
    (KH, KW), (SH, SW), (PH, PW) = kernel_size, stride, padding
    N, C, H, W = x.shape

    def windows(size, k, s, p):
        """(start, end) of each window, cut to the image."""
        starts = range(-p, size + p, s)
        whole = [start for start in starts if start + k <= size + p]
        if ceil_mode and whole[-1] + k < size + p and whole[-1] + s < size:
            whole.append(whole[-1] + s)  # one more window, which extends beyond the image
        return [(max(0, start), min(size, start + k)) for start in whole]

    rows, columns = windows(H, KH, SH, PH), windows(W, KW, SW, PW)
    y = np.zeros((N, C, len(rows), len(columns)))
    for n, c, h, w in np.ndindex(y.shape):
        y[n, c, h, w] = x[n, c, rows[h][0] : rows[h][1], columns[w][0] : columns[w][1]].max()
    return y


def avg_pool2d(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override):
    """Sums over the zero-padded image, divided by the number of elements, which is a sum of ones."""
    (KH, KW), (SH, SW), (PH, PW) = kernel_size, stride, padding
    N, C, H, W = x.shape
    shape = max_pool2d(x, kernel_size, stride, padding, ceil_mode).shape
    padded = np.zeros((N, C, H + 2 * PH, W + 2 * PW))
    padded[:, :, PH : PH + H, PW : PW + W] = x
    there = np.zeros(padded.shape[2:])
    there[PH : PH + H, PW : PW + W] = 1
    counted = np.ones_like(there) if count_include_pad else there
    y = np.zeros(shape)
    for n, c, h, w in np.ndindex(shape):
        window = slice(h * SH, h * SH + KH), slice(w * SW, w * SW + KW)
        y[n, c, h, w] = padded[n, c][window].sum() / (divisor_override or counted[window].sum())
    return y


def adaptive_avg_pool2d(x, output_size):
    N, C, H, W = x.shape
    y = np.zeros((N, C, *output_size))
    for n, c, h, w in np.ndindex(y.shape):
        top, bottom = math.floor(h * H / output_size[0]), math.ceil((h + 1) * H / output_size[0])
        left, right = math.floor(w * W / output_size[1]), math.ceil((w + 1) * W / output_size[1])
        y[n, c, h, w] = x[n, c, top:bottom, left:right].mean()
    return y


def batch_norm(x, weight, bias, eps):
    y = np.zeros_like(x)
    for c in range(x.shape[1]):
        values = x[:, c].ravel()
        mean = sum(values) / len(values)
        var = sum((v - mean) ** 2 for v in values) / len(values)
        y[:, c] = weight[c] * (x[:, c] - mean) / np.sqrt(var + eps) + bias[c]
    return y


def local_response_norm(x, size, alpha, beta, k, convention, groups=1):
    if groups > 1:
        of_groups = np.split(x, groups, axis=1)
        return np.concatenate([local_response_norm(part, size, alpha, beta, k, convention) for part in of_groups], axis=1)
    y = np.zeros_like(x)
    C = x.shape[1]
    for c in range(C):
        if convention == "pytorch":  # size channels of the zero-padded input; the mean of their squares
            first, last, factor = c - size // 2, c - size // 2 + size - 1, alpha / size
        elif convention == "paper":  # the limits of the sum in section 3.3, and its alpha
            first, last, factor = c - size // 2, c + size // 2, alpha
        else:  # sqr_sum[d] = sum(x[d - depth_radius : d + depth_radius + 1] ** 2)
            first, last, factor = c - size, c + size, alpha
        squares = sum(x[:, j] ** 2 for j in range(max(0, first), min(C - 1, last) + 1))
        y[:, c] = x[:, c] / (k + factor * squares) ** beta
    return y


def linear(x, weight, bias):
    y = np.zeros((len(x), len(weight)))
    for n, o in np.ndindex(y.shape):
        y[n, o] = sum(x[n, f] * weight[o, f] for f in range(x.shape[1])) + (0 if bias is None else bias[o])
    return y


def softmax(x):
    e = np.exp(x)
    return e / e.sum(axis=1, keepdims=True)


def cross_entropy(x, labels, label_smoothing):
    p = softmax(x)
    losses = []
    for n, label in enumerate(labels):
        target = np.full(x.shape[1], label_smoothing / x.shape[1])
        target[label] += 1 - label_smoothing
        losses.append(-sum(t * np.log(q) for t, q in zip(target, p[n], strict=True)))
    return np.array(losses)
