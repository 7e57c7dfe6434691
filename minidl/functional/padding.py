"""Zero padding, for what a convolution's own symmetric padding cannot say."""

from ..autodiff import Function, Tensor
from ..backend import from_batch_last, get_array_module, to_batch_last
from .arguments import is_integer, require_4d


class Pad(Function):
    """y[n, c, h + top, w + left] = x[n, c, h, w], and 0 around it;  dx is the part of dy where x lies."""

    def __init__(self, left: int, right: int, top: int, bottom: int):
        self.left, self.right, self.top, self.bottom = left, right, top, bottom

    def forward(self, x):
        C, H, W, N = to_batch_last(x).shape
        self.rows, self.columns = slice(self.top, self.top + H), slice(self.left, self.left + W)
        y = get_array_module(x).zeros((C, self.top + H + self.bottom, self.left + W + self.right, N), x.dtype)
        y[:, self.rows, self.columns] = to_batch_last(x)
        return from_batch_last(y)

    def backward(self, grad):
        return grad[:, :, self.rows, self.columns]


def pad(x: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """x (N, C, H, W) -> (N, C, top + H + bottom, left + W + right) with zeros; padding is (left, right, top, bottom)."""
    require_4d(x, "pad")
    if not isinstance(padding, (tuple, list)) or len(padding) != 4 or not all(is_integer(p, 0) for p in padding):
        raise ValueError(f"pad takes four integers of at least 0, (left, right, top, bottom); got {padding!r}")
    return Pad(*padding)(x)
