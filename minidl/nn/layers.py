"""The layers. Each holds its settings and parameters, and calls its function."""

import numpy as np

from .. import functional as F
from ..backend import Array
from ..functional.arguments import pair, require_4d
from . import init
from .module import Module, Parameter


class Conv2d(Module):
    """Convolution of x (N, in_channels, H, W); weight (out_channels, in_channels / groups, KH, KW), see functional.conv2d.

    The weight starts from He's normal distribution, the bias from zero.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, *, groups: int = 1, bias: bool = True
    ):
        kernel_size = pair(kernel_size, "kernel_size")
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} does not divide {in_channels} input and {out_channels} output channels")
        self.stride, self.padding, self.groups = pair(stride, "stride"), pair(padding, "padding", at_least=0), groups
        self.weight = Parameter(np.empty((out_channels, in_channels // groups, *kernel_size), np.float32))
        init.kaiming_normal_(self.weight)
        self.bias = Parameter(np.zeros(out_channels, np.float32)) if bias else None

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)


class Linear(Module):
    """y = x W^T + b for x (N, in_features); weight (out_features, in_features), He's normal distribution, bias zero."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        self.weight = Parameter(np.empty((out_features, in_features), np.float32))
        init.kaiming_normal_(self.weight)
        self.bias = Parameter(np.zeros(out_features, np.float32)) if bias else None

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class MaxPool2d(Module):
    """The largest value of each window, see functional.max_pool2d."""

    def __init__(self, kernel_size, stride=None, padding=0, *, ceil_mode: bool = False):
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode

    def forward(self, x):
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, ceil_mode=self.ceil_mode)


class AvgPool2d(Module):
    """The mean of each window, see functional.avg_pool2d."""

    def __init__(
        self,
        kernel_size,
        stride=None,
        padding=0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, x):
        return F.avg_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override
        )


class AdaptiveAvgPool2d(Module):
    """Means over as many windows as output_size says, whatever the image's size; see functional.adaptive_avg_pool2d."""

    def __init__(self, output_size):
        self.output_size = output_size

    def forward(self, x):
        return F.adaptive_avg_pool2d(x, self.output_size)


class BatchNorm2d(Module):
    """Batch normalisation of x (N, num_features, H, W), see functional.batch_norm."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1):
        self.eps, self.momentum = eps, momentum
        self.weight = Parameter(np.ones(num_features, np.float32))
        self.bias = Parameter(np.zeros(num_features, np.float32))
        self.running_mean: Array
        self.running_var: Array
        self.num_batches_tracked: Array
        self.register_buffer("running_mean", np.zeros(num_features, np.float32))
        self.register_buffer("running_var", np.ones(num_features, np.float32))
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64))

    def forward(self, x):
        require_4d(x, "BatchNorm2d")
        if self.training:
            self.num_batches_tracked += 1
        return self.normalize(x, self.momentum)

    def normalize(self, x, momentum):
        state = self.running_mean, self.running_var, self.weight, self.bias
        return F.batch_norm(x, *state, self.training, momentum, self.eps)


class LocalResponseNorm(Module):
    """The paper's local response normalisation, see functional.local_response_norm."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, convention: str = "pytorch"):
        self.size, self.alpha, self.beta, self.k, self.convention = size, alpha, beta, k, convention

    def forward(self, x):
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k, self.convention)


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x):
        return F.relu(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x):
        return F.tanh(x)


class Sigmoid(Module):
    """The logistic function."""

    def forward(self, x):
        return F.sigmoid(x)


class Dropout(Module):
    """Zero with probability p in training, nothing in evaluation; see functional.dropout."""

    def __init__(self, p: float = 0.5):
        self.p = p

    def forward(self, x):
        return F.dropout(x, self.p, self.training)


class Flatten(Module):
    """(N, C, H, W) -> (N, C * H * W)."""

    def forward(self, x):
        return F.flatten(x)
