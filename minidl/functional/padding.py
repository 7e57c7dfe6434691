"""Zero padding with a different width on each side, which conv2d's own padding does not have."""

from ..autodiff import Function, Tensor
from ..kernels import kernels_for
from .arguments import floating, is_integer, require_4d


class Pad(Function):
    """y[n, c, h + top, w + left] = x[n, c, h, w], and 0 around it;  dx is dy without the border."""

    def __init__(self, left: int, right: int, top: int, bottom: int):
        self.left, self.right, self.top, self.bottom = left, right, top, bottom

    def forward(self, x):
        _, _, H, W = x.shape
        self.rows, self.columns = slice(self.top, self.top + H), slice(self.left, self.left + W)
        return kernels_for(x).pad2d(x, self.left, self.right, self.top, self.bottom)

    def backward(self, grad):
        return grad[:, :, self.rows, self.columns]


@floating("x")
def pad(x: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """x (N, C, H, W) -> (N, C, top + H + bottom, left + W + right) with zeros; padding is (left, right, top, bottom)."""
    require_4d(x, "pad")
    if not isinstance(padding, (tuple, list)) or len(padding) != 4 or not all(is_integer(p, 0) for p in padding):
        raise ValueError(f"pad takes four integers of at least 0, (left, right, top, bottom); got {padding!r}")
    return Pad(*padding)(x)
