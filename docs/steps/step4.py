"""Step 4: arrays and broadcasting.

With arrays instead of numbers, a slope would be a table: each output element with respect to each input element. It is never
built. Instead, an operation stores a function for each input, which computes the input's gradient from the output's.
"""

import numpy as np
from step3 import ancestors


class Tensor:
    def __init__(self, data, inputs=(), backwards=()):
        self.data = np.asarray(data, dtype="float64")
        self.inputs = inputs
        self.backwards = backwards  # for each input, a function from dL/dself to dL/dinput
        self.grad = np.zeros_like(self.data)

    def __add__(self, other):
        shapes = self.data.shape, other.data.shape
        backwards = (lambda dy: sum_to_shape(dy, shapes[0]), lambda dy: sum_to_shape(dy, shapes[1]))
        return Tensor(self.data + other.data, (self, other), backwards)

    def __mul__(self, other):
        a, b = self.data, other.data
        backwards = (lambda dy: sum_to_shape(dy * b, a.shape), lambda dy: sum_to_shape(dy * a, b.shape))
        return Tensor(a * b, (self, other), backwards)

    def __matmul__(self, other):
        a, b = self.data, other.data
        return Tensor(a @ b, (self, other), (lambda dy: dy @ b.T, lambda dy: a.T @ dy))

    def sum(self):
        shape = self.data.shape
        return Tensor(self.data.sum(), (self,), (lambda dy: np.broadcast_to(dy, shape),))

    def backward(self):
        self.grad = np.ones_like(self.data)
        for tensor in reversed(ancestors(self)):
            for source, backward in zip(tensor.inputs, tensor.backwards, strict=True):
                source.grad = source.grad + backward(tensor.grad)


def sum_to_shape(grad, shape):
    """Sum grad until it has this shape: the backward of broadcasting, which repeats values in forward."""
    while grad.ndim > len(shape):
        grad = grad.sum(axis=0)
    for axis, n in enumerate(shape):
        if n == 1:
            grad = grad.sum(axis=axis, keepdims=True)
    return grad


if __name__ == "__main__":
    x = Tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    w, b = Tensor([[1.0], [-1.0]]), Tensor([0.5])
    L = (x @ w + b).sum()
    L.backward()
    print("L:", L.data, " dw:", w.grad.ravel(), " db:", b.grad)
