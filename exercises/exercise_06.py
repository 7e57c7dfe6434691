"""Exercise 6: softmax and cross-entropy.

    y = - 1 / N  sum over n of log p[n, labels[n]],   p[n, c] = exp(x[n, c]) / sum over j of exp(x[n, j])

x is (N, C), the scores of C classes for N images; labels is (N,), integers; y is a number. The backward below is wrong.
Repair it.
"""

import numpy as np

from minidl import Function


class SoftmaxCrossEntropy(Function):
    def __init__(self, labels):
        self.labels = labels

    def forward(self, x):
        exp = np.exp(x - x.max(axis=1, keepdims=True))
        self.p = exp / exp.sum(axis=1, keepdims=True)
        self.rows = np.arange(len(x))
        return -np.log(self.p[self.rows, self.labels]).mean()

    def backward(self, grad):
        dx = self.p.copy()
        dx[:, self.labels] -= 1
        return grad * dx
