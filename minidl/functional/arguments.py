"""Checks that functions share, of arguments, shapes and dtypes."""

import functools
import inspect
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ParamSpec

import numpy as np

from ..autodiff import Function, Tensor
from ..backend import device_of

P = ParamSpec("P")
DTYPES = tuple(map(np.dtype, ("float16", "float32", "float64")))


def pair(value: Any, name: str, at_least: int = 1) -> tuple[int, int]:
    """3 -> (3, 3) and (3, 5) -> (3, 5), for the axes H and W."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2 or not all(is_integer(v, at_least) for v in values):
        raise ValueError(f"{name} must be an integer of at least {at_least}, or a pair of them; got {value!r}")
    return int(values[0]), int(values[1])


def is_integer(value: Any, at_least: int) -> bool:
    """Python's and NumPy's integers count, True and False don't."""
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= at_least


def number(value: Any, name: str) -> float:
    """A number of Python or NumPy as Python's, which widens no float32."""
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number; got {value!r:.80}")
    return float(value)


def axis_of(function: str, x: Tensor, axis: Any) -> int:
    """One axis of x, negative ones counted from the end; a single number has the axis 0."""
    count = max(1, x.ndim)
    if not is_integer(axis, -count) or axis >= count:
        raise ValueError(f"{function} of x {x.shape} takes an axis from {-count} to {count - 1}; got {axis!r:.80}")
    return int(axis) % count


def require_4d(x: Tensor, function: str) -> None:
    if x.ndim != 4:
        raise ValueError(f"{function} takes x of shape (N, C, H, W); got {x.shape}")


def require_pixels(x: Tensor, function: str) -> None:
    require_4d(x, function)
    if 0 in x.shape[2:]:
        raise ValueError(f"{function} takes images of at least one pixel; got {x.shape}")


def require_only(owner: str, **settings: tuple[Any, Any]) -> None:
    """For settings that PyTorch has and minidl does not, name=(what was given, the only value there is): it changes nothing."""
    for name, (value, only) in settings.items():
        if not isinstance(value, type(only)) or value != only:
            raise ValueError(f"{owner} takes {name}={only!r} only; got {value!r:.80}")


def as_tensor(value: Any) -> Tensor:
    """A Tensor as it is; an array, a number or a list of numbers as one."""
    return value if isinstance(value, Tensor) else Tensor(value)


class Cast(Function):
    """y = x in another dtype;  dx = dy in that of x."""

    def __init__(self, dtype: Any):
        self.dtype = dtype

    def forward(self, x):
        return x.astype(self.dtype)

    def backward(self, grad):
        return grad


def floating(*names: str) -> Callable[[Callable[P, Tensor]], Callable[P, Tensor]]:
    """For a public function whose arguments `names` are tensors: of floating-point numbers, one dtype and one device.

    The function gets Tensors, whether it is called with these, arrays or lists; an argument whose default is None may be None.
    float16 is computed in float32 and rounded to float16 at the end: its sums would overflow at 65504. Raises TypeError for
    None, for dtypes other than float16, float32 and float64, or two of them, and ValueError for two devices.
    """

    def decorate(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
        parameters = inspect.signature(function).parameters
        places = [(name, list(parameters).index(name), parameters[name].default is None) for name in names]

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Tensor:
            positional = list(args)
            given: dict[str, tuple[Any, Any, Tensor]] = {}  # name: (where it stands, under which key, the tensor)
            for name, place, optional in places:
                where, key = (positional, place) if place < len(positional) else (kwargs, name)
                value = positional[place] if where is positional else kwargs.get(name)
                if value is not None:
                    given[name] = where, key, as_tensor(value)
                elif not optional and (where is positional or name in kwargs):
                    raise TypeError(f"{function.__name__} takes a tensor as {name}; got None")
            half = _check(function.__name__, {name: tensor for name, (_, _, tensor) in given.items()})
            for where, key, tensor in given.values():
                where[key] = Cast("float32")(tensor) if half else tensor
            y = function(*positional, **kwargs)
            return Cast("float16")(y) if half and y.dtype == "float32" else y

        return checked

    return decorate


def _check(function: str, tensors: dict[str, Tensor]) -> bool:
    """Whether the dtype of all is float16."""
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    for name, dtype in dtypes.items():
        if dtype not in DTYPES:
            raise TypeError(f"{function} takes float16, float32 or float64, but {name} is {dtype}: give {name}.astype('float32')")
    if len(set(dtypes.values())) > 1:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"{function} takes tensors of one dtype; got {listed}: convert one, as with net.to(dtype=...)")
    devices = {name: device_of(tensor.data) for name, tensor in tensors.items()}
    if len(set(devices.values())) > 1:
        listed = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"{function} takes tensors on one device; got {listed}: move one, as with net.to(device)")
    return next(iter(dtypes.values()), None) == "float16"
