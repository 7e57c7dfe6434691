"""Solution 8: overlapping max pooling.

    y[n, c, h, w] = max over i, j of x[n, c, h stride + i, w stride + j],   i and j from 0 to size - 1

A small change of x changes y only where x is the maximum, and y changes by the same amount. So grad goes to the place of the
maximum, and the other places get 0. Where stride < size, windows overlap, and one x can be the maximum of several:
    dx[n, c, h, w] = sum of grad over all windows whose maximum is at (h, w).
dx[places] = grad keeps the last one of them, and so does dx[places] += grad in NumPy; np.add.at adds them all.
"""

import numpy as np

from minidl import Function


class MaxPool(Function):
    def __init__(self, size, stride):
        self.size, self.stride = size, stride

    def forward(self, x):
        N, C, H, W = self.shape = x.shape
        OH, OW = (H - self.size) // self.stride + 1, (W - self.size) // self.stride + 1
        y = np.empty((N, C, OH, OW), x.dtype)
        self.n, self.c = np.arange(N)[:, None, None, None], np.arange(C)[:, None, None]
        self.rows, self.columns = np.empty(y.shape, int), np.empty(y.shape, int)
        for oh, ow in np.ndindex(OH, OW):
            top, left = oh * self.stride, ow * self.stride
            window = x[:, :, top : top + self.size, left : left + self.size].reshape(N, C, -1)
            y[:, :, oh, ow] = window.max(axis=2)
            i, j = np.divmod(window.argmax(axis=2), self.size)
            self.rows[:, :, oh, ow], self.columns[:, :, oh, ow] = top + i, left + j
        return y

    def backward(self, grad):
        dx = np.zeros(self.shape)
        np.add.at(dx, (self.n, self.c, self.rows, self.columns), grad)
        return dx
