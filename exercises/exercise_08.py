"""Exercise 8: overlapping max pooling.

    y[n, c, h, w] = max over i, j of x[n, c, h stride + i, w stride + j],   i and j from 0 to size - 1

x is (N, C, H, W) and y is (N, C, OH, OW), OH = (H - size) // stride + 1. AlexNet has size 3 and stride 2. forward keeps the
place of each maximum: y[n, c, h, w] = x[n, c, rows[n, c, h, w], columns[n, c, h, w]]. The backward below is wrong. Repair it.
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
        dx[self.n, self.c, self.rows, self.columns] = grad
        return dx
