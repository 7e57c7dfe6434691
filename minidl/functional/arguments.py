"""Checks that functions share, of arguments, shapes and dtypes."""

import functools
import inspect
from collections.abc import Callable
from numbers import Integral
from typing import Any, ParamSpec

from ..autodiff import Function, Tensor
from ..backend import device_of

P = ParamSpec("P")


def pair(value: Any, name: str, at_least: int = 1) -> tuple[int, int]:
    """3 -> (3, 3) and (3, 5) -> (3, 5), for the axes H and W."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2 or not all(is_integer(v, at_least) for v in values):
        raise ValueError(f"{name} must be an integer of at least {at_least}, or a pair of them; got {value!r}")
    return int(values[0]), int(values[1])


def is_integer(value: Any, at_least: int) -> bool:
    """Python's and NumPy's integers count, True and False don't."""
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= at_least


def require_4d(x: Tensor, function: str) -> None:
    if x.ndim != 4:
        raise ValueError(f"{function} takes x of shape (N, C, H, W); got {x.shape}")


def require_only(owner: str, **settings: tuple[Any, Any]) -> None:
    """For settings that PyTorch has and minidl does not, name=(what was given, the only value there is): it changes nothing."""
    for name, (value, only) in settings.items():
        if value != only:
            raise ValueError(f"{owner} takes {name}={only!r} only; got {value!r}")


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
    """For a public function whose arguments `names` are tensors of floating-point numbers on one device.

    The function gets Tensors, whether it is called with these, arrays or lists; an argument that is None stays None. Of
    several dtypes the widest counts, as in NumPy. float16 is computed in float32 and rounded at the end: its sums would
    overflow at 65504. Raises TypeError for other dtypes, ValueError for two devices.
    """

    def decorate(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
        order = list(inspect.signature(function).parameters)
        places = [(name, order.index(name)) for name in names]

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Tensor:
            positional = list(args)
            given: list[tuple[Any, Any, Tensor]] = []  # of each tensor: where it stands, under which key, and itself
            for name, place in places:
                where, key = (positional, place) if place < len(positional) else (kwargs, name)
                value = positional[place] if where is positional else kwargs.get(name)
                if value is not None:
                    given.append((where, key, _floating(function.__name__, name, value)))
            if not given:
                return function(*positional, **kwargs)  # it will say what is missing
            widest = max((tensor.dtype for _, _, tensor in given), key=lambda dtype: dtype.itemsize)
            computed = "float32" if widest == "float16" else widest
            for where, key, tensor in given:
                where[key] = tensor if tensor.dtype == computed else Cast(computed)(tensor)
            _require_one_device(function.__name__, [tensor for _, _, tensor in given])
            y = function(*positional, **kwargs)
            return y if widest == computed else Cast(widest)(y)

        return checked

    return decorate


def _floating(function: str, name: str, value: Any) -> Tensor:
    tensor = as_tensor(value)
    if tensor.dtype.kind != "f":
        raise TypeError(f"{function} takes floating-point numbers, but {name} is {tensor.dtype}: give {name}.astype('float32')")
    return tensor


def _require_one_device(function: str, tensors: list[Tensor]) -> None:
    devices = {device_of(tensor.data) for tensor in tensors}
    if len(devices) > 1:
        listed = " and ".join(sorted(devices))
        raise ValueError(f"{function} takes tensors on one device; got {listed}: move one, as with net.to(device)")
