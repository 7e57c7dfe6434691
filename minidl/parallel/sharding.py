"""Layers that are divided among ranks by their outputs: each rank has its own rows of weight and bias."""

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
    """A layer with this rank's part of the outputs; rank r has sizes[r] of them.

    It is made from a whole layer, and the layer's class is its second base. before, after: applied to its input and output.
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
    """A dropout of some outputs of a sharded layer, for the whole batch. Its mask is that part of a single device's mask."""

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
    """The sizes of the parts of range(size), about equal, one for each rank."""
    return [length(shard(size, rank, ranks)) for rank in range(ranks)]


def sharded(
    layer: nn.Module, communicator: Communicator, sizes: Sizes, before: Step | None = None, after: Step | None = None
) -> Any:
    """This rank's part of a layer, as a Sharded."""
    kind: Any = type(layer)
    return _kind(Sharded, kind)(layer, communicator, sizes, before, after)


def dropout_of_part(layer: nn.Dropout, rows: slice) -> Any:
    """A dropout after this rank's part of a layer, as a DropoutOfPart."""
    kind: Any = type(layer)
    return _kind(DropoutOfPart, kind)(layer, rows)


@functools.cache
def _kind(of_part: Any, of_whole: Any) -> Any:
    """A class with both bases, the class of the part first, and the name of the whole layer's class."""
    return type(of_whole.__name__, (of_part, of_whole), {})


def leaves(network: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """(the Sequential that contains the layer, the layer's name there, the layer), in the order of the forward pass.

    Raises ValueError if any other container is found.
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
    """{name: the number of rows on each rank} of the parameters that are divided among ranks."""
    return {
        f"{prefix}.{name}": module.sizes
        for prefix, module in network.named_modules()
        if isinstance(module, Sharded)
        for name in ("weight", "bias")
        if getattr(module, name) is not None
    }


def whole_arrays(arrays: Mapping[str, Array], sizes: Mapping[str, Sizes], communicator: Communicator) -> dict[str, Array]:
    """On rank 0, all arrays; those in `sizes` are joined from the rows of each rank. On the other ranks, {}."""
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
        communicator.barrier()  # no process may end before rank 0 has received its rows
    return whole if communicator.rank == 0 else {}


def distribute(
    whole: Mapping[str, Array], arrays: Mapping[str, Array], sizes: Mapping[str, Sizes], communicator: Communicator
) -> None:
    """The inverse of whole_arrays: copy rank 0's whole arrays into `arrays`. Of those in `sizes`, each rank gets its rows; the
    others are copied on rank 0 only.

    whole: may be on the host; {} on the other ranks.
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
