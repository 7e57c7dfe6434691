"""Batch normalisation, and local response normalisation."""

from typing import Any

from ..autodiff import Function, Tensor
from ..backend import Array, from_batch_last, get_array_module, to_batch_last
from ..kernels import kernels_for
from .arguments import is_integer, require_4d


class BatchNorm(Function):
    """y = gamma xhat + beta,  xhat = (x - mean) / sqrt(var + eps), for each channel; Ioffe and Szegedy 2015, algorithm 1.

    mean and var are those of the m = N H W values of the channel, so every x has a part in them, and
    dgamma = sum dy xhat,  dbeta = sum dy,  dx = gamma / sqrt(var + eps) (dy - dbeta / m - xhat dgamma / m).
    Given mean and var from outside (the running ones, in evaluation), they are constants and the last two terms are gone.
    With a communicator the batch is that of all ranks: mean, var and m, and in dx the sums dgamma and dbeta.
    """

    def __init__(self, eps: float, mean: Array = None, var: Array = None, communicator: Any = None):
        self.eps = eps
        self.mean, self.var = mean, var
        self.statistics_of_batch = mean is None
        self.communicator = communicator

    def forward(self, x, weight, bias):
        self.x = to_batch_last(x)
        self.weight = weight
        kernels, xp = kernels_for(x), get_array_module(x)
        if self.statistics_of_batch:
            self.mean, squares = kernels.channel_statistics(self.x)
            self.count = self.x.size // len(self.x)
            if self.communicator is not None:
                self.count, self.mean, squares = _of_all_ranks(self.communicator, self.count, self.mean, squares)
            elif self.count == 0:
                self.count = 1
            self.var = squares / self.count
        inverse_std = 1 / xp.sqrt(self.var + self.eps)
        self.inverse_std = inverse_std.astype(x.dtype)
        scale = weight * inverse_std
        shift = bias - self.mean * scale
        return from_batch_last(kernels.scale_and_shift(self.x, scale.astype(x.dtype), shift.astype(x.dtype)))

    def backward(self, grad):
        kernels, grad = kernels_for(grad), to_batch_last(grad)
        mean = self.mean.astype(grad.dtype)
        dbias, dweight = kernels.batch_norm_sums(grad, self.x, mean, self.inverse_std)
        dx = None
        if self.needs_grad[0]:
            sums = get_array_module(grad).stack([dbias, dweight])
            if self.communicator is not None:
                self.communicator.all_reduce(sums)
            m = self.count if self.statistics_of_batch else float("inf")
            scale = self.weight * self.inverse_std
            dx = kernels.batch_norm_gradient(grad, self.x, mean, self.inverse_std, scale, *(sums / m).astype(grad.dtype))
            dx = from_batch_last(dx)
        return dx, dweight, dbias


def _of_all_ranks(communicator, count: int, mean: Array, squares: Array):
    """Count, mean and sum of squared distances (M2) of the values of all ranks, from those of each; Chan et al. 1979.

    Merged in this way, and not as E[x^2] - E[x]^2, they lose no digits where the mean is large.
    """
    xp, C = get_array_module(mean), len(mean)
    of_each = communicator.all_gather(xp.concatenate([xp.full(1, count, mean.dtype), mean, squares]))
    counts, means, squares = of_each[:, :1], of_each[:, 1 : C + 1], of_each[:, C + 1 :]
    count = counts.sum()
    mean = (counts * means).sum(axis=0) / count
    return count, mean, (squares + counts * (means - mean) ** 2).sum(axis=0)


def batch_norm(
    x: Tensor,
    running_mean: Array = None,
    running_var: Array = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    communicator: Any = None,
) -> Tensor:
    """Normalise each channel of x (N, C, ...); weight, bias, running_mean and running_var are (C,).

    training: use the batch's statistics, and move the running ones (if given) towards them, in place, by `momentum`; the
    running variance is the unbiased one, with m - 1. Otherwise use the running ones. communicator: x is a shard, perhaps an
    empty one, of a batch that these ranks have together, whose statistics are used (see minidl.parallel).
    """
    if x.ndim < 2:
        raise ValueError(f"batch_norm takes x of shape (N, C, ...); got {x.shape}")
    C = x.shape[1]
    for name, value in {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}.items():
        if value is not None and value.shape != (C,):
            raise ValueError(f"batch_norm of x {x.shape} takes {name} of shape ({C},); got {value.shape}")
    xp = get_array_module(x.data)
    weight = Tensor(xp.ones(C, x.dtype)) if weight is None else weight
    bias = Tensor(xp.zeros(C, x.dtype)) if bias is None else bias
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm outside training needs running_mean and running_var")
        return BatchNorm(eps, running_mean.copy(), running_var.copy())(x, weight, bias)
    if x.data.size == C and communicator is None:
        raise ValueError(f"batch_norm in training needs more than one value a channel; got x {x.shape}")
    function = BatchNorm(eps, communicator=communicator)
    y = function(x, weight, bias)
    m = function.count
    if running_mean is not None:
        running_mean += momentum * (function.mean - running_mean)
    if running_var is not None:
        running_var += momentum * (function.var * (m / xp.maximum(1, m - 1)) - running_var)
    return y


class LocalResponseNorm(Function):
    """y_c = x_c / s_c^beta,  s_c = k + a sum of x_j^2 over the channels j around c; the paper's section 3.3.

    The window is `before` channels before c to `after` behind it. x_c is in y_c directly, and in every s_j whose window holds
    c: dx_c = dy_c / s_c^beta - 2 a beta x_c  sum over those j of dy_j x_j / s_j^(beta + 1).
    """

    def __init__(self, before: int, after: int, a: float, beta: float, k: float):
        self.window = before, after, a, beta
        self.k = k

    def forward(self, x):
        self.x = to_batch_last(x)
        y, self.s = kernels_for(x).local_response_norm(self.x, *self.window, self.k)
        return from_batch_last(y)

    def backward(self, grad):
        dx = kernels_for(grad).local_response_norm_gradient(to_batch_last(grad), self.x, self.s, *self.window)
        return from_batch_last(dx)


# What size and alpha stand for: (channels before, channels behind, what the sum of squares is multiplied by).
LRN_CONVENTIONS = {
    "pytorch": lambda size, alpha: (size // 2, (size - 1) // 2, alpha / size),
    "paper": lambda size, alpha: (size // 2, size // 2, alpha),
    "tensorflow": lambda size, alpha: (size, size, alpha),
}


def local_response_norm(
    x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, convention: str = "pytorch"
) -> Tensor:
    """Divide each activation of x (N, C, H, W) by a power of what neighbouring channels hold at the same place.

    Three conventions call different things alike; all divide by (k + a sum x^2)^beta:

    "pytorch"     size channels, the extra one of an even size before; a = alpha / size. So computes the 2012 paper's own
                  code (cuda-convnet's cross-map normalisation), and so do torch.nn.LocalResponseNorm
                  and, for odd sizes, Caffe and ONNX.
                  The paper's net is size 5, alpha 1e-4, beta 0.75, k 2.
    "paper"       the formula that section 3.3 prints: from c - n // 2 to c + n // 2 for n = size, and a = alpha, which is n
                  times stronger.
    "tensorflow"  tf.nn.local_response_normalization: size is its depth_radius, from c - size to c + size; a = alpha, and k
                  is its bias. Its defaults are size 5, alpha 1, beta 0.5, k 1.
    """
    require_4d(x, "local_response_norm")
    if not is_integer(size, 1):
        raise ValueError(f"local_response_norm takes a size, an integer of at least 1; got {size!r}")
    if not isinstance(convention, str) or convention not in LRN_CONVENTIONS:
        raise ValueError(f"local_response_norm takes a convention of {', '.join(LRN_CONVENTIONS)}; got {convention!r}")
    return LocalResponseNorm(*LRN_CONVENTIONS[convention](size, alpha), beta, k)(x)
