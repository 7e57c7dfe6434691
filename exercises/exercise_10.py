"""Exercise 10: local response normalisation.

    y[n, c, h, w] = x[n, c, h, w] / s[n, c, h, w]^beta,   s[n, c, h, w] = k + alpha / size  sum over j of x[n, j, h, w]^2

j runs through the `size` channels around c, from c - size // 2 to c + (size - 1) // 2, as far as they exist. x is
(N, C, H, W). The backward below is wrong. Repair it.
"""

import numpy as np

from minidl import Function


class LocalResponseNorm(Function):
    def __init__(self, size, alpha, beta, k):
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x):
        self.x, self.s = x, np.empty_like(x)
        for c in range(x.shape[1]):
            squares = x[:, self.around(c)] ** 2
            self.s[:, c] = self.k + self.alpha / self.size * squares.sum(axis=1)
        return x / self.s**self.beta

    def around(self, c):
        """The channels whose squares are in s[:, c]."""
        return slice(max(0, c - self.size // 2), c + (self.size - 1) // 2 + 1)

    def backward(self, grad):
        direct = grad / self.s**self.beta
        factor = 2 * self.alpha * self.beta / self.size
        return direct - factor * self.x * (grad * self.x / self.s ** (self.beta + 1))
