"""Initial weights, drawn by NumPy on the host whatever the device, so that every device starts from the same."""

import contextlib
import contextvars
import math
from collections.abc import Iterator

from .. import random
from ..autodiff import Tensor
from ..backend import Array, get_array_module

_skipped = contextvars.ContextVar("skipped", default=False)


@contextlib.contextmanager
def skipped() -> Iterator[None]:
    """Inside, layers are made without initial weights, which takes no time: for those whose state is loaded next."""
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


def write(tensor: Tensor, value: Array | float) -> None:
    """Replace a tensor's values where they are, and count the change."""
    tensor.data[...] = value
    tensor.version += 1


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> None:
    """Fill with draws from N(mean, std^2)."""
    if _skipped.get():
        return
    draws = random.host_generator().normal(mean, std, tensor.shape)
    write(tensor, get_array_module(tensor.data).asarray(draws))


def constant_(tensor: Tensor, value: float) -> None:
    """Fill with one value."""
    if not _skipped.get():
        write(tensor, value)


def fan_in(tensor: Tensor) -> int:
    """How many inputs one output is a sum of: C KH KW for a weight (O, C, KH, KW), F for (O, F)."""
    return math.prod(tensor.shape[1:])


def kaiming_normal_(tensor: Tensor) -> None:
    """N(0, 2 / fan_in): keeps the variance of activations through ReLU layers. He et al. 2015, equation 10.

    A fan_in of 0 leaves nothing to draw.
    """
    if fan_in(tensor):
        normal_(tensor, 0.0, math.sqrt(2 / fan_in(tensor)))
