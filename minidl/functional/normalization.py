"""Batch normalisation, and local response normalisation."""

from typing import Any

from ..autodiff import Function, Tensor
from ..backend import Array, get_array_module
from ..kernels import kernels_for
from .arguments import as_tensor, floating, is_integer, number, require_4d


class BatchNorm(Function):
    """y = gamma xhat + beta,  xhat = (x - mean) / sqrt(var + eps), for each channel; Ioffe and Szegedy 2015, algorithm 1.

    mean and var are those of the m = N H W values of the channel. They depend on every x, so
    dgamma = sum dy xhat,  dbeta = sum dy,  dx = gamma / sqrt(var + eps) (dy - dbeta / m - xhat dgamma / m).
    """

    def __init__(self, eps: float):
        self.eps = eps

    def statistics(self, x: Array) -> tuple:
        """m, and for each channel the mean and the sum of squared deviations from it."""
        return max(1, x.size // max(1, x.shape[1])), *self.kernels.channel_statistics(x)

    def over_batch(self, sums: Array) -> Array:
        """Sums over the whole batch, from the sums over x. Here x is the whole batch; SyncBatchNorm overrides this."""
        return sums

    def forward(self, x, weight, bias):
        self.x, self.weight, self.kernels = x, weight, kernels_for(x)
        self.count, self.mean, squares = self.statistics(x)
        self.var = squares / self.count
        self.inverse_std = ((self.var + self.eps) ** -0.5).astype(x.dtype)
        return self.kernels.scale_and_shift(x, *_scale_and_shift(self.mean, self.var, self.eps, weight, bias))

    def backward(self, grad):
        mean = self.mean.astype(grad.dtype)
        dbias, dweight = self.kernels.batch_norm_sums(grad, self.x, mean, self.inverse_std)
        dx = None
        if self.needs_grad[0]:
            means = self.over_batch(get_array_module(grad).stack([dbias, dweight])) / self.count
            scale = self.weight * self.inverse_std
            dx = self.kernels.batch_norm_backward(grad, self.x, mean, self.inverse_std, scale, *means.astype(grad.dtype))
        return dx, dweight, dbias


class BatchNormInference(Function):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, with constant mean and var: batch norm in evaluation.

    dx = dy gamma / sqrt(var + eps),  dgamma = sum dy (x - mean) / sqrt(var + eps),  dbeta = sum dy.
    """

    def __init__(self, mean: Array, var: Array, eps: float):
        self.mean, self.var, self.eps = mean, var, eps

    def forward(self, x, weight, bias):
        self.x, self.kernels = x, kernels_for(x)
        self.scale, shift = _scale_and_shift(self.mean, self.var, self.eps, weight, bias)
        return self.kernels.scale_and_shift(x, self.scale, shift)

    def backward(self, grad):
        inverse_std = ((self.var + self.eps) ** -0.5).astype(grad.dtype)
        dbias, dweight = self.kernels.batch_norm_sums(grad, self.x, self.mean.astype(grad.dtype), inverse_std)
        return self.kernels.scale_and_shift(grad, self.scale, get_array_module(grad).zeros_like(self.scale)), dweight, dbias


def _scale_and_shift(mean, var, eps, weight, bias):
    """a and b such that gamma (x - mean) / sqrt(var + eps) + beta = a x + b."""
    scale = weight / get_array_module(var).sqrt(var + eps)
    return scale.astype(weight.dtype), (bias - mean * scale).astype(weight.dtype)


@floating("x", "weight", "bias")
def batch_norm(
    x: Tensor,
    running_mean: Array = None,
    running_var: Array = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of x (N, C, ...); weight, bias, running_mean and running_var are (C,).

    training: normalise by the batch's statistics, and update the running statistics in place, if they are given (arrays or
    Tensors): running += momentum (batch - running). The running variance is the unbiased one, with m - 1. Otherwise
    normalise by the running statistics.
    """
    momentum, eps = number(momentum, "momentum"), number(eps, "eps")
    if not eps >= 0:
        raise ValueError(f"batch_norm takes an eps of at least 0; got {eps}")
    if training and x.ndim > 1 and x.data.size == x.shape[1] > 0:
        raise ValueError(f"batch_norm in training needs more than one value a channel; got x {x.shape}")
    if training and not x.data.size:
        running_mean = running_var = None  # an empty batch has no mean
    return normalize_channels(BatchNorm(eps) if training else None, x, running_mean, running_var, weight, bias, momentum, eps)


@floating("x", "weight", "bias")
def normalize_channels(
    function: BatchNorm | None,
    x: Tensor,
    running_mean: Array,
    running_var: Array,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """batch_norm by this function, which updates the running statistics; if it is None, by the running statistics."""
    if x.ndim < 2:
        raise ValueError(f"batch_norm takes x of shape (N, C, ...); got {x.shape}")
    C, xp = x.shape[1], get_array_module(x.data)
    tensors = [t for t in (running_mean, running_var) if isinstance(t, Tensor)]
    running_mean = _statistics("running_mean", running_mean, function is not None)
    running_var = _statistics("running_var", running_var, function is not None)
    for name, value in {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}.items():
        if value is not None and value.shape != (C,):
            raise ValueError(f"batch_norm of x {x.shape} takes {name} of shape ({C},); got {value.shape}")
    weight = Tensor(xp.ones(C, x.dtype)) if weight is None else weight
    bias = Tensor(xp.zeros(C, x.dtype)) if bias is None else bias
    if function is None:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm outside training needs running_mean and running_var")
        return BatchNormInference(running_mean.copy(), running_var.copy(), eps)(x, weight, bias)
    y = function(x, weight, bias)
    m = function.count
    if running_mean is not None:
        running_mean += momentum * (function.mean - running_mean)
    if running_var is not None:
        running_var += momentum * (function.var * (m / xp.maximum(1, m - 1)) - running_var)
    for tensor in tensors:
        tensor.version += 1
    return y


def _statistics(name: str, value: Any, written: bool) -> Array:
    """A running mean or variance as an array. If it is to be updated, it must be an array or Tensor of the caller's."""
    if value is None:
        return None
    if written and isinstance(value, (list, tuple)):
        raise TypeError(f"batch_norm in training updates {name}, so it cannot be a list; give an array or a Tensor")
    array = as_tensor(value).data
    if array.dtype.kind != "f":
        raise TypeError(f"batch_norm takes a {name} of floating-point numbers; got {array.dtype}")
    return array


class LocalResponseNorm(Function):
    """y_c = x_c / s_c^beta,  s_c = k + a sum of x_j^2 over the channels j around c; Krizhevsky 2012, section 3.3.

    The window goes from c - before to c + after. x_c occurs in y_c directly, and in every s_j whose window contains c:
    dx_c = dy_c / s_c^beta - 2 a beta x_c  sum over those j of dy_j x_j / s_j^(beta + 1).
    With groups of channels, a window stays inside one group.
    """

    def __init__(self, before: int, after: int, a: float, beta: float, k: float, groups: int):
        self.window = before, after, a, beta
        self.k, self.groups = k, groups

    def forward(self, x):
        self.x, self.kernels = x, kernels_for(x)
        y, self.s = self.kernels.local_response_norm(x, *self.window, self.k, self.groups)
        return y

    def backward(self, grad):
        return self.kernels.local_response_norm_backward(grad, self.x, self.s, *self.window, self.groups)


# What size and alpha mean in each convention: (channels before, channels after, the factor of the sum of squares).
LRN_CONVENTIONS = {
    "pytorch": lambda size, alpha: (size // 2, (size - 1) // 2, alpha / size),
    "paper": lambda size, alpha: (size // 2, size // 2, alpha),
    "tensorflow": lambda size, alpha: (size, size, alpha),
}


@floating("x")
def local_response_norm(
    x: Tensor,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    convention: str = "pytorch",
    *,
    groups: int = 1,
) -> Tensor:
    """Divide each activation of x (N, C, H, W) by (k + a sum x^2)^beta, summed over neighbouring channels at its position.

    The three conventions give the same argument names different meanings:

    "pytorch"     `size` channels; an even size takes the extra channel before c. a = alpha / size. This is the convention of
                  torch.nn.LocalResponseNorm, of the code of Krizhevsky 2012 (the cross-map normalisation of cuda-convnet)
                  and, for odd sizes, of Caffe and ONNX. The network of Krizhevsky 2012 has size 5, alpha 1e-4, beta 0.75,
                  k 2.
    "paper"       the formula as printed in Krizhevsky 2012, section 3.3: from c - n // 2 to c + n // 2 for n = size, and
                  a = alpha, which is n times larger.
    "tensorflow"  tf.nn.local_response_normalization: size is its depth_radius, from c - size to c + size; a = alpha, and k
                  is its bias. Its defaults are size 5, alpha 1, beta 0.5, k 1.

    groups: the channels are divided into this many groups, and each is normalised by itself. Krizhevsky 2012 has 2, as each
    of its two GPUs normalised the feature maps that it had computed.
    """
    require_4d(x, "local_response_norm")
    if not is_integer(size, 1):
        raise ValueError(f"local_response_norm takes a size, an integer of at least 1; got {size!r}")
    if not isinstance(convention, str) or convention not in LRN_CONVENTIONS:
        raise ValueError(f"local_response_norm takes a convention of {', '.join(LRN_CONVENTIONS)}; got {convention!r}")
    if not is_integer(groups, 1) or x.shape[1] % groups:
        raise ValueError(f"local_response_norm takes groups that divide the {x.shape[1]} channels of x; got {groups!r}")
    alpha, beta, k = number(alpha, "alpha"), number(beta, "beta"), number(k, "k")
    return LocalResponseNorm(*LRN_CONVENTIONS[convention](size, alpha), beta, k, groups)(x)
