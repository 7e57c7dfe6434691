"""Step 5: functions as classes.

Forward and backward of an operation belong together, in one class. The tensor that a function made refers to the function. The
function keeps what backward needs.
"""

import numpy as np
from step4 import sum_to_shape


class Tensor:
    def __init__(self, data, requires_grad=False):
        self.data = np.asarray(data, dtype="float64")
        self.requires_grad = requires_grad
        self.grad = None
        self.creator = None  # the function that made it

    def backward(self):
        gradients = {self: np.ones_like(self.data)}
        for tensor in reversed(ancestors(self)):
            gradient = gradients[tensor]
            if tensor.creator is None:
                tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient
                continue
            parts = tensor.creator.backward(gradient)
            for source, part in zip(tensor.creator.inputs, parts, strict=True):
                if source.requires_grad:
                    gradients[source] = gradients[source] + part if source in gradients else part


def ancestors(tensor):
    """The tensor and its ancestors that need a gradient, each after its own inputs."""
    order, seen, stack = [], set(), [(tensor, False)]
    while stack:
        t, inputs_done = stack.pop()
        if inputs_done:
            order.append(t)
        elif t not in seen and t.requires_grad:
            seen.add(t)
            stack.append((t, True))
            stack.extend((source, False) for source in (t.creator.inputs if t.creator else ()))
    return order


class Function:
    """forward(*arrays) -> array; backward(grad) -> a gradient for each input."""

    def __call__(self, *inputs):
        self.inputs = inputs
        output = Tensor(self.forward(*[x.data for x in inputs]), any(x.requires_grad for x in inputs))
        if output.requires_grad:
            output.creator = self
        return output


class Add(Function):
    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return a + b

    def backward(self, grad):
        return [sum_to_shape(grad, shape) for shape in self.shapes]


class MatMul(Function):
    def forward(self, a, b):
        self.a, self.b = a, b
        return a @ b

    def backward(self, grad):
        return grad @ self.b.T, self.a.T @ grad


class ReLU(Function):
    def forward(self, x):
        self.positive = x > 0
        return x * self.positive

    def backward(self, grad):
        return (grad * self.positive,)


class Mean(Function):
    def forward(self, x):
        self.shape = x.shape
        return x.mean()

    def backward(self, grad):
        return (np.full(self.shape, grad / np.prod(self.shape)),)


def check(f, x, eps=1e-6):
    """The largest difference between backward and finite differences at the array x. f maps a tensor to a single number."""
    tensor = Tensor(x, requires_grad=True)
    f(tensor).backward()
    measured = np.empty_like(x)
    for index in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * eps
            ends.append(float(f(Tensor(moved)).data))
        measured[index] = (ends[0] - ends[1]) / (2 * eps)
    return float(np.abs(tensor.grad - measured).max())


if __name__ == "__main__":
    draws = np.random.default_rng(0)
    w = Tensor(draws.standard_normal((4, 3)))
    print("off by", check(lambda x: Mean()(ReLU()(MatMul()(x, w))), draws.standard_normal((5, 4))))
