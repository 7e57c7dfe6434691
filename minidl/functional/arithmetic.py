"""Arithmetic and sums, and the operators and methods of Tensor made from them.

Operands broadcast as in NumPy. Backward sums over the axes that broadcasting repeated: y[i, j] = a[j] + b[i, j] gives
dL/da[j] = sum over i of dL/dy[i, j].
"""

import operator
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from ..autodiff import Function, Tensor
from ..backend import Array, as_array, get_array_module
from .arguments import floating, require_one_device


def sum_to_shape(grad: Array, shape: tuple[int, ...]) -> Array:
    """Undo broadcasting: sum grad over the axes along which `shape` was repeated."""
    extra = grad.ndim - len(shape)
    repeated = tuple(range(extra)) + tuple(extra + i for i, n in enumerate(shape) if n == 1 and grad.shape[extra + i] != 1)
    return _sum(grad, repeated, keepdims=True).astype(grad.dtype).reshape(shape) if repeated else grad


def _sum(x: Array, axis, keepdims: bool) -> Array:
    """The sum of an array; float16 is summed in float32, because its sums overflow at 65504."""
    return x.sum(axis=axis, keepdims=keepdims, dtype="float32" if x.dtype == "float16" else None)


class Add(Function):
    """y = a + b;  da = dy, db = dy."""

    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return a + b

    def backward(self, grad):
        return tuple(sum_to_shape(grad, shape) for shape in self.shapes)


class Subtract(Function):
    """y = a - b;  da = dy, db = -dy."""

    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return a - b

    def backward(self, grad):
        return sum_to_shape(grad, self.shapes[0]), sum_to_shape(-grad, self.shapes[1])


class Multiply(Function):
    """y = a b;  da = dy b, db = dy a."""

    def forward(self, a, b):
        self.a, self.b = a, b
        return a * b

    def backward(self, grad):
        return sum_to_shape(grad * self.b, self.a.shape), sum_to_shape(grad * self.a, self.b.shape)


class Divide(Function):
    """y = a / b;  da = dy / b, db = -dy a / b^2."""

    def forward(self, a, b):
        self.a, self.b = a, b
        return a / b

    def backward(self, grad):
        da = grad / self.b
        return sum_to_shape(da, self.a.shape), sum_to_shape(-da * self.a / self.b, self.b.shape)


class Negate(Function):
    """y = -x;  dx = -dy."""

    def forward(self, x):
        return -x

    def backward(self, grad):
        return -grad


class Power(Function):
    """y = x^p for a number p;  dx = dy p x^(p - 1)."""

    def __init__(self, exponent: float):
        self.exponent = exponent

    def forward(self, x):
        self.x = x
        return x**self.exponent

    def backward(self, grad):
        if self.exponent == 0:
            return get_array_module(grad).zeros_like(grad)
        return grad * (self.exponent * self.x ** (self.exponent - 1))


class Sum(Function):
    """y = sum of x over some axes;  dx = dy, repeated along them."""

    def __init__(self, axis=None, keepdims: bool = False):
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x):
        y = self.sum(x)
        return y.astype(x.dtype) if x.dtype == "float16" else y

    def sum(self, x):
        y = _sum(x, self.axis, keepdims=True)
        self.shape, self.kept_shape = x.shape, y.shape
        return y if self.keepdims else y.squeeze(self.axis)

    def backward(self, grad):
        return get_array_module(grad).broadcast_to(grad.reshape(self.kept_shape), self.shape)


class Mean(Sum):
    """y = sum of x over some axes / their length n;  dx = dy / n, repeated along them."""

    def forward(self, x):
        y = self.sum(x)
        self.count = x.size // max(1, y.size)
        y = y / self.count
        return y.astype(x.dtype) if x.dtype == "float16" else y

    def backward(self, grad):
        wide = grad.astype("float32") if grad.dtype == "float16" else grad  # a large count overflows float16
        return super().backward((wide / self.count).astype(grad.dtype))


class Max(Function):
    """y = the largest x along some axes;  dx = dy at the maximum, else 0. NaN counts as the largest.

    Among equal maxima, the first gets dy if there is one axis; with several axes each gets an equal share, as in PyTorch.
    """

    def __init__(self, axis: Any = None, keepdims: bool = False):
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x):
        y = x.max(axis=self.axis, keepdims=True)
        largest = (x == y) | (x != x)
        if isinstance(self.axis, Integral) and x.ndim:
            self.share = largest & (largest.cumsum(axis=self.axis) == 1)
        else:
            self.share = largest / largest.sum(axis=self.axis, keepdims=True)
        self.shape = y.shape
        return y if self.keepdims else y.squeeze(self.axis)

    def backward(self, grad):
        xp = get_array_module(grad)
        return xp.where(self.share, grad.reshape(self.shape), 0) * self.share


class Exp(Function):
    """y = e^x;  dx = dy y."""

    def forward(self, x):
        self.y = get_array_module(x).exp(x)
        return self.y

    def backward(self, grad):
        return grad * self.y


class Log(Function):
    """y = ln x;  dx = dy / x."""

    def forward(self, x):
        self.x = x
        return get_array_module(x).log(x)

    def backward(self, grad):
        return grad / self.x


def _power(x: Tensor, exponent: Any) -> Tensor:
    if not isinstance(exponent, Real):
        raise TypeError(f"x ** p takes a number p, not {type(exponent).__name__}")
    return Power(int(exponent) if isinstance(exponent, Integral) else float(exponent))(x)


@floating("x")
def exp(x: Tensor) -> Tensor:
    """e^x. Any shape."""
    return Exp()(x)


@floating("x")
def log(x: Tensor) -> Tensor:
    """The natural logarithm. Any shape."""
    return Log()(x)


def _over_axes(function: type[Sum] | type[Max], what: str) -> Callable[..., Tensor]:
    """A method of Tensor that takes axis and keepdims as in NumPy."""

    def method(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
        return function(axis, keepdims)(x)

    method.__name__ = function.__name__.lower()
    method.__qualname__ = f"Tensor.{method.__name__}"
    method.__doc__ = f"{what} along an axis, several, or all. keepdims: keep these axes, with size 1."
    return method


def _compare(comparison: Callable[[Any, Any], Any]) -> Callable[[Tensor, Any], Tensor]:
    """An elementwise comparison, which returns booleans and has no gradient."""

    def compare(a, b):
        if type(b) not in (bool, int, float):  # NumPy compares a Python number even if the dtype cannot hold it
            try:
                b = b if isinstance(b, Tensor) else Tensor(as_array(b, a.data))
            except TypeError:  # it holds no numbers
                return NotImplemented
            require_one_device("a comparison", {"one": a, "the other": b})
            b = b.data
        return Tensor(comparison(a.data, b))

    return compare


def give_methods(**methods: Callable[..., Any]) -> None:
    """Make these functions methods of Tensor. operators.py declares them."""
    for name, method in methods.items():
        setattr(Tensor, name, method)


def give_operators(name: str, function: type[Function]) -> None:
    """Make a function of two tensors an operator of Tensor, for a tensor on the left and on the right.

    With None as an operand, Python raises TypeError.
    """

    def operate(a, b):
        return NotImplemented if b is None else function()(a, b)

    def operate_reflected(a, b):
        return NotImplemented if b is None else function()(b, a)

    give_methods(**{f"__{name}__": operate, f"__r{name}__": operate_reflected})


give_operators("add", Add)
give_operators("sub", Subtract)
give_operators("mul", Multiply)
give_operators("truediv", Divide)
give_methods(**{f"__{name}__": _compare(getattr(operator, name)) for name in ("eq", "ne", "lt", "le", "gt", "ge")})
give_methods(
    __neg__=lambda x: Negate()(x),
    __pow__=_power,
    sum=_over_axes(Sum, "The sum"),
    mean=_over_axes(Mean, "The mean"),
    max=_over_axes(Max, "The largest element"),
    exp=exp,
    log=log,
)
