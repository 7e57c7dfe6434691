"""Statistics of each layer over time: the size of its weights, updates and gradients, and how many of its outputs are zero."""

import collections
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import numpy as np

from minidl import Tensor
from minidl.backend import Array, copy_to_host, get_array_module
from minidl.nn import Module
from minidl.optim import SGD
from minidl.parallel import Communicators
from minidl.parallel.sharding import Sharded
from minidl.partition import chunks

PIECE = 1 << 18  # elements of an array that a CPU sums at a time: they stay in its cache

Size = Annotated[float, msgspec.Meta(ge=0)] | None


class Layer(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The statistics of a layer in one step, to six digits; None for a value that it lacks, or that is NaN or infinite."""

    weight: Size = None  # mean |w| after the step
    weight_update: Size = None  # mean |dw|, if the step changed w to w + dw
    bias: Size = None  # mean |b|
    bias_update: Size = None  # mean |db|
    gradient: Size = None  # the L2 norm of the gradient of weight and bias together
    activation: float | None = None  # the mean of the outputs
    zeros: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None  # the share of the outputs that are exactly 0


class Sample(msgspec.Struct, forbid_unknown_fields=True):
    """All layers in one step: a line of statistics.jsonl. Epochs and steps count from 1, the steps through all epochs."""

    epoch: Annotated[int, msgspec.Meta(ge=1)]
    step: Annotated[int, msgspec.Meta(ge=1)]
    lr: Annotated[float, msgspec.Meta(ge=0)]
    layers: dict[str, Layer]


class LayerStatistics:
    """Measures the layers of a network in one step of `every`, the first one too.

    A layer is a module that contains no other, or that has a weight or bias of its own. write gets each Sample as a dict, on
    rank 0 only. On a GPU it gets it one step late, so that the host does not wait for the GPU; flush() writes the rest.
    """

    def __init__(
        self, model: Module, optimizer: SGD, communicators: Communicators, every: int, write: Callable[[dict[str, Any]], None]
    ):
        self.model, self.optimizer, self.communicators = model, optimizer, communicators
        self.every, self.write = every, write
        self._unread: collections.deque[Callable[[], dict[str, Any]]] = collections.deque()

    @contextmanager
    def watch(self, epoch: int, step: int) -> Iterator[None]:
        """A context for a training step (forward, backward, sums of gradients, update), on all ranks. step: from 1."""
        if (step - 1) % self.every:
            yield
            self.flush()
            return
        layers = _layers(self.model)
        rates = [group["lr"] for group in self.optimizer.param_groups]
        outputs = get_array_module(self.optimizer.parameters[0].data).zeros((len(layers), 3))
        handles = [module.register_forward_hook(_adding_to(sums)) for module, sums in zip(layers.values(), outputs, strict=True)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        self.communicators.main.all_reduce(outputs)
        self.flush()
        rank = self.communicators.rank
        # Each rank's shards, and rank 0's other parameters, which are equal on all ranks.
        own = {name: module for name, module in layers.items() if rank == 0 or isinstance(module, Sharded)}
        parameters = _parameter_sums(layers, own, self.optimizer, rates)
        if any(isinstance(module, Sharded) for module in layers.values()):
            self.communicators.main.all_reduce(parameters)
        if rank == 0:
            self._unread.append(_sample(epoch, step, rates[0], layers, copy_to_host(parameters), copy_to_host(outputs)))
            if isinstance(outputs, np.ndarray):
                self.flush()

    def flush(self) -> None:
        """Write the samples that are not written yet."""
        while self._unread:
            self.write(self._unread.popleft()())


def _layers(model: Module) -> dict[str, Module]:
    """The layers by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if next(module.children(), None) is None or any(isinstance(p, Tensor) for p in _weight_and_bias(module))
    }


def _weight_and_bias(module: Module) -> list[Tensor | None]:
    return [vars(module).get(name) for name in ("weight", "bias")]


def _adding_to(sums: Array) -> Callable[..., None]:
    """A forward hook that adds to `sums` (3,): the sum of the outputs, the number of zeros, the number of outputs."""

    @np.errstate(over="ignore", invalid="ignore")
    def hook(module: Module, args: tuple, output: Any) -> None:
        if isinstance(output, Tensor):
            xp, y = get_array_module(output.data), output.data
            sums[0] += _total(lambda y: y.sum(), y)
            sums[1] += _total(lambda y: xp.count_nonzero(y == 0), y)
            sums[2] += y.size

    return hook


@np.errstate(over="ignore", invalid="ignore")
def _parameter_sums(layers: dict[str, Module], own: dict[str, Module], optimizer: SGD, rates: list[float]) -> Array:
    """(layers, 7): the sums of |w|, |dw|, |b| and |db|, the sum of the squares of both gradients, the numbers of w and of b.

    Zeros for layers that are not in `own`. rates: the learning rates of the optimiser's groups.
    """
    groups = [(group | {"lr": lr}, p) for group, lr in zip(optimizer.param_groups, rates, strict=True) for p in group["params"]]
    updates = {id(p): (group, v) for (group, p), v in zip(groups, optimizer.momentum_buffers, strict=True)}
    table = get_array_module(optimizer.parameters[0].data).zeros((len(layers), 7))
    for name, sums in zip(layers, table, strict=True):
        for i, p in enumerate(_weight_and_bias(own[name]) if name in own else []):
            if p is None:
                continue
            sums[5 + i] = p.data.size
            sums[2 * i] = _total(lambda w: abs(w).sum(), p.data)
            if p.grad is not None and id(p) in updates:
                sums[2 * i + 1] = _update_sum(p, *updates[id(p)])
                sums[4] += _total(lambda g: (g * g).sum(), p.grad)
    return table


def _update_sum(p: Tensor, group: dict[str, Any], velocity: Array) -> Any:
    """The sum of |dw| of the last step. SGD has subtracted lr v, or lr (d + momentum v) with nesterov, from the weights w."""
    lr, momentum, decay = (group[name] for name in ("lr", "momentum", "weight_decay"))
    if not group["nesterov"]:
        return lr * _total(lambda v: abs(v).sum(), velocity)

    def total(w, g, v):
        step = g + momentum * v
        before = (w + lr * step) / (1 - lr * decay)
        return abs(step + decay * before).sum()

    return lr * _total(total, p.data, p.grad, velocity)


def _total(function: Callable[..., Any], *arrays: Array) -> Any:
    """function(*arrays), a sum over their elements, piece by piece on a CPU; 0 if there are none."""
    if not isinstance(arrays[0], np.ndarray):
        return function(*arrays)
    flat = [array.ravel(order="K") for array in arrays]  # views: the arrays are contiguous, in any order of axes
    return sum(float(function(*(array[piece] for array in flat))) for piece in chunks(flat[0].size, PIECE))


def _sample(epoch: int, step: int, lr: float, layers: dict[str, Module], parameters, outputs) -> Callable[[], dict[str, Any]]:
    """A function that makes the sample. It calls parameters() and outputs(), which wait for the sums."""

    def make() -> dict[str, Any]:
        rows = zip(layers, parameters(), outputs(), strict=True)
        return msgspec.to_builtins(Sample(epoch, step, lr, {name: _layer(*row) for name, *row in rows}))

    return make


def _layer(parameters: list[float], outputs: list[float]) -> Layer:
    """The means of a layer, from its sums."""
    w, dw, b, db, squares, weights, biases = parameters
    total, zeros, count = outputs
    return Layer(
        weight=_ratio(w, weights),
        weight_update=_ratio(dw, weights),
        bias=_ratio(b, biases),
        bias_update=_ratio(db, biases),
        gradient=_finite(math.sqrt(squares)) if weights + biases else None,
        activation=_ratio(total, count),
        zeros=_ratio(zeros, count),
    )


def _ratio(total: float, count: float) -> float | None:
    return _finite(total / count) if count else None


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
