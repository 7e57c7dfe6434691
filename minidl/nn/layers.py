"""The layers. Each holds its settings and parameters, and calls its function.

Settings have PyTorch's names. A setting with a single possible value here, such as dilation=1, accepts that value and raises
ValueError for others. inplace is accepted and has no effect: no layer overwrites its input.
"""

from typing import Any

import numpy as np

from .. import functional as F
from ..autodiff import Tensor
from ..backend import Array
from ..functional.arguments import as_tensor, is_integer, pair, require_4d, require_only
from . import init
from .module import Module, Parameter

Size2d = int | tuple[int, int]


def _require_integers(layer: Module, at_least: int, **settings: int) -> None:
    for name, value in settings.items():
        if not is_integer(value, at_least):
            raise ValueError(f"{type(layer).__name__} takes an integer of at least {at_least} as {name}; got {value!r}")


class Conv2d(Module):
    """Convolution of x (N, in_channels, H, W); weight (out_channels, in_channels / groups, KH, KW), see functional.conv2d.

    padding: an integer, a pair for H and W, "valid" for none, or "same" for an output of the image's size.
    Initial weights: init.kaiming_normal_ for the weight, zero for the bias. device and dtype as in Module.to.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2d,
        stride: Size2d = 1,
        padding: Size2d | str = 0,
        *,
        dilation: Size2d = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: Any = None,
    ):
        _require_integers(self, 1, in_channels=in_channels, out_channels=out_channels, groups=groups)
        require_only("Conv2d", dilation=(pair(dilation, "dilation"), (1, 1)), padding_mode=(padding_mode, "zeros"))
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} does not divide {in_channels} input and {out_channels} output channels")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = pair(kernel_size, "kernel_size"), pair(stride, "stride")
        if isinstance(padding, str):
            if padding not in ("valid", "same"):
                raise ValueError(f'padding must be an integer, a pair of them, "valid" or "same"; got {padding!r}')
            if padding == "same" and self.stride != (1, 1):
                raise ValueError(f'Conv2d takes padding="same" with a stride of 1; got stride {stride}')
            self.padding: Any = padding
        else:
            self.padding = pair(padding, "padding", at_least=0)
        self.weight = Parameter(np.zeros((out_channels, in_channels // groups, *self.kernel_size), np.float32))
        init.kaiming_normal_(self.weight)
        self.bias = Parameter(np.zeros(out_channels, np.float32)) if bias else None
        self.to(device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)

    def extra_repr(self) -> str:
        shown = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        shown += f", padding={self.padding}" if self.padding != (0, 0) else ""
        shown += f", groups={self.groups}" if self.groups != 1 else ""
        return shown + (", bias=False" if self.bias is None else "")


class Linear(Module):
    """y = x W^T + b for x (..., in_features); weight (out_features, in_features), bias (out_features,).

    Initial weights: init.kaiming_normal_ for the weight, zero for the bias. device and dtype as in Module.to.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: str | None = None, dtype: Any = None):
        _require_integers(self, 0, in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(np.zeros((out_features, in_features), np.float32))
        init.kaiming_normal_(self.weight)
        self.bias = Parameter(np.zeros(out_features, np.float32)) if bias else None
        self.to(device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class MaxPool2d(Module):
    """The largest value of each window, see functional.max_pool2d."""

    def __init__(
        self,
        kernel_size: Size2d,
        stride: Size2d | None = None,
        padding: Size2d = 0,
        *,
        dilation: Size2d = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        require_only("MaxPool2d", dilation=(pair(dilation, "dilation"), (1, 1)), return_indices=(return_indices, False))
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, ceil_mode=self.ceil_mode)

    def extra_repr(self) -> str:
        sizes = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{sizes}, dilation=1, ceil_mode={self.ceil_mode}"


class AvgPool2d(Module):
    """The mean of each window, see functional.avg_pool2d."""

    def __init__(
        self,
        kernel_size: Size2d,
        stride: Size2d | None = None,
        padding: Size2d = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """Average pooling to a given output_size for any image size, see functional.adaptive_avg_pool2d."""

    def __init__(self, output_size: int | tuple[int | None, int | None]):
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class BatchNorm(Module):
    """The base of the batch normalisation layers, for x (N, num_features, ...), see functional.batch_norm.

    momentum None: the running statistics are the mean over all batches so far. device and dtype as in Module.to.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ):
        _require_integers(self, 0, num_features=num_features)
        require_only(type(self).__name__, affine=(affine, True), track_running_stats=(track_running_stats, True))
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = Parameter(np.ones(num_features, np.float32))
        self.bias = Parameter(np.zeros(num_features, np.float32))
        self.running_mean: Array
        self.running_var: Array
        self.num_batches_tracked: Array
        self.register_buffer("running_mean", np.zeros(num_features, np.float32))
        self.register_buffer("running_var", np.ones(num_features, np.float32))
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64))
        self.to(device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked += 1
        momentum = 1 / max(1, self.num_batches_tracked.item()) if self.momentum is None else self.momentum
        return self.normalize(x, momentum)

    def normalize(self, x: Tensor, momentum: float) -> Tensor:
        """Normalise x: in training by the batch's statistics, updating the running ones; else by the running statistics."""
        state = self.running_mean, self.running_var, self.weight, self.bias
        return F.batch_norm(x, *state, self.training, momentum, self.eps)

    def extra_repr(self) -> str:
        settings = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
        return f"{settings}, affine=True, track_running_stats=True"


class BatchNorm1d(BatchNorm):
    """Batch normalisation of x (N, num_features) or (N, num_features, L), see functional.batch_norm."""

    def forward(self, x: Tensor) -> Tensor:
        x = as_tensor(x)
        if x.ndim not in (2, 3):
            raise ValueError(f"BatchNorm1d takes x of shape (N, C) or (N, C, L); got {x.shape}")
        return super().forward(x)


class BatchNorm2d(BatchNorm):
    """Batch normalisation of x (N, num_features, H, W), see functional.batch_norm."""

    def forward(self, x: Tensor) -> Tensor:
        x = as_tensor(x)
        require_4d(x, "BatchNorm2d")
        return super().forward(x)


class LocalResponseNorm(Module):
    """Local response normalisation (Krizhevsky 2012, section 3.3), see functional.local_response_norm."""

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        convention: str = "pytorch",
        *,
        groups: int = 1,
    ):
        _require_integers(self, 1, groups=groups)
        self.size, self.alpha, self.beta, self.k, self.convention, self.groups = size, alpha, beta, k, convention, groups

    def forward(self, x: Tensor) -> Tensor:
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k, self.convention, groups=self.groups)

    def extra_repr(self) -> str:
        settings = f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
        settings += f", convention={self.convention}" if self.convention != "pytorch" else ""
        return settings + (f", groups={self.groups}" if self.groups != 1 else "")


class ReLU(Module):
    """max(x, 0)."""

    def __init__(self, inplace: bool = False):
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x)


class Sigmoid(Module):
    """The logistic function."""

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x)


class Dropout(Module):
    """Set each element to zero with probability p in training; the identity in evaluation. See functional.dropout."""

    def __init__(self, p: float = 0.5, inplace: bool = False):
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout takes a probability p between 0 and 1; got {p}")
        self.p, self.inplace = p, inplace

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Flatten(Module):
    """(N, C, H, W) -> (N, C * H * W): the axes from start_dim to end_dim become one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        return F.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Returns x unchanged. It can replace a layer that is to be left out: it accepts any arguments and ignores them."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def forward(self, x: Tensor) -> Tensor:
        return x


class CrossEntropyLoss(Module):
    """The loss of logits (N, C) and labels (N,), see functional.cross_entropy."""

    def __init__(self, *, label_smoothing: float = 0.0, reduction: str = "mean", weight: None = None, ignore_index: int = -100):
        require_only("CrossEntropyLoss", weight=(weight, None), ignore_index=(ignore_index, -100))
        self.label_smoothing, self.reduction = label_smoothing, reduction

    def forward(self, logits: Tensor, labels: Tensor | Array) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction=self.reduction)


class MSELoss(Module):
    """The mean of the squared differences of x and target, of the same shape, see functional.mse_loss."""

    def __init__(self, *, reduction: str = "mean"):
        self.reduction = reduction

    def forward(self, x: Tensor, target: Tensor | Array) -> Tensor:
        return F.mse_loss(x, target, reduction=self.reduction)
