"""Loss functions: softmax, cross-entropy and the squared error."""

from typing import Any

from ..autodiff import Function, Tensor
from ..backend import Array, as_array, get_array_module
from ..kernels import kernels_for
from .arguments import axis_of, floating, number, require_only


class Softmax(Function):
    """y_i = exp(x_i) / sum_j exp(x_j);  dx_i = y_i (dy_i - sum_j dy_j y_j)."""

    def __init__(self, axis: int):
        self.axis = axis

    def forward(self, x):
        self.y = get_array_module(x).exp(kernels_for(x).log_softmax(x, self.axis))
        return self.y

    def backward(self, grad):
        return self.y * (grad - (grad * self.y).sum(axis=self.axis, keepdims=True))


class LogSoftmax(Function):
    """y_i = x_i - log sum_j exp(x_j);  dx_i = dy_i - exp(y_i) sum_j dy_j."""

    def __init__(self, axis: int):
        self.axis = axis

    def forward(self, x):
        self.y = kernels_for(x).log_softmax(x, self.axis)
        return self.y

    def backward(self, grad):
        return grad - get_array_module(grad).exp(self.y) * grad.sum(axis=self.axis, keepdims=True)


class CrossEntropy(Function):
    """L_n = -sum_c t_nc log p_nc,  p = softmax(x),  t = 1 at the label and 0 elsewhere;  dx_nc = dL_n (p_nc - t_nc).

    Softmax and logarithm are one function here: the gradient is simple, and there is no logarithm of a probability that was
    rounded to zero. With label smoothing e, t is multiplied by 1 - e, and e / C is added for every class (Szegedy et al.
    2016, section 7).
    """

    def __init__(self, labels: Array, label_smoothing: float):
        self.labels, self.label_smoothing = labels, label_smoothing

    def forward(self, x):
        self.kernels = kernels_for(x)
        loss, self.p = self.kernels.cross_entropy(x, self.labels, self.label_smoothing)
        return loss

    def backward(self, grad):
        return self.kernels.cross_entropy_backward(grad, self.p, self.labels, self.label_smoothing)


class SquaredError(Function):
    """L = (x - t)^2, element by element;  dx = 2 dL (x - t), dt = -dx."""

    def forward(self, x, target):
        self.difference = x - target
        return self.difference * self.difference

    def backward(self, grad):
        dx = 2 * grad * self.difference
        return dx, -dx


@floating("x")
def softmax(x: Tensor, axis: int = 1) -> Tensor:
    """exp(x) / sum exp(x) along an axis: positive numbers with the sum 1. Any shape."""
    return Softmax(axis_of("softmax", x, axis))(x)


@floating("x")
def log_softmax(x: Tensor, axis: int = 1) -> Tensor:
    """The logarithm of softmax, computed without rounding small probabilities to zero. Any shape."""
    return LogSoftmax(axis_of("log_softmax", x, axis))(x)


@floating("logits")
def cross_entropy(
    logits: Tensor,
    labels: Any,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    *,
    weight: None = None,
    ignore_index: int = -100,
) -> Tensor:
    """-log softmax(logits)[label]: logits (N, C), labels (N,) an integer array -> a number, or (N,) with reduction "none".

    logits are the last layer's outputs, before softmax. reduction: "mean", "sum" or "none".
    """
    require_only("cross_entropy", weight=(weight, None), ignore_index=(ignore_index, -100))
    labels = get_array_module(logits.data).array(labels.data if isinstance(labels, Tensor) else as_array(labels))  # a copy
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"cross_entropy takes logits (N, C) and labels (N,); got {logits.shape} and {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"cross_entropy takes integer labels; got {labels.dtype}")
    label_smoothing = number(label_smoothing, "label_smoothing")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy takes label_smoothing between 0 and 1; got {label_smoothing}")
    return _reduced("cross_entropy", CrossEntropy(labels, label_smoothing)(logits), reduction)


@floating("x", "target")
def mse_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(x - target)^2, for two tensors of one shape -> a number, or that shape with reduction "none".

    reduction: "mean" over all elements, "sum" or "none".
    """
    if x.shape != target.shape:
        raise ValueError(f"mse_loss takes x and target of one shape; got {x.shape} and {target.shape}")
    return _reduced("mse_loss", SquaredError()(x, target), reduction)


def _reduced(function: str, loss: Tensor, reduction: str) -> Tensor:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'{function} takes reduction "mean", "sum" or "none"; got {reduction!r}')
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss
