"""Checks that functions share, of arguments and of shapes."""

from numbers import Integral
from typing import Any


def pair(value, name: str, at_least: int = 1) -> tuple[int, int]:
    """3 -> (3, 3) and (3, 5) -> (3, 5), for the axes H and W."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2 or not all(is_integer(v, at_least) for v in values):
        raise ValueError(f"{name} must be an integer of at least {at_least}, or a pair of them; got {value!r}")
    return int(values[0]), int(values[1])


def is_integer(value: Any, at_least: int) -> bool:
    """Python's and NumPy's integers count, True and False don't."""
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= at_least


def require_batch(x, function: str) -> None:
    if x.ndim < 1:
        raise ValueError(f"{function} takes x of shape (N, ...); got a single number")


def require_4d(x, function: str) -> None:
    if x.ndim != 4:
        raise ValueError(f"{function} takes x of shape (N, C, H, W); got {x.shape}")
