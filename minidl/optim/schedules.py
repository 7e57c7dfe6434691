"""Learning rate schedules."""

import bisect
import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from ..functional.arguments import is_integer
from .optimizer import Optimizer, is_number


class LRScheduler:
    """Sets the learning rate of an optimiser's groups, as a pure function of the number of step() calls, last_epoch.

    A group's base_lr is its rate before the first schedule was made for it. Use one schedule at a time: a schedule sets the
    rate, and does not multiply the rate of another one. SequentialLR runs schedules one after the other.
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self.resume(0)

    def lr(self, base_lr: float, count: int) -> float:
        """The learning rate after `count` steps, for a group with this base_lr."""
        raise TypeError(f"{type(self).__name__} defines no lr")

    def resume(self, last_epoch: int) -> None:
        """Set the schedule to its state after `last_epoch` calls of step()."""
        self._go_to(last_epoch, self.base_lrs)

    def _go_to(self, last_epoch: int, base_lrs: list[float]) -> None:
        rates = [self.lr(base_lr, last_epoch) for base_lr in base_lrs]
        self.last_epoch, self.base_lrs = last_epoch, base_lrs
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def step(self) -> None:
        """Set the learning rates of the next step."""
        self.resume(self.last_epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """The current position of the schedule. Its settings are not included."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set the position of a schedule with the same settings. Raises ValueError, and changes nothing, for an invalid one."""
        last_epoch, base_lrs = _values(self, state_dict)
        if not is_integer(last_epoch, 0):
            raise ValueError(f"{type(self).__name__} takes a last_epoch of at least 0; got {last_epoch!r}")
        if not isinstance(base_lrs, list) or len(base_lrs) != len(self.base_lrs) or not all(is_number(rate) for rate in base_lrs):
            raise ValueError(f"{type(self).__name__} takes base_lrs for {len(self.base_lrs)} groups; got {base_lrs!r}")
        self._go_to(int(last_epoch), list(base_lrs))

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]


class StepLR(LRScheduler):
    """lr = base_lr gamma^(count // step_size). Krizhevsky 2012, section 5, divides by ten, but at times chosen by hand."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        if step_size < 1:
            raise ValueError(f"StepLR takes a step_size of at least 1; got {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def lr(self, base_lr: float, count: int) -> float:
        return base_lr * self.gamma ** (count // self.step_size)


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (base_lr - eta_min) (1 + cos(pi count / T_max)) / 2. It falls until T_max, then rises.

    Loshchilov and Hutter 2017, equation 5, without restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        if T_max < 1:
            raise ValueError(f"CosineAnnealingLR takes a T_max of at least 1; got {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def lr(self, base_lr: float, count: int) -> float:
        return _cosine(base_lr, self.eta_min, count / self.T_max)


class LinearLR(LRScheduler):
    """A warm-up: base_lr times a factor that changes linearly from start_factor to end_factor, then is constant.

    It changes over total_iters steps. Goyal et al. 2017, section 2.2.
    """

    def __init__(self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5):
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1 or total_iters < 1:
            raise ValueError(
                "LinearLR takes a start_factor above 0 and up to 1, an end_factor from 0 to 1 and total_iters of at least 1; "
                f"got {start_factor}, {end_factor} and {total_iters}"
            )
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def lr(self, base_lr: float, count: int) -> float:
        done = min(count, self.total_iters) / self.total_iters
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)


class SequentialLR(LRScheduler):
    """One schedule after the other: schedulers[i] starts at milestones[i - 1], and counts its steps from 0.

    Example, a warm-up before a cosine: SequentialLR(optimizer, [LinearLR(optimizer), CosineAnnealingLR(optimizer, 85)], [5]).
    """

    def __init__(self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int]):
        if any(not isinstance(scheduler, LRScheduler) for scheduler in schedulers):
            raise ValueError("SequentialLR takes schedules that are stepped without a metric; ReduceLROnPlateau needs one")
        if not all(is_integer(milestone, 1) for milestone in milestones):
            raise ValueError(f"SequentialLR takes milestones that are integers of at least 1; got {milestones}")
        if len(schedulers) != len(milestones) + 1 or sorted(set(milestones)) != list(milestones):
            raise ValueError(
                f"SequentialLR takes a milestone between each two schedules, in ascending order; got {len(schedulers)} "
                f"schedules and {milestones}"
            )
        if any(isinstance(scheduler, OneCycleLR) for scheduler in schedulers):
            raise ValueError("SequentialLR takes no OneCycleLR: that has its own warm-up and its own end")
        if any(scheduler.optimizer is not optimizer for scheduler in schedulers):
            raise ValueError("SequentialLR takes schedules of its own optimizer; one of these belongs to another")
        self.schedulers, self.milestones = schedulers, milestones
        super().__init__(optimizer)

    def lr(self, base_lr: float, count: int) -> float:
        i = bisect.bisect_right(self.milestones, count)
        return self.schedulers[i].lr(base_lr, count - (self.milestones[i - 1] if i else 0))


class OneCycleLR(LRScheduler):
    """A rise from max_lr / div_factor to max_lr, then a fall to max_lr / div_factor / final_div_factor, along half cosines.

    pct_start: the share of the total_steps in which the rate rises. max_lr: one rate for all groups, or a list with one for
    each. Calling step() more than total_steps times is an error. The base_lr of a later schedule is max_lr / div_factor,
    not the rate that the optimiser was made with.
    Smith and Topin 2017, with the cosines of fastai; as in PyTorch with cycle_momentum=False.
    """

    def __init__(
        self,
        optimizer: Optimizer,
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
            group["initial_lr"] = rate / div_factor
        super().__init__(optimizer)

    @property
    def max_lrs(self) -> list[float]:
        """The highest rate of each group."""
        return [base_lr * self.div_factor for base_lr in self.base_lrs]

    def lr(self, base_lr: float, count: int) -> float:
        if count > self.total_steps:
            raise ValueError(f"OneCycleLR was made for {self.total_steps} steps; this is one more")
        max_lr, end = base_lr * self.div_factor, base_lr / self.final_div_factor
        peak, last = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if count <= peak and peak > 0:
            return _cosine(base_lr, max_lr, count / peak)
        return _cosine(max_lr, end, min(1.0, (count - peak) / (last - peak)) if last > peak else 1.0)


class ReduceLROnPlateau:
    """Multiply each group's learning rate by factor when a metric has not improved for more than patience epochs.

    With factor 0.1 it is the rule of Krizhevsky 2012, section 5: divide by ten when the validation error stops improving.
    mode: "min" if smaller is better, else "max". A metric is better if it differs from the best so far by more than
    threshold, relative to the best with threshold_mode "rel", absolute with "abs". cooldown: the epochs after a reduction
    that are not counted. min_lr: a lower bound for all groups, or a list with one for each. A reduction of less than eps is
    not made.

    It depends only on the metrics given to step(). To resume a run, give it the metrics of the epochs so far; or load its
    state and the optimiser's state, which has the rates.
    """

    def __init__(
        self,
        optimizer: Optimizer,
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
        """End an epoch with this metric, a number."""
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

    def state_dict(self) -> dict[str, Any]:
        """The best metric and the counters. The rates are in the optimiser's state."""
        return {"best": self.best, "num_bad_epochs": self.num_bad_epochs, "cooldown_counter": self.cooldown_counter}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the best metric and the counters. Raises ValueError, and changes nothing, for an invalid state."""
        best, *counts = _values(self, state_dict)
        if not isinstance(best, Real) or not all(is_integer(count, 0) for count in counts):
            raise ValueError(f"ReduceLROnPlateau takes a best that is a number and counts of at least 0; got {dict(state_dict)}")
        self.best = float(best)
        self.num_bad_epochs, self.cooldown_counter = counts


def _values(schedule: LRScheduler | ReduceLROnPlateau, state_dict: Mapping[str, Any]) -> list:
    """The values of a state dict, in the order of the schedule's own state dict."""
    names = list(schedule.state_dict())
    if not isinstance(state_dict, Mapping) or set(state_dict) != set(names):
        raise ValueError(f"{type(schedule).__name__} takes a state with {', '.join(names)}; got {state_dict!r:.80}")
    return [state_dict[name] for name in names]


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
