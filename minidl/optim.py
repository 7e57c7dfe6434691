"""Stochastic gradient descent over flat buffers, and schedules of its learning rate."""

import math
from collections.abc import Iterable
from typing import Any

from .autodiff import Tensor
from .backend import Array, get_array_module
from .kernels import kernels_for


class SGD:
    """Gradient descent with momentum, PyTorch's rule (dampening 0):

        d = grad + weight_decay w;  v = momentum v + d;  w = w - lr v,  or w - lr (d + momentum v) with nesterov.

    With a constant lr this is the paper's section 5 with v scaled by -lr.

    params: parameters, or groups of them: dicts {"params": ..., and lr, momentum, weight_decay or nesterov of its own}.
    The parameters move into one flat buffer, in their order, and their gradients will be written into another: from here on
    p.data and p.grad are views of these, so that a device sends all gradients as one array. Write into p.data, do not
    replace it. A parameter without a gradient is left alone by step(). A later optimiser takes its parameters over from this.
    """

    def __init__(self, params, lr: float, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False):
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        groups = list(params)
        if not groups:
            raise ValueError("SGD got no parameters")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        self.param_groups: list[dict[str, Any]] = [{**defaults, **g, "params": list(g["params"])} for g in groups]
        for group in self.param_groups:
            _check(group)
        self.parameters: list[Tensor] = [p for group in self.param_groups for p in group["params"]]
        for i, p in enumerate(self.parameters):
            if any(p is other for other in self.parameters[:i]):
                raise ValueError("a parameter is given to SGD twice")
        self._views = self._pack()

    def _pack(self) -> dict[int, tuple[Array, Array, Array]]:
        """Move the parameters into flat buffers, one set for each dtype and device.

        Returns, by place in self.parameters, the flat (data, gradient, velocity) of each.
        """
        kinds: dict[tuple, list[int]] = {}
        for i, p in enumerate(self.parameters):
            kinds.setdefault((p.dtype, str(getattr(p.data, "device", "cpu"))), []).append(i)
        views = {}
        for members in kinds.values():
            first = self.parameters[members[0]].data
            xp = get_array_module(first)
            total = sum(self.parameters[i].data.size for i in members)
            flat = [xp.zeros(total, first.dtype) for _ in ("data", "gradient", "velocity")]
            start = 0
            for i in members:
                p = self.parameters[i]
                data, gradient, velocity = (buffer[start : start + p.data.size] for buffer in flat)
                start += p.data.size
                data[...] = p.data.reshape(-1)
                views[i] = data, gradient, velocity
                p.data, p.grad, p.grad_buffer = data.reshape(p.shape), None, gradient.reshape(p.shape)
        self._owned = [p.data for p in self.parameters]
        return views

    def zero_grad(self) -> None:
        """Forget the gradients: the next backward writes new ones."""
        for p in self.parameters:
            p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        place = 0
        for group in self.param_groups:
            coefficients = [group[name] for name in ("lr", "momentum", "weight_decay", "nesterov")]
            for p in group["params"]:
                data, gradient, velocity = self._views[place]
                if p.data is not self._owned[place]:
                    raise RuntimeError(
                        f"the data of a parameter of shape {p.shape} was replaced after SGD packed it; write p.data[...] = ..."
                    )
                if p.grad is not None:
                    if p.grad is not p.grad_buffer:
                        p.grad_buffer[...] = p.grad
                    kernels_for(data).sgd_update(data, gradient, velocity, *coefficients)
                place += 1

    @property
    def momentum_buffers(self) -> list[Array]:
        """The velocity of each parameter, in their order and of their shape: views, to be saved or written into."""
        return [self._views[i][2].reshape(p.shape) for i, p in enumerate(self.parameters)]


def _check(group: dict[str, Any]) -> None:
    for name in ("lr", "momentum", "weight_decay"):
        if not (isinstance(group[name], (int, float)) and 0 <= group[name] < math.inf):
            raise ValueError(f"SGD takes a {name} of at least 0; got {group[name]!r}")
    if group["nesterov"] and not group["momentum"]:
        raise ValueError("nesterov needs a momentum above 0")


class LRScheduler:
    """Sets the learning rate of an optimiser's groups, as a pure function of the number of step() calls, last_epoch."""

    def __init__(self, optimizer: SGD):
        self.optimizer = optimizer
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.resume(0)

    def lr(self, base_lr: float, count: int) -> float:
        """The learning rate after `count` steps of a group that was made with base_lr."""
        raise TypeError(f"{type(self).__name__} defines no lr")

    def resume(self, last_epoch: int) -> None:
        """Go to where `last_epoch` calls of step() lead."""
        self.last_epoch = last_epoch
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.lr(base_lr, last_epoch)

    def step(self) -> None:
        self.resume(self.last_epoch + 1)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]


class StepLR(LRScheduler):
    """lr = base_lr gamma^(count // step_size): the paper's division by ten, at fixed times (section 5)."""

    def __init__(self, optimizer: SGD, step_size: int, gamma: float = 0.1):
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def lr(self, base_lr, count):
        return base_lr * self.gamma ** (count // self.step_size)


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr in the first pct_start of the steps, then down to a 1 / final_div_factor of the
    start, along half cosines. Smith and Topin 2017; as PyTorch's with cycle_momentum=False.

    max_lr: for all groups, or a list with one for each. One step() more than total_steps is an error.
    """

    def __init__(
        self,
        optimizer: SGD,
        max_lr: float | Iterable[float],
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ):
        self.total_steps, self.pct_start = total_steps, pct_start
        self.div_factor, self.final_div_factor = div_factor, final_div_factor
        groups = optimizer.param_groups
        rates = list(max_lr) if isinstance(max_lr, Iterable) else [max_lr] * len(groups)
        if len(rates) != len(groups) or total_steps < 1 or not 0 <= pct_start <= 1:
            raise ValueError(
                f"OneCycleLR takes a max_lr for each of {len(groups)} groups, total_steps of at least 1 and pct_start between "
                f"0 and 1; got {max_lr}, {total_steps} and {pct_start}"
            )
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        super().__init__(optimizer)

    def lr(self, base_lr, count):
        if count > self.total_steps:
            raise ValueError(f"OneCycleLR was made for {self.total_steps} steps; this is one more")
        start, end = base_lr / self.div_factor, base_lr / self.div_factor / self.final_div_factor
        peak, last = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if count <= peak and peak > 0:
            return _cosine(start, base_lr, count / peak)
        return _cosine(base_lr, end, min(1.0, (count - peak) / (last - peak)) if last > peak else 1.0)


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
