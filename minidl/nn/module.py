"""Module: a part of a network. It holds parameters, buffers and modules, in order of definition."""

import collections
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, ValuesView
from typing import Any, NamedTuple

import numpy as np

from ..autodiff import Function, Tensor
from ..backend import Array, as_array, device_of, to_device
from ..functional.arguments import require_only
from .init import write


class Parameter(Tensor):
    """A tensor that is trained."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        super().__init__(data, requires_grad)


class RemovableHandle:
    """The handle of a registered hook; remove() removes the hook."""

    def __init__(self, hooks: dict["RemovableHandle", Callable[..., Any]], hook: Callable[..., Any]):
        self._hooks = hooks
        hooks[self] = hook

    def remove(self) -> None:
        self._hooks.pop(self, None)


class IncompatibleKeys(NamedTuple):
    """The names that are in the network but not in the state (missing), and the reverse (unexpected)."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """The base of all layers and networks. A subclass defines forward, and keeps its Parameters and Modules as attributes."""

    training = True
    _buffers: tuple[str, ...] = ()  # the attributes that are buffers

    def __setattr__(self, name: str, value: Any) -> None:
        self._require_findable(name, value)
        super().__setattr__(name, value)

    def _require_findable(self, name: str, value: Any) -> None:
        if _holds_modules(value):
            raise TypeError(
                f"{type(self).__name__}.{name} is a {type(value).__name__} of Modules or Parameters, and they would not be "
                "found there; make it an nn.ModuleList or nn.Sequential, and give each Parameter an attribute of its own"
            )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation of the module, which a subclass defines. Call it as module(...)."""
        raise TypeError(f"{type(self).__name__} defines no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.forward(*args, **kwargs)
        given = any(output is value for value in (*args, *kwargs.values()))
        if isinstance(output, Tensor) and not given and isinstance(output.creator, Function) and output.creator.module is None:
            output.creator.module = self
        for hook in list(self.__dict__.get("_forward_hooks", {}).values()):
            result = hook(self, args, output)
            output = output if result is None else result
        return output

    def register_forward_hook(self, hook: Callable[["Module", tuple[Any, ...], Any], Any]) -> RemovableHandle:
        """Call hook(module, args, output) after every forward; args: the positional arguments, a tuple.

        If the hook returns a value other than None, this value replaces the output. The handle's remove() removes the hook.
        """
        return RemovableHandle(self.__dict__.setdefault("_forward_hooks", {}), hook)

    def register_buffer(self, name: str, array: Array) -> None:
        """Keep an array that is part of the state but is not trained. None declares the name without an array."""
        if isinstance(array, Tensor):
            raise TypeError(f"buffer {name} is a {type(array).__name__}; a buffer is an array, such as its .data")
        self._buffers = (*self._buffers, name)
        setattr(self, name, array)

    def add_module(self, name: str, module: "Module") -> None:
        """Add a module as the attribute `name`."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__} takes Modules; {name} is a {type(module).__name__}")
        if not name or "." in name or hasattr(type(self), name):
            raise ValueError(f"a module of {type(self).__name__} cannot have the name {name!r}; choose another")
        setattr(self, name, module)

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, module) of the modules that this module holds directly."""
        for name, value in self.__dict__.items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator["Module"]:
        """The modules that this module holds directly."""
        for _, module in self.named_children():
            yield module

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """(name, module) of this module (name "") and all modules inside it; outer ones first, each once."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) not in seen:
                seen.add(id(module))
                for attribute, value in module.__dict__.items():
                    module._require_findable(attribute, value)  # a list may have grown since it was assigned
                yield name, module
                stack += reversed([(f"{name}.{child}" if name else child, m) for child, m in module.named_children()])

    def modules(self) -> Iterator["Module"]:
        """This module and all modules inside it; outer ones first, each once."""
        for _, module in self.named_modules():
            yield module

    def _named(self, belongs: Callable[["Module", str, Any], bool]) -> Iterator[tuple[str, Any]]:
        """(name, value) of the attributes that belong; an object that several modules share comes once."""
        seen: list[Any] = []
        for prefix, module in self.named_modules():
            for attribute, value in module.__dict__.items():
                if belongs(module, attribute, value) and not any(value is other for other in seen):
                    seen.append(value)
                    yield f"{prefix}.{attribute}" if prefix else attribute, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) in order of definition."""
        return self._named(_is_parameter)

    def parameters(self) -> Iterator[Parameter]:
        """The parameters in order of definition."""
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """(name, array) in order of definition."""
        return self._named(_is_buffer)

    def buffers(self) -> Iterator[Array]:
        """The buffers in order of definition."""
        for _, array in self.named_buffers():
            yield array

    def _named_state(self) -> dict[str, Any]:
        """Name -> parameter or buffer."""
        return dict(self._named(lambda *attribute: _is_parameter(*attribute) or _is_buffer(*attribute)))

    def state_dict(self) -> dict[str, Array]:
        """Name -> array of all parameters and buffers.

        The arrays are those of the network, not copies: they change as it is trained. A new optimiser moves the parameters
        into its own buffer; a state taken before that keeps the old arrays, which no longer change.
        """
        return {name: own.data if isinstance(own, Tensor) else own for name, own in self._named_state().items()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy a state into the parameters and buffers in place; names and shapes must match.

        state: name -> array or Tensor, of a dtype that converts to the network's: integers to floating point, but no
        complex numbers and no strings. strict=False: names that only one side has are ignored, and returned.

        Raises ValueError, and changes nothing, if a part does not fit.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict takes names and arrays, such as state_dict() returns; got a {type(state).__name__}")
        own = self._named_state()
        keys = IncompatibleKeys([name for name in own if name not in state], [name for name in state if name not in own])
        problems = [f"missing {name}" for name in keys.missing_keys] if strict else []
        problems += [f"unexpected {name}" for name in keys.unexpected_keys] if strict else []
        loaded = {
            name: value.data if isinstance(value, Tensor) else as_array(value) for name, value in state.items() if name in own
        }
        for name, array in loaded.items():
            if array.shape != own[name].shape:
                problems.append(f"{name} has shape {array.shape}, not {own[name].shape}")
            elif not np.can_cast(array.dtype, own[name].dtype, "same_kind"):
                problems.append(f"{name} is {array.dtype}, which does not convert to {own[name].dtype}")
        if problems:
            raise ValueError("the state does not fit this network: " + "; ".join(problems))
        for name, array in loaded.items():
            if isinstance(own[name], Tensor):
                write(own[name], to_device(array, device_of(own[name].data)))
            else:
                own[name][...] = to_device(array, device_of(own[name]))
        return keys

    def train(self, mode: bool = True) -> "Module":
        """Set training mode here and in all modules inside: dropout drops, batch norm uses the batch's statistics."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        """Set evaluation mode: train(False)."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> "Module":
        """Set requires_grad of all parameters. False freezes them: backward computes no gradients for them."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Set the gradients of all parameters to None."""
        require_only("zero_grad", set_to_none=(set_to_none, True))
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, device: str | None = None, dtype: Any = None) -> "Module":
        """Move parameters and buffers to a device ("numpy", "cupy:0"), and convert floating-point ones to a dtype.

        Call it before making an optimiser: that packs the parameters into one buffer, where they must stay.
        """
        if dtype is not None and np.dtype(dtype).kind != "f":
            raise TypeError(f"a network has a floating-point dtype; got {np.dtype(dtype)}")

        def moved(array):
            if dtype is not None and array.dtype.kind == "f":
                array = array.astype(dtype, copy=False)
            return array if device is None else to_device(array, device)

        for name, parameter in self.named_parameters():
            if parameter.grad_buffer is not None:
                raise RuntimeError(f"{name} is packed by an optimiser already; call .to() before making the optimiser")
        for module in self.modules():
            for attribute, value in list(module.__dict__.items()):
                if isinstance(value, Parameter):
                    value.data, value.grad = moved(value.data), None
                elif _is_buffer(module, attribute, value):
                    setattr(module, attribute, moved(value))
        return self

    def extra_repr(self) -> str:
        """The settings that repr shows."""
        return ""

    def __repr__(self) -> str:
        settings = self.extra_repr()
        parts = [f"({name}): {module!r}" for name, module in self.named_children()]
        if parts:
            lines = "\n".join([settings, *parts] if settings else parts)
            settings = "\n" + textwrap.indent(lines, "  ") + "\n"
        return f"{type(self).__name__}({settings})"


def _is_parameter(module: Module, attribute: str, value: Any) -> bool:
    return isinstance(value, Parameter)


def _is_buffer(module: Module, attribute: str, value: Any) -> bool:
    return attribute in module._buffers and value is not None


def _holds_modules(value: Any) -> bool:
    containers = list, tuple, set, frozenset, collections.deque, ValuesView
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, containers) else ()
    return any(isinstance(part, (Module, Parameter)) or _holds_modules(part) for part in parts)


class _Modules(Module):
    """An ordered list of modules, accessible by index and by name."""

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __len__(self) -> int:
        return len(list(self.children()))

    def _name(self, index: int) -> str:
        names = [name for name, _ in self.named_children()]
        try:
            return names[index]
        except IndexError:
            raise IndexError(f"this {type(self).__name__} has {len(names)} modules; there is none at index {index}") from None

    def __setitem__(self, index: int, module: Module) -> None:
        self.add_module(self._name(index), module)


class Sequential(_Modules):
    """Modules applied one after the other: Sequential(a, b), named 0, 1, ..., or Sequential({"conv1": a, "relu1": b}).

    net[-1] is its last module, net[1:3] a Sequential of some of its modules, under their names.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]):
        named: Mapping[Any, Any] = dict(enumerate(modules))
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = modules[0]
        for name, module in named.items():
            self.add_module(str(name), module)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this Sequential has no {name}; it has {', '.join(name for name, _ in self.named_children())}")

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Sequential(dict(list(self.named_children())[index]))
        return getattr(self, self._name(index))

    def append(self, module: Module) -> "Sequential":
        """Add a module at the end. Its name is the first free number from len(self) on."""
        number = len(self)
        while str(number) in self.__dict__:
            number += 1
        self.add_module(str(number), module)
        return self

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x


class ModuleList(_Modules):
    """A list of modules, named 0, 1, ...: ModuleList([a, b]). It has no forward; the network that holds it calls them."""

    def __init__(self, modules: Iterable[Module] = ()):
        self.extend(modules)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return ModuleList(list(self)[index])
        return getattr(self, self._name(index))

    def append(self, module: Module) -> "ModuleList":
        """Add a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> "ModuleList":
        """Add modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Insert a module before the one at an index, as list.insert does."""
        modules = list(self)
        modules.insert(index, module)
        for i, part in enumerate(modules):
            self.add_module(str(i), part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a ModuleList has no forward; call the modules in it, or use nn.Sequential")
