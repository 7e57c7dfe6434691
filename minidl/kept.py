"""What a forward kept for its backward, and whether it is still as it was.

A gradient is that of the values which forward saw. If a weight is updated, or an output written over, between a forward and
its backward, the gradient is that of neither the old nor the new values. So every tensor counts its changes, and backward
compares. What NumPy does to an array directly, `x.data[0] = 1`, cannot be counted; `detect_anomaly` finds that too.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

from .backend import Array, get_array_module

_detecting = contextvars.ContextVar("detecting", default=False)


@contextlib.contextmanager
def detect_anomaly() -> Iterator[None]:
    """Inside `with detect_anomaly():` around a forward and its backward, errors name the function they come from.

    RuntimeError if an array that a forward kept has changed before its backward, however that was done, and at the first
    function whose gradient is NaN or infinite. It copies whatever is kept: for looking for an error, not for training.
    """
    token = _detecting.set(True)
    try:
        yield
    finally:
        _detecting.reset(token)


class Kept:
    """Whether the arrays that forward kept as attributes of its function are unchanged.

    tensors: the inputs and the output. It remembers the versions of those whose arrays were kept; within detect_anomaly,
    copies of all arrays that were kept, too.
    """

    __slots__ = ("copies", "versions")

    def __init__(self, function: Any, tensors: Sequence[Any]):
        kept = [id(array) for _, array in _arrays(function)]
        self.versions = [t.version if t is not None and id(t.data) in kept else None for t in tensors]
        self.copies = [array.copy() for _, array in _arrays(function)] if _detecting.get() else []

    def check(self, function: Any, tensors: Sequence[Any]) -> None:
        """Raise RuntimeError if something has changed since."""
        for i, (tensor, version) in enumerate(zip(tensors, self.versions, strict=True)):
            if version is not None and tensor.version != version:
                what = "its output" if i == len(tensors) - 1 else f"its input {i}"
                raise RuntimeError(
                    f"{name_of(function)} needs {what}, of shape {tensor.shape}, for backward, but that was changed in place "
                    "after forward: call backward before the optimiser's step, or run forward again"
                )
        for (name, array), copy in zip(_arrays(function), self.copies, strict=True) if self.copies else ():
            if not get_array_module(array).array_equal(array, copy, equal_nan=array.dtype.kind == "f"):
                raise RuntimeError(
                    f"{name_of(function)} kept {name}, of shape {array.shape}, for backward, but that was changed in place after "
                    "forward: change a copy of it"
                )


def share_changes(output: Any, inputs: Sequence[Any]) -> None:
    """If a function's output is a view of an input, what changes one changes the other: they have one count."""
    for x in inputs:
        if x is not None and _owner(x.data) is _owner(output.data):
            output._changes = x._changes


def _owner(array: Array) -> Array:
    return array if array.base is None else array.base


def check_finite(function: Any, gradients: Sequence[Array]) -> None:
    """Within detect_anomaly: RuntimeError if a gradient that a function's backward gave is NaN or infinite."""
    for i, gradient in enumerate(gradients) if _detecting.get() else ():
        if gradient is not None and not get_array_module(gradient).isfinite(gradient).all():
            raise RuntimeError(f"the backward of {name_of(function)} gave a gradient for input {i} that is NaN or infinite")


def name_of(function: Any) -> str:
    """The function's class, and its layer if there is one."""
    module = function.module
    return type(function).__name__ + (f" of the layer {type(module).__name__}" if module is not None else "")


def _arrays(function: Any) -> Iterator[tuple[str, Array]]:
    """The arrays among a function's attributes, and in lists and tuples of them, with the attributes' names."""
    for name, value in vars(function).items():
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if hasattr(part, "strides"):
                yield name, part
