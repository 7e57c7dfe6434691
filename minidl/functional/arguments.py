"""Checks of the arguments of public functions (shapes, dtypes, devices), and the cast to one dtype."""

import functools
import inspect
from collections.abc import Callable
from numbers import Integral, Real
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
    """Whether value is an integer of Python or NumPy, and at least `at_least`. True and False are not integers here."""
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= at_least


def number(value: Any, name: str) -> float:
    """A Python or NumPy number as a Python float, which does not widen a float32 array."""
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number; got {value!r:.80}")
    return float(value)


def axis_of(function: str, x: Tensor, axis: Any) -> int:
    """The index of an axis of x; a negative one counts from the end, and a single number has axis 0."""
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
    """Raise ValueError for a PyTorch option that minidl lacks. settings: name=(value given, the only value allowed)."""
    for name, (value, only) in settings.items():
        if not isinstance(value, type(only)) or value != only:
            raise ValueError(f"{owner} takes {name}={only!r} only; got {value!r:.80}")


def as_tensor(value: Any) -> Tensor:
    """A Tensor unchanged; an array, a number or a list of numbers as a Tensor."""
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
    """A decorator for a public function whose arguments `names` are tensors of float16, float32 or float64, on one device.

    It converts arrays and lists to Tensors. An argument whose default is None may be None. Different dtypes are cast to the
    widest, as in NumPy. float16 is computed in float32 and the result rounded, because sums in float16 overflow at 65504.
    Raises TypeError for None and for other dtypes, ValueError for two devices.
    """

    def decorate(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
        signature, title = inspect.signature(function), function.__name__

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Tensor:
            try:
                arguments = signature.bind(*args, **kwargs).arguments
            except TypeError:
                return function(*args, **kwargs)  # Python's own error then names the function
            optional = [name for name in names if signature.parameters[name].default is None and arguments.get(name) is None]
            tensors = {name: _floating(title, name, arguments[name]) for name in names if name not in optional}
            require_one_device(title, tensors)
            widest = max((tensor.dtype for tensor in tensors.values()), key=lambda dtype: dtype.itemsize)
            computed = "float32" if widest == "float16" else widest
            for name, tensor in tensors.items():
                arguments[name] = tensor if tensor.dtype == computed else Cast(computed)(tensor)
            y = function(**arguments)  # type: ignore[call-arg]
            return y if widest == computed else Cast(widest)(y)

        return checked

    return decorate


def _floating(function: str, name: str, value: Any) -> Tensor:
    if value is None:
        raise TypeError(f"{function} takes a tensor as {name}; got None")
    tensor = as_tensor(value)
    if tensor.dtype.name not in ("float16", "float32", "float64") or not tensor.dtype.isnative:
        advice = "convert the array, as with .astype('float32')"
        raise TypeError(f"{function} takes float16, float32 or float64, but {name} is {tensor.dtype}: {advice}")
    return tensor


def require_one_device(function: str, tensors: dict[str, Tensor]) -> None:
    """Raise ValueError for tensors, by name, that are on different devices."""
    devices = {name: device_of(tensor.data) for name, tensor in tensors.items()}
    if len(set(devices.values())) > 1:
        listed = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"{function} takes tensors on one device; got {listed}: move one, as with net.to(device)")
