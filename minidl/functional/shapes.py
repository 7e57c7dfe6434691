"""Functions that rearrange, select or join elements, and the methods of Tensor made from them."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from ..autodiff import Function, Tensor
from ..backend import check_index, get_array_module
from .arguments import as_tensor, axis_of
from .arithmetic import give_methods


class Reshape(Function):
    """The same elements in another shape;  dx is dy in the old shape."""

    def __init__(self, *shape: int):
        self.shape = shape

    def forward(self, x):
        self.old_shape = x.shape
        return x.reshape(self.shape)

    def backward(self, grad):
        return grad.reshape(self.old_shape)


class Transpose(Function):
    """y = x with its axes permuted;  dx is dy with the axes permuted back."""

    def __init__(self, *axes: int):
        self.axes = axes

    def forward(self, x):
        y = x.transpose(self.axes or None)
        self.axes = tuple(axis % x.ndim for axis in self.axes) or tuple(reversed(range(x.ndim)))
        return y

    def backward(self, grad):
        return grad.transpose([self.axes.index(i) for i in range(grad.ndim)])


class GetItem(Function):
    """y = x[key], with NumPy's slices, integers, and integer or boolean arrays;  dx is dy at key, and 0 elsewhere.

    An element that was selected several times gets the sum.
    """

    def __init__(self, key: Any):
        self.key = key

    def forward(self, x):
        self.shape = x.shape
        check_index(x, self.key)
        return x[self.key]

    def backward(self, grad):
        xp = get_array_module(grad)
        dx = xp.zeros(self.shape, grad.dtype)
        xp.add.at(dx, self.key, grad)
        return dx


class Concatenate(Function):
    """y = the inputs joined along an axis;  each dx is its part of dy."""

    def __init__(self, axis: int):
        self.axis = axis

    def forward(self, *arrays):
        y = get_array_module(arrays[0]).concatenate(arrays, axis=self.axis)
        self.stops = list(itertools.accumulate(x.shape[self.axis] for x in arrays))
        return y

    def backward(self, grad):
        return get_array_module(grad).split(grad, self.stops[:-1], axis=self.axis)


class Stack(Function):
    """y = the inputs joined along a new axis;  each dx is its part of dy."""

    def __init__(self, axis: int):
        self.axis = axis

    def forward(self, *arrays):
        return get_array_module(arrays[0]).stack(arrays, axis=self.axis)

    def backward(self, grad):
        return list(get_array_module(grad).moveaxis(grad, self.axis, 0))


def cat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors joined along an axis. Their shapes are equal except for that axis."""
    tensors = _several("cat", tensors)
    return Concatenate(axis_of("cat", tensors[0], axis))(*tensors)


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """n tensors of one shape joined along a new axis of size n."""
    return Stack(axis)(*_several("stack", tensors))


def _several(function: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    if not isinstance(tensors, Sequence):
        raise TypeError(f"{function} takes a list of tensors; got {type(tensors).__name__}")
    if not tensors:
        raise ValueError(f"{function} takes a list of at least one tensor; got {tensors}")
    return [as_tensor(x) for x in tensors]


def flatten(x: Tensor, start_dim: int = 1, end_dim: int = -1) -> Tensor:
    """(N, C, H, W) -> (N, C * H * W): the axes from start_dim to end_dim become one; negative ones count from the end."""
    x = as_tensor(x)
    first, last = axis_of("flatten", x, start_dim), axis_of("flatten", x, end_dim)
    if first > last:
        raise ValueError(f"flatten of x {x.shape} takes two of its axes, in their order; got {start_dim} and {end_dim}")
    return Reshape(*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])(x)


def _unpacked(arguments: tuple) -> tuple:
    """reshape(2, 3) and reshape((2, 3)) are the same, as in NumPy."""
    return tuple(arguments[0]) if len(arguments) == 1 and isinstance(arguments[0], (tuple, list)) else arguments


def _plain(key: Any) -> Any:
    """An index in which arrays replace Tensors."""
    return tuple(map(_plain, key)) if isinstance(key, tuple) else key.data.copy() if isinstance(key, Tensor) else key


def _reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape, given as numbers or one tuple; -1 is the size that follows from the others."""
    return Reshape(*_unpacked(shape))(x)


def _transpose(x: Tensor, *axes: Any) -> Tensor:
    """The axes in another order, given as numbers or one tuple; without arguments, reversed, as in NumPy."""
    return Transpose(*_unpacked(axes))(x)


give_methods(__getitem__=lambda x, key: GetItem(_plain(key))(x), reshape=_reshape, transpose=_transpose)
