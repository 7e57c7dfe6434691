"""Checks that the values which forward kept for backward are unchanged.

If a weight is updated, or an output overwritten, between forward and backward, the gradient is wrong for the old values and for
the new ones. So every tensor counts its changes, and backward compares the counts. A change of the array itself, such as
`x.data[0] = 1`, is not counted; `detect_anomaly` finds it.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

from .backend import Array, get_array_module

_detecting = contextvars.ContextVar("detecting", default=False)


@contextlib.contextmanager
def detect_anomaly() -> Iterator[None]:
    """Find the cause of wrong gradients inside `with detect_anomaly():`, around a forward and its backward.

    Raises RuntimeError, with the name of the function, if an array that forward kept has changed in any way before backward,
    or if a gradient is NaN or infinite. It copies every kept array, so use it to find an error, not for training.
    """
    token = _detecting.set(True)
    try:
        yield
    finally:
        _detecting.reset(token)


class Kept:
    """A record of the arrays that forward kept as attributes of its function, to check that they are unchanged.

    tensors: the inputs and the output. The record has the versions of those whose arrays, or views of them, were kept; within
    detect_anomaly also copies of all kept arrays.
    """

    __slots__ = ("copies", "versions")

    def __init__(self, function: Any, tensors: Sequence[Any]):
        kept = [array for _, array in _arrays(function)]
        self.versions = [t.version if t is not None and any(_overlap(t.data, a) for a in kept) else None for t in tensors]
        self.copies = [array.copy() for _, array in _arrays(function)] if _detecting.get() else []

    def check(self, function: Any, tensors: Sequence[Any]) -> None:
        """Raise RuntimeError if a kept array has changed since forward."""
        for i, (tensor, version) in enumerate(zip(tensors, self.versions, strict=True)):
            if version is not None and tensor.version != version:
                what = "its output" if i == len(tensors) - 1 else f"its input {i}"
                raise RuntimeError(
                    f"{name_of(function)} needs {what}, of shape {tensor.shape}, for backward, but it was changed in place "
                    "after forward: call backward before the optimiser's step, or run forward again"
                )
        for (name, array), copy in zip(_arrays(function), self.copies, strict=True) if self.copies else ():
            if not get_array_module(array).array_equal(array, copy, equal_nan=array.dtype.kind == "f"):
                raise RuntimeError(
                    f"{name_of(function)} kept {name}, of shape {array.shape}, for backward, but it was changed in place after "
                    "forward: change a copy of it"
                )


def share_changes(output: Any, inputs: Sequence[Any]) -> None:
    """Give an output that is a view of an input the same count of changes, because a change of one changes the other."""
    for x in inputs:
        if x is not None and _owner(x.data) is _owner(output.data):
            output._changes = x._changes


def _overlap(one: Array, other: Array) -> bool:
    """Whether two arrays may have elements in common."""
    if one is other or (one.base is None and other.base is None):
        return one is other
    return type(one) is type(other) and get_array_module(one).may_share_memory(one, other)


def _owner(array: Array) -> Array:
    return array if array.base is None else array.base


def check_finite(function: Any, gradients: Sequence[Array]) -> None:
    """Within detect_anomaly: raise RuntimeError if a gradient that a function's backward returned is NaN or infinite."""
    for i, gradient in enumerate(gradients) if _detecting.get() else ():
        if gradient is not None and not get_array_module(gradient).isfinite(gradient).all():
            raise RuntimeError(f"the backward of {name_of(function)} returned a gradient for input {i} that is NaN or infinite")


def name_of(function: Any) -> str:
    """The name of the function's class, and of its layer if there is one."""
    module = function.module
    return type(function).__name__ + (f" of the layer {type(module).__name__}" if module is not None else "")


def _arrays(function: Any) -> Iterator[tuple[str, Array]]:
    """The arrays among a function's attributes, and in lists and tuples of them, with the attributes' names."""
    for name, value in vars(function).items():
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if hasattr(part, "strides"):
                yield name, part
