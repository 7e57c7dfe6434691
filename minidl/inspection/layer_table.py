"""A table of the layers of a network, one row for each layer."""

import dataclasses
import math
from typing import Any

import numpy as np

from ..autodiff import Tensor, no_grad
from ..backend import device_of, to_device


@dataclasses.dataclass
class Row:
    """One layer: its name and kind, its output for one sample, its parameters, and its multiply-adds for one sample."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


def summary(model: Any, input_shape: tuple[int, ...]) -> list[Row]:
    """A row for each layer that processes x of shape (1, *input_shape), in order of computation. Runs the network once.

    A layer is a module without modules inside, or with its own parameters.
    """
    rows: list[Row] = []
    seen: set[int] = set()

    def record(name: str):
        def hook(module, args, y):
            own = [p for p in vars(module).values() if isinstance(p, Tensor) and id(p) not in seen]
            seen.update(map(id, own))
            shape = y.shape[1:] if isinstance(y, Tensor) else ()
            count = sum(p.data.size for p in own)
            rows.append(Row(name, type(module).__name__, shape, count, _macs(module, shape)))

        return hook

    modules = list(model.named_modules())
    with_others_inside = {name.rpartition(".")[0] for name, _ in modules if name}
    layers = [
        (name, module)
        for name, module in modules
        if name not in with_others_inside or any(isinstance(value, Tensor) for value in vars(module).values())
    ]
    handles = [module.register_forward_hook(record(name)) for name, module in layers]
    modes = [(module, module.training) for _, module in modules]
    parameter = next(model.parameters(), None)
    try:
        with no_grad():
            x = np.zeros((1, *input_shape), np.float32 if parameter is None else parameter.dtype)
            model.eval()(Tensor(x if parameter is None else to_device(x, device_of(parameter.data))))
    finally:
        for module, training in modes:
            module.training = training
        for handle in handles:
            handle.remove()
    return rows


def _macs(module: Any, output_shape: tuple[int, ...]) -> int:
    """Multiply-adds of matrix products, for weights (O, ...) of two or more axes. Biases and elementwise work do not count."""
    weight = getattr(module, "weight", None)
    return math.prod(output_shape) * math.prod(weight.shape[1:]) if weight is not None and weight.ndim > 1 else 0


def format_summary(rows: list[Row]) -> str:
    """The rows as a table with the totals below."""
    head = ("layer", "kind", "output", "parameters", "MAC/image")
    table = [(row.name, row.kind, " x ".join(map(str, row.output_shape)), f"{row.parameters:,}", f"{row.macs:,}") for row in rows]
    total = ("total", "", "", f"{sum(row.parameters for row in rows):,}", f"{sum(row.macs for row in rows):,}")
    lines = [head, *table, total]
    width = [max(len(line[i]) for line in lines) for i in range(5)]
    return "\n".join(
        f"{a:<{width[0]}}  {b:<{width[1]}}  {c:<{width[2]}}  {d:>{width[3]}}  {e:>{width[4]}}".rstrip() for a, b, c, d, e in lines
    )
