"""Activations: elementwise, so they keep the layout of what they are given."""

from ..autodiff import Function, Tensor
from ..backend import from_batch_last, get_array_module, to_batch_last
from ..kernels import kernels_for
from .arguments import require_batch


class ReLU(Function):
    """y = max(x, 0);  dx = dy where y > 0, else 0 (at 0 too)."""

    def forward(self, x):
        self.y = kernels_for(x).relu(to_batch_last(x))
        return from_batch_last(self.y)

    def backward(self, grad):
        return from_batch_last(kernels_for(grad).relu_gradient(to_batch_last(grad), self.y))


class Tanh(Function):
    """y = tanh(x);  dx = dy (1 - y^2)."""

    def forward(self, x):
        self.y = get_array_module(x).tanh(to_batch_last(x))
        return from_batch_last(self.y)

    def backward(self, grad):
        return from_batch_last(to_batch_last(grad) * (1 - self.y * self.y))


class Sigmoid(Function):
    """y = 1 / (1 + exp(-x)), which is exp(x) / (1 + exp(x)): the one whose exponent is below 0;  dx = dy y (1 - y)."""

    def forward(self, x):
        xp, x = get_array_module(x), to_batch_last(x)
        small = xp.exp(-abs(x))
        self.y = xp.where(x < 0, small, 1) / (1 + small)
        return from_batch_last(self.y)

    def backward(self, grad):
        return from_batch_last(to_batch_last(grad) * self.y * (1 - self.y))


def relu(x: Tensor) -> Tensor:
    """The rectified linear unit, the paper's section 3.1. Any shape (N, ...)."""
    require_batch(x, "relu")
    return ReLU()(x)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, which the paper's figure 1 compares ReLU with. Any shape (N, ...)."""
    require_batch(x, "tanh")
    return Tanh()(x)


def sigmoid(x: Tensor) -> Tensor:
    """The logistic function, from 0 to 1. Any shape (N, ...)."""
    require_batch(x, "sigmoid")
    return Sigmoid()(x)
