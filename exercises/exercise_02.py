"""Exercise 2: adding a bias.

    y[n, c, h, w] = x[n, c, h, w] + b[c]

x is (N, C, H, W), and b is (C,): one number for each channel. The backward below is wrong. Repair it.
"""

from minidl import Function


class AddBias(Function):
    def forward(self, x, b):
        return x + b[:, None, None]

    def backward(self, grad):
        return grad, grad
