"""Solution 12: gathering the parts of all ranks.

    y[r] = x_0, x_1, ..., one after the other, for every rank r

x_s is in the copy of every rank r, in the same rows: y[r, rows of s] = x_s. A copy has the factor 1, and the chain rule sums
over all copies:
    dx_s = sum over r of grad[r, rows of s].
Here the ranks send each other gradients: a sum over the ranks, of which each keeps its own rows. This is a reduce-scatter.
Its backward is the gather: each of the two is the backward of the other.
"""

import numpy as np

from minidl import Function


class Gather(Function):
    def forward(self, *parts):
        stops = np.cumsum([len(x) for x in parts])
        self.rows = [slice(stop - len(x), stop) for x, stop in zip(parts, stops, strict=True)]  # of x_r in the whole
        return np.stack([np.concatenate(parts)] * len(parts))

    def backward(self, grad):
        total = grad.sum(axis=0)
        return [total[rows] for rows in self.rows]
