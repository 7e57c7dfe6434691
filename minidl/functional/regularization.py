"""Dropout."""

from .. import random
from ..autodiff import Function, Tensor
from ..kernels import kernels_for
from .arguments import floating, is_integer, number


class Dropout(Function):
    """y = x m,  m = 0 with probability p, else 1 / (1 - p), so that the expectation of y is x;  dx = dy m.

    draw determines the mask: (seed, step, key, first_sample, first_feature), see minidl.random.
    """

    def __init__(self, p: float, draw: tuple[int, int, int, int, int]):
        self.p, self.draw = p, draw

    def forward(self, x):
        self.kernels = kernels_for(x)
        self.mask = self.kernels.dropout_mask(x.shape, self.p, self.draw, x.dtype)
        return self.kernels.multiply(x, self.mask)

    def backward(self, grad):
        return self.kernels.multiply(grad, self.mask)


@floating("x")
def dropout(x: Tensor, p: float = 0.5, training: bool = True, *, inplace: bool = False, key: int | None = None) -> Tensor:
    """Set each element of x (N, ...) to zero with probability p in training, and scale the others; Krizhevsky 2012, section 4.2.

    The mask depends only on the seed, the step, the sample's index in the global batch and key (an integer below 2**24).
    Without a key, calls are numbered within `minidl.random.context`. inplace: accepted as in PyTorch; x never changes.
    """
    p = number(p, "p")
    if not 0 <= p <= 1:
        raise ValueError(f"dropout takes a probability p between 0 and 1; got {p}")
    if key is not None and (not is_integer(key, 0) or key >= random.SHUFFLE):
        raise ValueError(f"dropout takes a key, an integer from 0 to {random.SHUFFLE - 1}; got {key!r}")
    if not training or p == 0:
        return x
    if x.ndim < 1:
        raise ValueError("dropout takes x of shape (N, ...); got a single number")
    return Dropout(p, random.next_draw(key))(x)
