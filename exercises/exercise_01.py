"""Exercise 1: the mean of squares.

    y = 1 / n  sum of x^2

over all n elements of x, of any shape; y is a number. The backward below is wrong. Repair it.
"""

from minidl import Function


class MeanSquare(Function):
    def forward(self, x):
        self.x = x
        return (x * x).mean()

    def backward(self, grad):
        return grad * 2 * self.x
