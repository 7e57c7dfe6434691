"""Layers whose outputs are divided among ranks: each rank has its own rows of weight and bias."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import nn, random
from ..autodiff import Tensor
from ..backend import Array, device_of, get_array_module, to_device
from ..partition import length, shard
from .communicator import Communicator

Sizes = list[int]
Step = Callable[[Tensor], Tensor]


class Sharded(nn.Module):
    """This rank's part of a layer, in which rank r has sizes[r] of the outputs.

    before, after: functions that are applied to the input and to the output. It is made from a whole layer, whose class is
    its second base.
    """

    def __init__(self, layer: nn.Module, communicator: Communicator, sizes: Sizes, before: Step | None, after: Step | None):
        self.__dict__.update(layer.__dict__)
        self.rows, self.sizes, self.before, self.after = rows_of(sizes, communicator.rank), sizes, before, after
        for name in ("weight", "bias"):
            whole = getattr(layer, name)
            if whole is not None:
                setattr(self, name, nn.Parameter(whole.data[self.rows].copy(), whole.requires_grad))

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(self.before(x) if self.before else x)
        return self.after(y) if self.after else y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, outputs {self.rows.start} to {self.rows.stop}"


class DropoutOfPart(nn.Module):
    """A dropout of some outputs of a sharded layer, for the whole batch, with the same mask as on a single device."""

    def __init__(self, layer: nn.Module, rows: slice):
        self.__dict__.update(layer.__dict__)
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        of_one = math.prod(x.shape[1:]) // max(1, length(self.rows))
        with random.part(0, self.rows.start * of_one):
            return super().forward(x)


def rows_of(sizes: Sizes, rank: int) -> slice:
    """The rows of a rank, if rank r has sizes[r] rows."""
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def shards(size: int, ranks: int) -> Sizes:
    """The sizes of about equal parts of a range, one for each rank."""
    return [length(shard(size, rank, ranks)) for rank in range(ranks)]


def sharded(
    layer: nn.Module, communicator: Communicator, sizes: Sizes, before: Step | None = None, after: Step | None = None
) -> Any:
    """This rank's part of a layer, a Sharded."""
    kind: Any = type(layer)
    return _kind(Sharded, kind)(layer, communicator, sizes, before, after)


def dropout_of_part(layer: nn.Dropout, rows: slice) -> Any:
    """A dropout after this rank's part of a layer, a DropoutOfPart."""
    kind: Any = type(layer)
    return _kind(DropoutOfPart, kind)(layer, rows)


@functools.cache
def _kind(of_part: Any, of_whole: Any) -> Any:
    """A class derived from both, which has the name of `of_whole` and computes as it does."""
    return type(of_whole.__name__, (of_part, of_whole), {})


def leaves(network: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """(parent Sequential, name in the parent, layer) for each layer, in order of computation.

    Raises ValueError if a layer is in another container than a Sequential.
    """
    if type(network) is not nn.Sequential:
        raise ValueError(f"only an nn.Sequential can be divided among ranks; this is a {type(network).__name__}")
    for name, child in network.named_children():
        if next(child.children(), None) is None:
            yield network, name, child
        else:
            yield from leaves(child)


def make_equal(network: nn.Module, communicator: Communicator) -> None:
    """Copy the parameters and buffers of rank 0 to all ranks."""
    for array in network.state_dict().values():
        (communicator.host if isinstance(array, np.ndarray) else communicator).broadcast(array)


def sharded_parameters(network: nn.Module) -> dict[str, Sizes]:
    """{name: the number of rows of each rank}, for the parameters that are divided among ranks."""
    return {
        f"{prefix}.{name}": module.sizes
        for prefix, module in network.named_modules()
        if isinstance(module, Sharded)
        for name in ("weight", "bias")
        if getattr(module, name) is not None
    }


def whole_arrays(arrays: Mapping[str, Array], sizes: Mapping[str, Sizes], communicator: Communicator) -> dict[str, Array]:
    """All arrays, whole, on rank 0; an empty dict on the other ranks. Arrays in `sizes` are joined from the rows of all ranks."""
    whole = {}
    for name, array in arrays.items():
        if name in sizes:
            rest = math.prod(array.shape[1:])
            counts = [[size * rest if rank == 0 else 0 for rank in range(communicator.size)] for size in sizes[name]]
            flat = array.reshape(array.size)
            parts = communicator.exchange([flat if rank == 0 else flat[:0] for rank in range(communicator.size)], counts)
            if communicator.rank == 0:
                array = get_array_module(array).concatenate(parts).reshape(sum(sizes[name]), *array.shape[1:])
        whole[name] = array
    if sizes:
        communicator.barrier()  # no process may end before its data has arrived
    return whole if communicator.rank == 0 else {}


def distribute(
    whole: Mapping[str, Array], arrays: Mapping[str, Array], sizes: Mapping[str, Sizes], communicator: Communicator
) -> None:
    """The inverse of whole_arrays: copy rank 0's whole arrays, which may be on the host, into `arrays`.

    Each rank gets its rows of an array in `sizes`; other arrays are copied on rank 0 only. whole: empty on the other ranks.
    """
    for name, array in arrays.items():
        if name not in sizes:
            if communicator.rank == 0:
                array[...] = to_device(whole[name], device_of(array))
            continue
        rest = math.prod(array.shape[1:])
        row = [size * rest for size in sizes[name]]
        counts = [row if rank == 0 else [0] * communicator.size for rank in range(communicator.size)]
        if communicator.rank == 0:
            flat = to_device(whole[name], device_of(array)).reshape(-1)
            parts = [flat[stop - size : stop] for size, stop in zip(row, itertools.accumulate(row), strict=True)]
        else:
            parts = [array.reshape(array.size)[:0]] * communicator.size
        array[...] = communicator.exchange(parts, counts)[0].reshape(array.shape)
