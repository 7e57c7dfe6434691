"""The fully connected layer."""

from ..autodiff import Function, Tensor
from ..backend import from_batch_last, to_batch_last
from ..kernels import kernels_for


class Linear(Function):
    """y[n, o] = sum_f x[n, f] W[o, f] + b[o]

    With the batch last, X (F, N) and Y (O, N), these are three products of matrices:
    Y = W X + b;  dX = W^T dY,  dW = dY X^T,  db = sum over n of dY.
    """

    def forward(self, x, weight, bias=None):
        self.x, self.weight = to_batch_last(x), weight
        return from_batch_last(kernels_for(x).linear(self.x, weight, bias))

    def backward(self, grad):
        kernels, grad = kernels_for(grad), to_batch_last(grad)
        dx = from_batch_last(kernels.linear_input_gradient(grad, self.weight)) if self.needs_grad[0] else None
        dweight = kernels.linear_weight_gradient(grad, self.x, self.buffers[1]) if self.needs_grad[1] else None
        dbias = kernels.channel_sums(grad) if any(self.needs_grad[2:]) else None
        return (dx, dweight, dbias)[: len(self.inputs)]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (N, F), weight (O, F), bias (O,) -> (N, O)."""
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"linear takes x (N, F) and weight (O, F) with the same F; got {x.shape} and {weight.shape}")
    if bias is None:
        return Linear()(x, weight)
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"linear takes a bias of shape ({weight.shape[0]},); got {bias.shape}")
    return Linear()(x, weight, bias)
