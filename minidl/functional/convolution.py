"""Convolution (in truth a correlation, as everywhere in deep learning)."""

import contextlib
import contextvars

from ..autodiff import Function, Tensor
from ..backend import from_batch_last, to_batch_last
from ..kernels import kernels_for
from .arguments import is_integer, pair, require_4d


class Conv2d(Function):
    """y[n, o, h, w] = b[o] + sum over c, i, j of W[o, c, i, j] xpad[n, c, h s + i, w s + j]

    im2col lays the patch that output (h, w) of image n sees into one column, P (C KH KW, OH OW N). Then it is a product:
    Y = W P + b;  dW = dY P^T,  db = sum of dY over all places,  dP = W^T dY.
    col2im adds dP back to the pixels it came from: a pixel seen by several outputs gets the sum. That is dx.
    With groups, each group of outputs sees its own group of inputs only.
    tile: 0 for this, or the m of Winograd's way to the same result, see kernels/winograd.py.
    """

    def __init__(self, stride: tuple[int, int], padding: tuple[int, int], groups: int, tile: int = 0):
        self.geometry, self.tile = (stride, padding, groups), tile

    def forward(self, x, weight, bias=None):
        self.x, self.weight = to_batch_last(x), weight
        return from_batch_last(kernels_for(x).conv2d(self.x, weight, bias, *self.geometry, self.tile))

    def backward(self, grad):
        kernels, grad = kernels_for(grad), to_batch_last(grad)
        options = self.tile, self.needs_grad[:2], self.buffers[1]
        dx, dweight = kernels.conv2d_gradients(grad, self.x, self.weight, *self.geometry, *options)
        dx = from_batch_last(dx) if dx is not None else None
        dbias = kernels.channel_sums(grad) if any(self.needs_grad[2:]) else None
        return (dx, dweight, dbias)[: len(self.inputs)]


_algorithm = contextvars.ContextVar("convolution_algorithm", default="auto")


@contextlib.contextmanager
def convolution_algorithm(name: str):
    """Inside `with convolution_algorithm("im2col"):` convolutions are computed in that way; "auto", as otherwise: in
    Winograd's where the shapes say that it is faster. The results differ by rounding only.
    """
    if name not in ("auto", "im2col"):
        raise ValueError(f'convolution_algorithm takes "auto" or "im2col"; got {name!r}')
    token = _algorithm.set(name)
    try:
        yield
    finally:
        _algorithm.reset(token)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, groups: int = 1) -> Tensor:
    """x (N, C, H, W), weight (O, C / groups, KH, KW), bias (O,) -> (N, O, OH, OW), OH = (H + 2 padding - KH) // stride + 1.

    stride and padding: an integer, or a pair for H and W.
    """
    require_4d(x, "conv2d")
    stride, padding = pair(stride, "stride"), pair(padding, "padding", at_least=0)
    if weight.ndim != 4:
        raise ValueError(f"conv2d takes a weight of shape (O, C / groups, KH, KW); got {weight.shape}")
    (_, C, H, W), (O, CG, KH, KW) = x.shape, weight.shape
    if not is_integer(groups, 1) or CG * groups != C or O % groups:
        raise ValueError(
            f"conv2d with groups={groups} takes weights of {groups} x {CG} = {groups * CG} input channels and a multiple "
            f"of {groups} outputs; got x {x.shape} and weight {weight.shape}"
        )
    if H + 2 * padding[0] < KH or W + 2 * padding[1] < KW:
        raise ValueError(f"conv2d: the kernel {(KH, KW)} is larger than the image {(H, W)} with padding {padding}")
    tile = 0
    if _algorithm.get() == "auto" and x.dtype == weight.dtype:
        tile = kernels_for(x.data).tile_size((H, W), weight.shape, stride, padding, groups, x.dtype)
    function = Conv2d(stride, padding, groups, tile)
    if bias is None:
        return function(x, weight)
    if bias.shape != (O,):
        raise ValueError(f"conv2d takes a bias of shape ({O},); got {bias.shape}")
    return function(x, weight, bias)
