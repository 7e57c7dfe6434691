"""Differentiable functions of tensors. Names, arguments and numerical conventions are PyTorch's."""

from .activation import relu, sigmoid, tanh
from .convolution import conv2d, convolution_algorithm
from .loss import cross_entropy, log_softmax, mse_loss, softmax
from .normalization import batch_norm, local_response_norm
from .padding import pad
from .pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from .products import linear
from .regularization import dropout
from .shapes import cat, flatten, stack

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "cat",
    "conv2d",
    "convolution_algorithm",
    "cross_entropy",
    "dropout",
    "flatten",
    "linear",
    "local_response_norm",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "pad",
    "relu",
    "sigmoid",
    "softmax",
    "stack",
    "tanh",
]
