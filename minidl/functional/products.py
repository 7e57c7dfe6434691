"""Matrix products: the fully connected layer, and the operator @."""

import math

from ..autodiff import Function, Tensor
from ..kernels import kernels_for
from .arguments import floating
from .arithmetic import give_operators, sum_to_shape


class Linear(Function):
    """y[n, o] = sum_f x[n, f] W[o, f] + b[o]. In matrices:

    Y = X W^T + b;  dX = dY W,  dW = dY^T X,  db = sum over n of dY.
    """

    def forward(self, x, weight, bias):
        self.x, self.weight, self.kernels = x, weight, kernels_for(x)
        return self.kernels.linear(x, weight, bias)

    def backward(self, grad):
        return self.kernels.linear_backward(grad, self.x, self.weight, self.needs_grad, self.buffers[1])


class MatMul(Function):
    """Y = A B, for matrices and stacks of them;  dA = dY B^T, dB = A^T dY.

    A vector on the left is one row, a vector on the right is one column, as in NumPy.
    """

    def forward(self, a, b):
        self.a, self.b, self.kernels = a, b, kernels_for(a)
        y = self.kernels.matmul(a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b)
        y = y[..., 0] if b.ndim == 1 else y
        return y if a.ndim > 1 else y[..., 0] if b.ndim == 1 else y[..., 0, :]

    def backward(self, grad):
        a, b = self.a, self.b
        if b.ndim == 1:
            b, grad = b[:, None], grad[..., None]
        if a.ndim == 1:
            a, grad = a[None, :], grad[..., None, :]
        da = sum_to_shape(self.kernels.matmul(grad, b.swapaxes(-1, -2)), a.shape)
        db = sum_to_shape(self.kernels.matmul(a.swapaxes(-1, -2), grad), b.shape)
        return da.reshape(self.a.shape), db.reshape(self.b.shape)


@floating("x", "weight", "bias")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., F), weight (O, F), bias (O,) -> (..., O)."""
    if x.ndim < 1 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"linear takes x (..., F) and weight (O, F) with the same F; got {x.shape} and {weight.shape}")
    O, F = weight.shape
    if bias is not None and bias.shape != (O,):
        raise ValueError(f"linear takes a bias of shape ({O},); got {bias.shape}")
    if x.ndim == 2:
        return Linear()(x, weight, bias)
    return Linear()(x.reshape(math.prod(x.shape[:-1]), F), weight, bias).reshape(*x.shape[:-1], O)


give_operators("matmul", MatMul)
