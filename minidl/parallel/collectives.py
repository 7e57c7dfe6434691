"""Differentiable collectives, which gather, sum and redistribute activations that are divided among ranks.

Each rank has a part of a tensor along an axis; sizes[rank] is the length of the part, which may be 0. The loss is the sum of the
losses of all ranks. So backward on one rank computes one term of a gradient, and the gradient is the sum of the ranks' terms.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ..autodiff import Function, Tensor
from ..backend import Array, get_array_module
from ..kernels.layout import from_batch_last, to_batch_last
from .communicator import Communicator

Sizes = Sequence[int]


class Gather(Function):
    """y = the x of all ranks, concatenated along an axis;  dx = this rank's part of dy, summed over the ranks.

    readers: the ranks that get y; the others get an empty batch, (0, ...).
    """

    def __init__(self, communicator: Communicator, axis: int, sizes: Sizes, readers: Sizes):
        self.divided = communicator, axis, sizes, readers

    def forward(self, x):
        self.shape = x.shape
        return _put_together(x, *self.divided)

    def backward(self, grad):
        return _add_up(grad, self.shape, *self.divided)


class ReduceScatter(Function):
    """y = this rank's part, along an axis, of the sum of x over all ranks;  dx = the dy of all ranks, concatenated."""

    def __init__(self, communicator: Communicator, axis: int, sizes: Sizes):
        self.divided = communicator, axis, sizes, range(communicator.size)
        self.own = {axis: sizes[communicator.rank]}

    def forward(self, x):
        return _add_up(x, _with(x.shape, self.own), *self.divided)

    def backward(self, grad):
        return _put_together(grad, *self.divided)


class AllToAll(Function):
    """x is divided along the axis `before`; y is the same tensor, divided along the axis `after`.  dx is dy, divided as x is."""

    def __init__(self, communicator: Communicator, before: int, sizes_before: Sizes, after: int, sizes_after: Sizes):
        self.communicator = communicator
        self.before, self.after = (before, sizes_before), (after, sizes_after)

    def forward(self, x):
        return _divide_anew(x, self.communicator, *self.before, *self.after)

    def backward(self, grad):
        return _divide_anew(grad, self.communicator, *self.after, *self.before)


def gather(
    x: Tensor, communicator: Communicator, axis: int = 0, sizes: Sizes | None = None, readers: Sizes | None = None
) -> Tensor:
    """The parts x (N, ...) of all ranks, concatenated along an axis; its length is then sum(sizes).

    sizes: the lengths of the parts; if None, the ranks exchange them. The other axes are equal on all ranks.
    readers: the ranks that get the result; if None, all. The others get an empty batch, (0, ...).
    """
    sizes = sizes_of_all(x, communicator, axis) if sizes is None else sizes
    return Gather(communicator, axis, sizes, range(communicator.size) if readers is None else readers)(x)


def reduce_scatter(x: Tensor, communicator: Communicator, axis: int, sizes: Sizes) -> Tensor:
    """This rank's part, sizes[rank] long along an axis, of the sum of x over all ranks. x has the same shape on all ranks.

    Its forward is the backward of gather, and its backward the forward of gather.
    """
    return ReduceScatter(communicator, axis, sizes)(x)


def all_to_all(x: Tensor, communicator: Communicator, before: int, sizes_before: Sizes, after: int, sizes_after: Sizes) -> Tensor:
    """Redistribute parts along the axis `before`, of sizes_before, to parts along the axis `after`, of sizes_after."""
    return AllToAll(communicator, before, sizes_before, after, sizes_after)(x)


def sizes_of_all(x: Tensor, communicator: Communicator, axis: int) -> list[int]:
    """The length of each rank's x along an axis. The hosts exchange it, without waiting for a GPU."""
    return communicator.host.all_gather(np.array([x.shape[axis]]))[:, 0].tolist()


def _put_together(x: Array, communicator: Communicator, axis: int, sizes: Sizes, readers: Sizes) -> Array:
    rest, ranks = _numbers(x.shape, {axis: 1}), range(communicator.size)
    counts = [[size * rest if rank in readers else 0 for rank in ranks] for size in sizes]
    own = to_batch_last(x).reshape(x.size)
    received = communicator.exchange([own if rank in readers else own[:0] for rank in ranks], counts)
    if communicator.rank not in readers:
        return get_array_module(x).empty(_with(x.shape, {axis: sum(sizes), 0: 0}), x.dtype)
    return _join(received, [_with(x.shape, {axis: size}) for size in sizes], axis)


def _add_up(x: Array, shape: Sizes, communicator: Communicator, axis: int, sizes: Sizes, readers: Sizes) -> Array:
    """This rank's part, of this shape, of the sum of x over the readers, added in the order of ranks."""
    rest, ranks = _numbers(shape, {axis: 1}), range(communicator.size)
    counts = [[size * rest if rank in readers else 0 for size in sizes] for rank in ranks]
    parts = _split(x, axis, sizes) if communicator.rank in readers else [x.reshape(0) for _ in ranks]
    first, *others = (part for rank, part in enumerate(communicator.exchange(parts, counts)) if rank in readers)
    if others:
        first = first + others[0]
    for part in others[1:]:
        first += part
    return _join([first], [shape], axis)


def _divide_anew(x: Array, communicator: Communicator, before: int, sizes_before: Sizes, after: int, sizes_after: Sizes) -> Array:
    rest = _numbers(x.shape, {before: 1, after: 1})
    counts = [[size * other * rest for other in sizes_after] for size in sizes_before]
    received = communicator.exchange(_split(x, after, sizes_after), counts)
    own = sizes_after[communicator.rank]
    return _join(received, [_with(x.shape, {before: size, after: own}) for size in sizes_before], before)


def _with(shape: Sizes, changes: dict[int, int]) -> tuple[int, ...]:
    """The shape with other lengths for some axes."""
    return tuple(changes.get(axis, length) for axis, length in enumerate(shape))


def _numbers(shape: Sizes, changes: dict[int, int]) -> int:
    """The number of elements of an array with the changed shape."""
    return math.prod(_with(shape, changes))


def _split(x: Array, axis: int, sizes: Sizes) -> list[Array]:
    """x in parts along an axis, each flattened in batch-last order."""
    xp, stops = get_array_module(x), list(itertools.accumulate(sizes))
    parts = xp.split(to_batch_last(x), stops[:-1], axis=(axis - 1) % x.ndim)
    return [xp.ascontiguousarray(part).reshape(part.size) for part in parts]


def _join(parts: list[Array], shapes: list[Sizes], axis: int) -> Array:
    """The inverse of _split, with the shapes of the parts."""
    arrays = [part.reshape(*shape[1:], shape[0]) for part, shape in zip(parts, shapes, strict=True)]
    joined = arrays[0] if len(arrays) == 1 else get_array_module(arrays[0]).concatenate(arrays, axis=(axis - 1) % len(shapes[0]))
    return from_batch_last(joined)
