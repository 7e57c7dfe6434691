"""Solution 3: swish, an activation.

    y = x s,   s = sigmoid(x) = 1 / (1 + exp(-x))

x is used twice: as the factor x, and inside s. Each use gives a gradient, and they add up:
    through the factor:  grad s
    through s:           grad x ds/dx,   ds/dx = exp(-x) / (1 + exp(-x))^2 = s (1 - s)
    dx = grad (s + x s (1 - s)).
"""

import numpy as np

from minidl import Function


class Swish(Function):
    def forward(self, x):
        self.x = x
        self.s = 1 / (1 + np.exp(-x))
        return x * self.s

    def backward(self, grad):
        return grad * (self.s + self.x * self.s * (1 - self.s))
