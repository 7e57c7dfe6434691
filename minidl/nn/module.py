"""Module: a part of a network, with the parameters, buffers and modules that it holds, in order of definition."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..autodiff import Tensor
from ..backend import Array, to_device


class Parameter(Tensor):
    """A tensor to be trained."""

    __slots__ = ()

    def __init__(self, data, requires_grad: bool = True):
        super().__init__(data, requires_grad)


class Module:
    """Base of all layers and networks. A subclass defines forward(x), and keeps its Parameters and Modules as attributes."""

    training = True

    def forward(self, x: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} defines no forward")

    def __call__(self, x: Tensor) -> Tensor:
        y = self.forward(x)
        if isinstance(y, Tensor) and y is not x and y.creator and y.creator.module is None:
            y.creator.module = self
        for hook in self.__dict__.get("_forward_hooks", ()):
            hook(self, x, y)
        return y

    def register_forward_hook(self, hook: Callable[["Module", Tensor, Tensor], None]) -> Callable[[], None]:
        """Call hook(module, input, output) after every forward. Returns the function that takes the hook off again."""
        hooks = self.__dict__.setdefault("_forward_hooks", [])
        hooks.append(hook)
        return lambda: hooks.remove(hook)

    def register_buffer(self, name: str, array: Array) -> None:
        """Keep an array that is part of the state but is not trained."""
        self.__dict__.setdefault("_buffers", []).append(name)
        setattr(self, name, array)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """(name, module) of this module ("") and of all inside it, the outer first."""
        yield prefix, self
        for name, value in self.__dict__.items():
            if isinstance(value, Module):
                yield from value.named_modules(f"{prefix}.{name}" if prefix else name)

    def _named(self, belongs: Callable[["Module", str, Any], bool]) -> Iterator[tuple[str, "Module", str]]:
        """(full name, module, attribute), each object once, however many modules share it."""
        seen: list[Any] = []
        for prefix, module in self.named_modules():
            for attribute, value in module.__dict__.items():
                if belongs(module, attribute, value) and not any(value is other for other in seen):
                    seen.append(value)
                    yield f"{prefix}.{attribute}" if prefix else attribute, module, attribute

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) in order of definition."""
        for name, module, attribute in self._named(lambda module, attribute, value: isinstance(value, Parameter)):
            yield name, getattr(module, attribute)

    def parameters(self) -> Iterator[Parameter]:
        """The parameters in order of definition."""
        for _, parameter in self.named_parameters():
            yield parameter

    def state_dict(self) -> dict[str, Array]:
        """Name -> array of all parameters and buffers, not copied."""
        state = {}
        for name, module, attribute in self._named(
            lambda module, attribute, value: isinstance(value, Parameter) or attribute in module.__dict__.get("_buffers", ())
        ):
            value = getattr(module, attribute)
            state[name] = value.data if isinstance(value, Parameter) else value
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy arrays into the parameters and buffers, which stay where they are. All names and shapes must match."""
        own = self.state_dict()
        problems = [f"missing {name}" for name in own if name not in state]
        problems += [f"unexpected {name}" for name in state if name not in own]
        problems += [
            f"{name} has shape {np.shape(state[name])}, not {array.shape}"
            for name, array in own.items()
            if name in state and np.shape(state[name]) != array.shape
        ]
        if problems:
            raise ValueError("the state does not fit this network: " + "; ".join(problems))
        for name, array in own.items():
            array[...] = state[name]
        for parameter in self.parameters():
            parameter.version += 1

    def train(self, mode: bool = True) -> "Module":
        """Set training mode here and in all modules inside: dropout drops, batch norm uses the batch's statistics."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        return self.train(False)

    def to(self, device: str | None = None, dtype=None) -> "Module":
        """Move parameters and buffers to a device ("numpy", "cupy:0") and floating-point ones to a dtype.

        Before an optimiser is made: it packs the parameters into one buffer, where they have to stay.
        """

        def moved(array):
            if dtype is not None and array.dtype.kind == "f":
                array = array.astype(dtype, copy=False)
            return array if device is None else to_device(array, device)

        for name, parameter in self.named_parameters():
            if parameter.grad_buffer is not None:
                raise RuntimeError(f"{name} is packed by an optimiser already; call .to() before making the optimiser")
        for _, module in self.named_modules():
            for attribute, value in list(module.__dict__.items()):
                if isinstance(value, Parameter):
                    value.data, value.grad = moved(value.data), None
                elif attribute in module.__dict__.get("_buffers", ()):
                    setattr(module, attribute, moved(value))
        return self


class Sequential(Module):
    """Modules applied one after the other: Sequential(a, b), named 0, 1, ..., or Sequential({"conv1": a, "relu1": b})."""

    def __init__(self, *modules):
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], Mapping) else dict(enumerate(modules))
        for name, module in named.items():
            if not isinstance(module, Module):
                raise TypeError(f"Sequential takes Modules; {name} is a {type(module).__name__}")
            setattr(self, str(name), module)
        self._order = [str(name) for name in named]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this Sequential has no {name}; it has {', '.join(self.__dict__.get('_order', ()))}")

    def __iter__(self) -> Iterator[Module]:
        return (getattr(self, name) for name in self._order)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Module:
        return getattr(self, self._order[index])

    def forward(self, x):
        for module in self:
            x = module(x)
        return x
