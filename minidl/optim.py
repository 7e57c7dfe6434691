"""Stochastic gradient descent over flat buffers, and schedules of its learning rate."""

import bisect
import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

from .autodiff import Tensor
from .backend import Array, get_array_module
from .functional.arguments import is_integer
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
        groups = _listed(params)
        if not groups:
            raise ValueError("SGD got no parameters")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        if not all(isinstance(group, dict) and "params" in group for group in groups):
            raise TypeError(f'SGD takes parameters, or groups of them that are all dicts with "params"; got {groups}')
        self.param_groups: list[dict[str, Any]] = [{**defaults, **g, "params": _listed(g["params"])} for g in groups]
        for group in self.param_groups:
            _check(group)
        self.parameters: list[Tensor] = [p for group in self.param_groups for p in group["params"]]
        for p in self.parameters:
            if not isinstance(p, Tensor):
                raise TypeError(f"SGD takes tensors, such as net.parameters(); got a {type(p).__name__}")
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
        self.flat_gradients: list[tuple[Array, list[Tensor]]] = []  # each flat buffer, and whose gradients lie in it
        for members in kinds.values():
            first = self.parameters[members[0]].data
            xp = get_array_module(first)
            total = sum(self.parameters[i].data.size for i in members)
            flat = [xp.zeros(total, first.dtype) for _ in ("data", "gradient", "velocity")]
            self.flat_gradients.append((flat[1], [self.parameters[i] for i in members]))
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
        """Forget the gradients: the next backward writes new ones, over the old where p.grad was a view of the flat buffer."""
        for p in self.parameters:
            p.grad = None

    def step(self, loss: Tensor | Array | None = None) -> None:
        """Update every parameter that has a gradient.

        loss: one number, a Tensor or an array on their device. If it is not finite, nothing is changed; nobody waits for a
        GPU to know it.
        """
        if loss is not None:
            loss = _one_number(loss, self.parameters[0].data)
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
                    kernels_for(data).sgd_update(data, gradient, velocity, *coefficients, loss)
                    p.version += 1
                place += 1

    @property
    def momentum_buffers(self) -> list[Array]:
        """The velocity of each parameter, in their order and of their shape: views, to be saved or written into."""
        return [self._views[i][2].reshape(p.shape) for i, p in enumerate(self.parameters)]


def _listed(params) -> list:
    return [params] if isinstance(params, (Tensor, dict)) else list(params)


def _one_number(loss, like: Array) -> Array:
    """A loss as the array of one float64 that the kernels take."""
    array = loss.data if isinstance(loss, Tensor) else loss
    if getattr(array, "size", 0) != 1 or get_array_module(array) is not get_array_module(like):
        raise ValueError(f"step takes a loss of one number, a Tensor or an array on the parameters' device; got {loss!r}")
    return array.reshape(1).astype("float64", copy=False)


def _check(group: dict[str, Any]) -> None:
    for name in ("lr", "momentum", "weight_decay"):
        if not (isinstance(group[name], Real) and 0 <= group[name] < math.inf):
            raise ValueError(f"SGD takes a {name} of at least 0; got {group[name]!r}")
        group[name] = float(group[name])
    if group["nesterov"] and not group["momentum"]:
        raise ValueError("nesterov needs a momentum above 0")


class LRScheduler:
    """Sets the learning rate of an optimiser's groups, as a pure function of the number of step() calls, last_epoch.

    A group's base_lr is the rate that it had before the first schedule was made for it. One schedule at a time: it sets the
    rate, and does not multiply what another one set; SequentialLR puts them one after the other.
    """

    def __init__(self, optimizer: SGD):
        self.optimizer = optimizer
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
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
        if step_size < 1:
            raise ValueError(f"StepLR takes a step_size of at least 1; got {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def lr(self, base_lr, count):
        return base_lr * self.gamma ** (count // self.step_size)


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (base_lr - eta_min) (1 + cos(pi count / T_max)) / 2: half a cosine down, and up again after T_max.

    Loshchilov and Hutter 2017, equation 5, without its restarts.
    """

    def __init__(self, optimizer: SGD, T_max: int, eta_min: float = 0.0):
        if T_max < 1:
            raise ValueError(f"CosineAnnealingLR takes a T_max of at least 1; got {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def lr(self, base_lr, count):
        return _cosine(base_lr, self.eta_min, count / self.T_max)


class LinearLR(LRScheduler):
    """base_lr times a factor that goes straight from start_factor to end_factor in total_iters steps, and stays: a warm-up.

    Goyal et al. 2017, section 2.2.
    """

    def __init__(self, optimizer: SGD, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5):
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1 or total_iters < 1:
            raise ValueError(
                "LinearLR takes a start_factor above 0 and up to 1, an end_factor from 0 to 1 and total_iters of at least 1; "
                f"got {start_factor}, {end_factor} and {total_iters}"
            )
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def lr(self, base_lr, count):
        done = min(count, self.total_iters) / self.total_iters
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)


class SequentialLR(LRScheduler):
    """One schedule after the other: schedulers[i] from milestones[i - 1] on, each counting from 0 again.

    A warm-up before a cosine: SequentialLR(optimizer, [LinearLR(optimizer), CosineAnnealingLR(optimizer, 85)], [5]).
    """

    def __init__(self, optimizer: SGD, schedulers: list[LRScheduler], milestones: list[int]):
        if any(not isinstance(scheduler, LRScheduler) for scheduler in schedulers):
            raise ValueError("SequentialLR takes schedules that are stepped without a metric; ReduceLROnPlateau is none")
        if not all(is_integer(milestone, 1) for milestone in milestones):
            raise ValueError(f"SequentialLR takes milestones that are integers of at least 1; got {milestones}")
        if len(schedulers) != len(milestones) + 1 or sorted(set(milestones)) != list(milestones):
            raise ValueError(
                f"SequentialLR takes a milestone between each two schedules, in ascending order; got {len(schedulers)} "
                f"schedules and {milestones}"
            )
        if any(isinstance(scheduler, OneCycleLR) for scheduler in schedulers):
            raise ValueError("SequentialLR takes no OneCycleLR: that has a warm-up and an end of its own")
        if any(scheduler.optimizer is not optimizer for scheduler in schedulers):
            raise ValueError("SequentialLR takes schedules of its own optimizer; one of these is another's")
        self.schedulers, self.milestones = schedulers, milestones
        super().__init__(optimizer)

    def lr(self, base_lr, count):
        i = bisect.bisect_right(self.milestones, count)
        return self.schedulers[i].lr(base_lr, count - (self.milestones[i - 1] if i else 0))


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr in the first pct_start of the steps, then down to a 1 / final_div_factor of the
    start, along half cosines. Smith and Topin 2017, with fastai's cosines; as PyTorch's with cycle_momentum=False.

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
            group["initial_lr"] = rate
        super().__init__(optimizer)

    def lr(self, base_lr, count):
        if count > self.total_steps:
            raise ValueError(f"OneCycleLR was made for {self.total_steps} steps; this is one more")
        start, end = base_lr / self.div_factor, base_lr / self.div_factor / self.final_div_factor
        peak, last = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if count <= peak and peak > 0:
            return _cosine(start, base_lr, count / peak)
        return _cosine(base_lr, end, min(1.0, (count - peak) / (last - peak)) if last > peak else 1.0)


class ReduceLROnPlateau:
    """Multiplies each group's learning rate by factor once a metric has not become better for more than patience epochs.

    With factor 0.1 the paper's rule: divide by ten when the validation error stops improving (section 5). mode: "min" if
    less is better, else "max". Better is what beats the best so far by threshold: by that share of it with threshold_mode
    "rel", by that much with "abs". cooldown: epochs after a reduction in which nothing is counted. min_lr: a bound for all
    groups, or a list with one for each. A reduction of less than eps is left out.

    It depends on nothing but the metrics given to step(); to go on with a run, give it those of the epochs before.
    """

    def __init__(
        self,
        optimizer: SGD,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Iterable[float] = 0.0,
        eps: float = 1e-8,
    ):
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                'ReduceLROnPlateau takes mode "min" or "max" and threshold_mode "rel" or "abs"; '
                f"got {mode!r} and {threshold_mode!r}"
            )
        groups = optimizer.param_groups
        self.min_lrs = list(min_lr) if isinstance(min_lr, Iterable) else [min_lr] * len(groups)
        if not 0 <= factor < 1 or len(self.min_lrs) != len(groups):
            raise ValueError(
                f"ReduceLROnPlateau takes a factor from 0 to below 1 and a min_lr for each of {len(groups)} groups; "
                f"got {factor} and {min_lr}"
            )
        self.optimizer, self.factor, self.patience, self.cooldown, self.eps = optimizer, factor, patience, cooldown, eps
        self.sign = 1 if mode == "min" else -1
        self.threshold, self.relative = threshold, threshold_mode == "rel"
        self.best = math.inf * self.sign
        self.num_bad_epochs = self.cooldown_counter = 0

    def step(self, metrics: float) -> None:
        """Count an epoch with this metric, a number."""
        if self._better(metrics):
            self.best, self.num_bad_epochs = metrics, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            for group, min_lr in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                lr = max(group["lr"] * self.factor, min_lr)
                if group["lr"] - lr > self.eps:
                    group["lr"] = lr

    def _better(self, metrics: float) -> bool:
        bound = self.best * (1 - self.sign * self.threshold) if self.relative else self.best - self.sign * self.threshold
        return self.sign * metrics < self.sign * bound

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
