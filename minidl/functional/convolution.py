"""Convolution (strictly a cross-correlation, as everywhere in deep learning)."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

from ..autodiff import Function, Tensor
from ..kernels import kernels_for
from ..kernels.windows import output_size
from .arguments import floating, is_integer, pair, require_only, require_pixels
from .padding import pad


class Conv2d(Function):
    """y[n, o, h, w] = b[o] + sum over c, i, j of W[o, c, i, j] xpad[n, c, h s + i, w s + j]

    im2col copies the patch that output (h, w) of image n reads into one column of a matrix P (C KH KW, OH OW N). Then
    Y = W P + b;  dW = dY P^T,  db = sum of dY over all positions,  dP = W^T dY.
    col2im adds dP back to the pixels it came from: a pixel that several outputs read gets the sum. That is dx.
    With groups, each group of output channels reads its own group of input channels only.
    winograd_tile: None for im2col, or the m of Winograd's algorithm for the same result, see kernels/winograd.py.
    """

    def __init__(self, stride: tuple[int, int], padding: tuple[int, int], groups: int, winograd_tile: int | None):
        self.geometry, self.winograd_tile = (stride, padding, groups), winograd_tile

    def forward(self, x, weight, bias):
        self.x, self.weight, self.kernels = x, weight, kernels_for(x)
        return self.kernels.conv2d(x, weight, bias, *self.geometry, self.winograd_tile)

    def backward(self, grad):
        options = self.winograd_tile, self.needs_grad, self.buffers[1]
        return self.kernels.conv2d_backward(grad, self.x, self.weight, *self.geometry, *options)


_algorithm = contextvars.ContextVar("convolution_algorithm", default="auto")


@contextlib.contextmanager
def convolution_algorithm(name: str) -> Iterator[None]:
    """Choose the algorithm of convolutions inside `with convolution_algorithm("im2col"):`.

    "auto", the default, takes Winograd's algorithm for the shapes for which it is faster, else im2col. The results differ
    by rounding only, if the numbers are finite and below about 1e30. Winograd computes tiles of pixels together: a NaN or
    infinite pixel makes its whole tile NaN, and a very large one makes the rest of its tile less accurate.
    """
    if name not in ("auto", "im2col"):
        raise ValueError(f'convolution_algorithm takes "auto" or "im2col"; got {name!r}')
    token = _algorithm.set(name)
    try:
        yield
    finally:
        _algorithm.reset(token)


@floating("x", "weight", "bias")
def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    *,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """x (N, C, H, W), weight (O, C / groups, KH, KW), bias (O,) -> (N, O, OH, OW), OH = (H + 2 padding - KH) // stride + 1.

    stride and padding: an integer, or a pair for H and W. padding "valid" is 0. "same" gives OH = H and OW = W and needs
    stride 1; for an even kernel size it adds one more row or column of zeros after the image than before it.
    """
    require_pixels(x, "conv2d")
    require_only("conv2d", dilation=(pair(dilation, "dilation"), (1, 1)))
    stride = pair(stride, "stride")
    if weight.ndim != 4:
        raise ValueError(f"conv2d takes a weight of shape (O, C / groups, KH, KW); got {weight.shape}")
    x, padding = _padded(x, weight.shape[2:], stride, padding)
    (_, C, H, W), (O, CG, KH, KW) = x.shape, weight.shape
    if not is_integer(groups, 1):
        raise ValueError(f"conv2d takes groups, an integer of at least 1; got {groups!r}")
    if not (CG and O) or CG * groups != C or O % groups:
        raise ValueError(
            f"conv2d with groups={groups} takes weights of {groups} x {CG} = {groups * CG} input channels and a multiple "
            f"of {groups} outputs; got x {x.shape} and weight {weight.shape}"
        )
    if not (KH and KW) or any(output_size(*axis) < 1 for axis in zip((H, W), (KH, KW), stride, padding, strict=True)):
        raise ValueError(f"conv2d: the kernel {(KH, KW)} does not fit the image {(H, W)} with padding {padding}")
    if bias is not None and bias.shape != (O,):
        raise ValueError(f"conv2d takes a bias of shape ({O},); got {bias.shape}")
    tile = None
    if _algorithm.get() == "auto":
        tile = kernels_for(x.data).winograd_tile((H, W), weight.shape, stride, padding, groups, x.dtype)
    return Conv2d(stride, padding, groups, tile)(x, weight, bias)


def _padded(x: Tensor, kernel_size, stride, padding) -> tuple[Tensor, tuple[int, int]]:
    """x and padding as a pair. Padding that is not symmetric is added to x here."""
    if not isinstance(padding, str):
        return x, pair(padding, "padding", at_least=0)
    if padding not in ("valid", "same") or (padding == "same" and stride != (1, 1)):
        raise ValueError(f'conv2d takes padding of numbers, "valid", or with stride 1 "same"; got {padding!r}, stride {stride}')
    if padding == "valid":
        return x, (0, 0)
    KH, KW = kernel_size
    more_below, more_right = (KH - 1) % 2, (KW - 1) % 2
    return pad(x, (0, more_right, 0, more_below)) if more_below or more_right else x, ((KH - 1) // 2, (KW - 1) // 2)
