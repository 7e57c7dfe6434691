"""Solution 5: dropout.

    y = x m / (1 - p),   m = 0 with probability p, else 1

For a given m, y is x times a constant: dx = grad m / (1 - p). It must be the m of this forward: neither a new one, nor that
of another layer. A dictionary in the body of the class is shared by all objects of the class, so each forward wrote its
mask over the one before; made in __init__ it belongs to one object. (self.mask = ... in forward is as good.)
"""

import numpy as np

from minidl import Function


class Dropout(Function):
    def __init__(self, p, seed):
        self.kept = {}
        self.p = p
        self.rng = np.random.default_rng(seed)

    def forward(self, x):
        self.kept["mask"] = self.rng.random(x.shape) >= self.p
        return x * self.kept["mask"] / (1 - self.p)

    def backward(self, grad):
        return grad * self.kept["mask"] / (1 - self.p)
