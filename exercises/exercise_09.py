"""Exercise 9: convolution.

    y[n, o, h, w] = bias[o] + sum over c, i, j of weight[o, c, i, j] xpad[n, c, h stride + i, w stride + j]

xpad is x with `padding` zeros on each side of H and W. x is (N, C, H, W), weight is (O, C, KH, KW), bias is (O,), and y is
(N, O, OH, OW), OH = (H + 2 padding - KH) // stride + 1. The backward below is blank. Write it.
"""

import numpy as np

from minidl import Function


class Convolution(Function):
    def __init__(self, stride, padding):
        self.stride, self.padding = stride, padding

    def forward(self, x, weight, bias):
        p, (KH, KW) = self.padding, weight.shape[2:]
        self.weight = weight
        self.xpad = np.pad(x, [(0, 0), (0, 0), (p, p), (p, p)])
        self.OH, self.OW = ((n - k) // self.stride + 1 for n, k in zip(self.xpad.shape[2:], (KH, KW), strict=True))
        y = np.zeros((len(x), len(weight), self.OH, self.OW)) + bias[:, None, None]
        for i, j in np.ndindex(KH, KW):
            y += np.einsum("nchw,oc->nohw", self.xpad[self.seen_by(i, j)], weight[:, :, i, j])
        return y

    def seen_by(self, i, j):
        """The index of what weight[:, :, i, j] is multiplied by: xpad[seen_by(i, j)] is (N, C, OH, OW)."""
        s = self.stride
        return (slice(None), slice(None), slice(i, i + s * self.OH, s), slice(j, j + s * self.OW, s))

    def backward(self, grad):
        raise NotImplementedError("return dx, dweight, dbias; go through all i, j as forward does")
