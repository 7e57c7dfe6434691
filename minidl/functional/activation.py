"""Activation functions, computed elementwise."""

from ..autodiff import Function, Tensor
from ..kernels import kernels_for
from .arguments import floating


class ReLU(Function):
    """y = max(x, 0);  dx = dy where y > 0, else 0 (at 0 too)."""

    def forward(self, x):
        self.kernels = kernels_for(x)
        self.y = self.kernels.relu(x)
        return self.y

    def backward(self, grad):
        return self.kernels.relu_backward(grad, self.y)


class Tanh(Function):
    """y = tanh(x);  dx = dy (1 - y^2)."""

    def forward(self, x):
        self.kernels = kernels_for(x)
        self.y = self.kernels.tanh(x)
        return self.y

    def backward(self, grad):
        return self.kernels.tanh_backward(grad, self.y)


class Sigmoid(Function):
    """y = 1 / (1 + exp(-x));  dx = dy y (1 - y)."""

    def forward(self, x):
        self.kernels = kernels_for(x)
        self.y = self.kernels.sigmoid(x)
        return self.y

    def backward(self, grad):
        return self.kernels.sigmoid_backward(grad, self.y)


@floating("x")
def relu(x: Tensor, *, inplace: bool = False) -> Tensor:
    """The rectified linear unit, Krizhevsky 2012, section 3.1. Any shape. inplace: accepted as in PyTorch; x never changes."""
    return ReLU()(x)


@floating("x")
def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, with which Krizhevsky 2012, figure 1, compares ReLU. Any shape."""
    return Tanh()(x)


@floating("x")
def sigmoid(x: Tensor) -> Tensor:
    """The logistic function, from 0 to 1. Any shape."""
    return Sigmoid()(x)
