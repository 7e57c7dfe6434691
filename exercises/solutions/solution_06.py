"""Solution 6: softmax and cross-entropy.

    y = - 1 / N  sum over n of log p[n, labels[n]],   p[n, c] = exp(x[n, c]) / sum over j of exp(x[n, j])

With l = labels[n], - log p[n, l] = - x[n, l] + log sum over j of exp(x[n, j]). With respect to x[n, c], the derivative of the
first term is -1 if c = l, and 0 if not; that of the second is exp(x[n, c]) / sum = p[n, c]. With the 1 / N of the mean:
    dx[n, c] = grad / N (p[n, c] - [c = labels[n]]).
One element of each row gets the -1: p[rows, labels] picks these pairs. p[:, labels] picks whole columns.
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
        dx[self.rows, self.labels] -= 1
        return grad * dx / len(dx)
