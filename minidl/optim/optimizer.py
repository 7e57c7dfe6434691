"""The base of all optimisers: groups of parameters, flat buffers, and a state that can be saved and copied."""

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, TypeAlias

from ..autodiff import Tensor
from ..backend import Array, as_array, device_of, get_array_module, to_device
from ..functional.arguments import require_only

Parameters: TypeAlias = Tensor | dict[str, Any] | Iterable[Tensor] | Iterable[dict[str, Any]]


class Optimizer:
    """The base of all optimisers. A subclass names its settings and the state of a parameter, and defines _update.

    The parameters move into one flat buffer for each dtype and device, in their order. Their gradients and their state move
    into flat buffers too. flat_gradients holds each flat buffer of gradients, with the parameters whose gradients are in it.
    Copy or pickle a network and its optimiser together, as in copy.deepcopy((net, optimizer)), so that the copies are linked.
    """

    numbers: tuple[str, ...] = ("lr", "weight_decay")  # settings that are numbers of at least 0
    fixed: dict[str, Any] = {}  # PyTorch settings for which one value only is accepted
    buffers: tuple[str, ...] = ()  # the state of a parameter: arrays of its shape,
    counts: tuple[str, ...] = ()  # and numbers

    def __init__(self, params: Parameters, fixed: dict[str, Any], **settings: Any):
        name = type(self).__name__
        unknown = fixed.keys() - self.fixed.keys()
        if unknown:
            raise TypeError(f"{name} takes no argument {', '.join(sorted(unknown))}")
        defaults = settings | self.fixed | fixed
        groups = _listed(params)
        if not groups:
            raise ValueError(f"{name} got no parameters")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        if not all(isinstance(group, dict) and "params" in group for group in groups):
            raise TypeError(f'{name} takes parameters, or groups of them that are all dicts with "params"; got {groups}')
        self.param_groups: list[dict[str, Any]] = [{**defaults, **g, "params": _listed(g["params"])} for g in groups]
        for group in self.param_groups:
            self._check(group)
        seen: set[int] = set()
        for p in self.parameters:
            if not isinstance(p, Tensor):
                raise TypeError(f"{name} takes tensors, such as net.parameters(); got a {type(p).__name__}")
            if p.dtype.kind != "f":
                raise TypeError(f"{name} takes floating-point tensors; one of shape {p.shape} is {p.dtype}")
            if p.creator is not None:
                raise ValueError(f"{name} takes leaves, but a tensor of shape {p.shape} was computed from others: give those")
            if id(p) in seen:
                raise ValueError(f"a parameter was given to {name} twice")
            seen.add(id(p))
        self._pack()

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters of all groups, in their order."""
        return [p for group in self.param_groups for p in group["params"]]

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Set all gradients to None. The next backward writes into the flat buffer again, over the old values."""
        require_only("zero_grad", set_to_none=(set_to_none, True))
        for p in self.parameters:
            p.grad = None

    def step(self, loss: Tensor | Array | None = None) -> None:
        """Update every parameter that has a gradient.

        loss: one number, a Tensor or an array on the parameters' device. If it is NaN or infinite, nothing is changed; the
        GPU checks this itself, without waiting.
        """
        if loss is not None:
            loss = _one_number(loss, self.parameters[0].data)
        members = [(group, p) for group in self.param_groups for p in group["params"]]
        for (group, p), owned, flat in zip(members, self._owned, self._flat, strict=True):
            if p.data is not owned:
                raise RuntimeError(
                    f"the data of a parameter of shape {p.shape} was replaced after {type(self).__name__} packed it; "
                    "write p.data[...] = ..."
                )
            if p.grad is not None:
                if p.grad.shape != p.shape:
                    raise ValueError(f"a parameter of shape {p.shape} has a gradient of shape {p.grad.shape}")
                if p.grad is not p.grad_buffer:
                    p.grad_buffer[...] = p.grad
                self._update(group, *flat, loss)
                p.version += 1

    def state_dict(self) -> dict[str, Any]:
        """{"state": {index of a parameter: {name: array}}, "param_groups": [...]}, as in PyTorch; arrays are not copied."""
        places = iter(range(len(self._flat)))
        groups = [{**group, "params": [next(places) for _ in group["params"]]} for group in self.param_groups]
        return {"state": {i: self._state(i) for i in range(len(self._flat))}, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy a state into this optimiser's buffers and groups.

        Raises ValueError, and changes nothing, if the state belongs to other parameters, groups or settings.
        """
        own, name = self.state_dict(), type(self).__name__
        try:
            ours, theirs = _outline(own), _outline(state_dict)
        except (AttributeError, KeyError, TypeError):
            raise ValueError(f"{name}.load_state_dict takes a state of {name}.state_dict; got {state_dict!r:.80}") from None
        problems = [f"missing {what}" for what in ours if what not in theirs]
        problems += [f"unexpected {what}" for what in theirs if what not in ours]
        problems += [f"{what} is {theirs[what]}, not {ours[what]}" for what in ours if ours[what] != theirs.get(what, ours[what])]
        if problems:
            raise ValueError(f"the state does not fit this {name}: " + "; ".join(problems))
        groups = [dict(group) for group in state_dict["param_groups"]]
        for group in groups:
            self._check(group)
        for group, saved in zip(self.param_groups, groups, strict=True):
            group.update(saved | {"params": group["params"]})
        for i, state in state_dict["state"].items():
            for what, array in state.items():
                buffer = own["state"][i][what]
                buffer[...] = to_device(as_array(array), device_of(buffer))

    def __copy__(self) -> "Optimizer":
        """A copy that shares all arrays with this optimiser, because a parameter can be in one buffer only."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {"param_groups": self.param_groups, "state": [self._state(i) for i in range(len(self._flat))]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Pack the parameters of the copy again: copied arrays are not views of a flat buffer."""
        self.param_groups = state["param_groups"]
        self._pack()
        for i, arrays in enumerate(state["state"]):
            for what, buffer in self._state(i).items():
                buffer[...] = arrays[what]

    def _pack(self) -> None:
        """Move the parameters, and any gradients they have, into flat buffers."""
        parameters = self.parameters
        kinds: dict[tuple, list[int]] = {}
        for i, p in enumerate(parameters):
            kinds.setdefault((p.dtype, device_of(p.data)), []).append(i)
        self.flat_gradients: list[tuple[Array, list[Tensor]]] = []
        packed: dict[int, tuple[Array, Array, dict[str, Array]]] = {}
        for places in kinds.values():
            members = [parameters[i] for i in places]
            xp, dtype = get_array_module(members[0].data), members[0].dtype
            total = sum(p.data.size for p in members)
            flat_data, flat_gradient = xp.zeros(total, dtype), xp.zeros(total, dtype)
            state = {name: xp.zeros(total, dtype) for name in self.buffers}
            counts = {name: xp.zeros(len(members), "float64") for name in self.counts}
            self.flat_gradients.append((flat_gradient, members))
            start = 0
            for k, (i, p) in enumerate(zip(places, members, strict=True)):
                at = slice(start, start + p.data.size)
                start = at.stop
                data, gradient = flat_data[at], flat_gradient[at]
                packed[i] = (
                    data,
                    gradient,
                    {name: flat[at] for name, flat in state.items()} | {name: flat[k : k + 1] for name, flat in counts.items()},
                )
                data[...] = p.data.reshape(-1)
                p.data, p.grad_buffer = data.reshape(p.shape), gradient.reshape(p.shape)
                if p.grad is not None:
                    p.grad_buffer[...] = p.grad
                    p.grad = p.grad_buffer
        self._flat = [packed[i] for i in range(len(parameters))]  # of each parameter, 1-D: data, gradient, state by name
        self._owned = [p.data for p in parameters]

    def _state(self, place: int) -> dict[str, Array]:
        """The state of a parameter by PyTorch's names: views, of the parameter's shape or of a single number."""
        shape = self._owned[place].shape
        return {name: flat.reshape(() if name in self.counts else shape) for name, flat in self._flat[place][2].items()}

    def _check(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a wrong setting; convert numbers to Python floats."""
        name = type(self).__name__
        for setting in (*self.numbers, *({"initial_lr"} & group.keys())):
            if not is_number(group[setting]):
                raise ValueError(f"{name} takes {setting} of at least 0; got {group[setting]!r}")
            group[setting] = float(group[setting])
        for setting, value in self.fixed.items():
            if group[setting] != value:
                raise ValueError(f"{name} takes {setting}={value} only; got {group[setting]!r}")

    def _update(self, group: dict[str, Any], data: Array, gradient: Array, state: dict[str, Array], loss: Array | None) -> None:
        """Update one parameter, whose arrays have one axis. If the loss, one float64, is not finite, change nothing."""
        raise TypeError(f"{type(self).__name__} defines no _update")


def is_number(value: Any, below: float = math.inf) -> bool:
    """Whether a value is a real number of at least 0 and below `below`."""
    return isinstance(value, Real) and 0 <= float(value) < below


def _listed(params) -> list:
    return [params] if isinstance(params, (Tensor, dict)) else list(params)


def _one_number(loss, like: Array) -> Array:
    """A loss as the array of one float64 that the kernels take."""
    array = loss.data if isinstance(loss, Tensor) else loss
    if getattr(array, "size", 0) != 1 or get_array_module(array) is not get_array_module(like):
        raise ValueError(f"step takes a loss of one number, a Tensor or an array on the parameters' device; got {loss!r}")
    return array.reshape(1).astype("float64", copy=False)


def _outline(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The structure of a state by name: shapes of arrays, indices in groups. initial_lr is optional, as schedules add it."""
    outline: dict[str, Any] = {}
    for i, state in state_dict["state"].items():
        for name, array in state.items():
            array = as_array(array)
            outline[f"{name} of parameter {i!r}"] = array.shape if array.dtype.kind in "biuf" else array.dtype
    for i, group in enumerate(state_dict["param_groups"]):
        outline |= {f"{name} of group {i}": "there" for name in group if name != "initial_lr"}
        outline[f"params of group {i}"] = list(group["params"])
    return outline
