"""Exercise 3: swish, an activation.

    y = x s,   s = sigmoid(x) = 1 / (1 + exp(-x))

for each element of x, of any shape. The backward below is wrong. Repair it.
"""

import numpy as np

from minidl import Function


class Swish(Function):
    def forward(self, x):
        self.x = x
        self.s = 1 / (1 + np.exp(-x))
        return x * self.s

    def backward(self, grad):
        return grad * self.s
