"""Solution 10: local response normalisation.

    y[n, c, h, w] = x[n, c, h, w] / s[n, c, h, w]^beta,   s[n, c, h, w] = k + alpha / size  sum over j of x[n, j, h, w]^2

At one place (n, h, w): x_c is in y_c as its numerator, and in s_j of every channel j whose window holds c, with
ds_j/dx_c = 2 alpha / size x_c. And dy_j/ds_j = - beta x_j / s_j^(beta + 1). So
    dx_c = grad_c / s_c^beta - 2 alpha beta / size  x_c  sum over those j of t_j,   t_j = grad_j x_j / s_j^(beta + 1).
The code computes this sum in another order: each channel j adds its t_j to all channels around j. So it needs no second
window. (The channels around c and the channels whose window holds c are the same for an odd size only.)
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
        t = grad * self.x / self.s ** (self.beta + 1)
        total = np.zeros_like(t)
        for j in range(t.shape[1]):
            total[:, self.around(j)] += t[:, j : j + 1]
        return direct - 2 * self.alpha * self.beta / self.size * self.x * total
