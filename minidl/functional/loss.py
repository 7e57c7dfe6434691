"""Softmax and the cross-entropy of it."""

from ..autodiff import Function, Tensor
from ..backend import Array, as_array, from_batch_last, get_array_module, to_batch_last
from ..kernels import kernels_for


def _log_softmax(x: Array, axis: int) -> Array:
    """x - log sum exp(x); the largest x is taken away first, so that nothing overflows."""
    xp = get_array_module(x)
    x = x - x.max(axis=axis, keepdims=True)
    return x - xp.log(xp.exp(x).sum(axis=axis, keepdims=True))


class Softmax(Function):
    """y_i = exp(x_i) / sum_j exp(x_j);  dx_i = y_i (dy_i - sum_j dy_j y_j)."""

    def __init__(self, axis: int):
        self.axis = axis

    def forward(self, x):
        self.y = get_array_module(x).exp(_log_softmax(x, self.axis))
        return self.y

    def backward(self, grad):
        return self.y * (grad - (grad * self.y).sum(axis=self.axis, keepdims=True))


class LogSoftmax(Function):
    """y_i = x_i - log sum_j exp(x_j);  dx_i = dy_i - exp(y_i) sum_j dy_j."""

    def __init__(self, axis: int):
        self.axis = axis

    def forward(self, x):
        self.y = _log_softmax(x, self.axis)
        return self.y

    def backward(self, grad):
        return grad - get_array_module(grad).exp(self.y) * grad.sum(axis=self.axis, keepdims=True)


class CrossEntropy(Function):
    """L_n = -sum_c t_nc log p_nc,  p = softmax(x),  t = 1 at the label and 0 elsewhere;  dx_nc = dL_n (p_nc - t_nc).

    Softmax and logarithm together have this simple gradient, and never take the logarithm of a rounded zero. With label
    smoothing e, t is (1 - e) of that and e / C everywhere (Szegedy et al. 2016, section 7).
    """

    def __init__(self, labels: Array, label_smoothing: float):
        self.labels, self.label_smoothing = labels, label_smoothing

    def forward(self, x):
        log_p = _log_softmax(to_batch_last(x), axis=0)
        self.p = get_array_module(x).exp(log_p)
        e = self.label_smoothing
        loss = -(1 - e) * kernels_for(x).at_labels(log_p, self.labels)
        return loss - e * log_p.mean(axis=0) if e else loss

    def backward(self, grad):
        e = self.label_smoothing
        dx = self.p - e / len(self.p)
        kernels_for(dx).subtract_at_labels(dx, self.labels, 1 - e)
        return from_batch_last(dx * grad)


def softmax(x: Tensor, axis: int = 1) -> Tensor:
    """exp(x) / sum exp(x) along an axis: positive numbers that add up to 1. Any shape."""
    return Softmax(axis)(x)


def log_softmax(x: Tensor, axis: int = 1) -> Tensor:
    """The logarithm of softmax, computed without rounding small probabilities to zero. Any shape."""
    return LogSoftmax(axis)(x)


def cross_entropy(logits: Tensor, labels, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
    """-log softmax(logits)[label]: logits (N, C), labels (N,) an integer array -> a number, or (N,) with reduction "none".

    logits are the last layer's outputs, with no softmax of their own. reduction: "mean", "sum" or "none".
    """
    labels = get_array_module(logits.data).asarray(labels.data if isinstance(labels, Tensor) else as_array(labels))
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"cross_entropy takes logits (N, C) and labels (N,); got {logits.shape} and {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"cross_entropy takes integer labels; got {labels.dtype}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy takes label_smoothing between 0 and 1; got {label_smoothing}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'cross_entropy takes reduction "mean", "sum" or "none"; got {reduction!r}')
    loss = CrossEntropy(labels, label_smoothing)(logits)
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss
