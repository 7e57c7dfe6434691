"""Initial weights. NumPy draws them on the host for every device, so that all devices start from the same values."""

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
    """Make layers whose weights are 0 inside this context, which saves time if their state is loaded next."""
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


def write(tensor: Tensor, value: Array | float) -> None:
    """Overwrite a tensor's values in place, and count the change."""
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
    """The number of inputs of one output: C KH KW for a weight (O, C, KH, KW), F for (O, F)."""
    return math.prod(tensor.shape[1:])


def kaiming_normal_(tensor: Tensor) -> None:
    """N(0, 2 / fan_in): keeps the variance of activations through ReLU layers. He et al. 2015, equation 10.

    A weight with fan_in 0 is empty, and nothing is drawn.
    """
    if fan_in(tensor):
        normal_(tensor, 0.0, math.sqrt(2 / fan_in(tensor)))
