"""Solution 9: convolution.

    y[n, o, h, w] = bias[o] + sum over c, i, j of weight[o, c, i, j] xpad[n, c, h stride + i, w stride + j]

For each (i, j) the forward is a linear layer over the channels, and so is the backward. With X = xpad[seen_by(i, j)]:
    dweight[o, c, i, j] = sum over n, h, w of grad[n, o, h, w] X[n, c, h, w]
    dX[n, c, h, w]      = sum over o of grad[n, o, h, w] weight[o, c, i, j]
    dbias[o]            = sum over n, h, w of grad[n, o, h, w].
The X of different (i, j) overlap: a pixel is seen by several outputs, so dX is added into dxpad, never assigned. dx is dxpad
without the padding.
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
        dxpad, dweight = np.zeros_like(self.xpad), np.zeros_like(self.weight)
        for i, j in np.ndindex(*self.weight.shape[2:]):
            dxpad[self.seen_by(i, j)] += np.einsum("nohw,oc->nchw", grad, self.weight[:, :, i, j])
            dweight[:, :, i, j] = np.einsum("nohw,nchw->oc", grad, self.xpad[self.seen_by(i, j)])
        p, (H, W) = self.padding, dxpad.shape[2:]
        return dxpad[:, :, p : H - p, p : W - p], dweight, grad.sum(axis=(0, 2, 3))
