"""Arithmetic and shape operations, and the operators and methods of Tensor made from them.

Operands broadcast as in NumPy. What broadcasting repeated, backward sums: y[i, j] = a[j] + b[i, j] gives
dL/da[j] = sum over i of dL/dy[i, j].
"""

import math

from ..autodiff import Function, Tensor
from ..backend import Array, get_array_module


def sum_to_shape(grad: Array, shape: tuple[int, ...]) -> Array:
    """Undo broadcasting: sum grad over the axes along which `shape` was repeated."""
    extra = grad.ndim - len(shape)
    repeated = tuple(range(extra)) + tuple(extra + i for i, n in enumerate(shape) if n == 1 and grad.shape[extra + i] != 1)
    return grad.sum(axis=repeated, keepdims=True).reshape(shape) if repeated else grad


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


class MatMul(Function):
    """Y = A B, for matrices and stacks of them;  dA = dY B^T, dB = A^T dY.

    A vector on the left stands for one row, on the right for one column, as in NumPy.
    """

    def forward(self, a, b):
        self.a, self.b = a, b
        return a @ b

    def backward(self, grad):
        a, b = self.a, self.b
        if b.ndim == 1:
            b, grad = b[:, None], grad[..., None]
        if a.ndim == 1:
            a, grad = a[None, :], grad[..., None, :]
        da = sum_to_shape(grad @ b.swapaxes(-1, -2), a.shape)
        db = sum_to_shape(a.swapaxes(-1, -2) @ grad, b.shape)
        return da.reshape(self.a.shape), db.reshape(self.b.shape)


class Sum(Function):
    """y = sum of x over some axes;  dx = dy, repeated along them."""

    def __init__(self, axis=None, keepdims: bool = False):
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x):
        self.shape = x.shape
        return x.sum(axis=self.axis, keepdims=self.keepdims)

    def backward(self, grad):
        xp = get_array_module(grad)
        if self.axis is not None and not self.keepdims:
            grad = xp.expand_dims(grad, self.axis)
        return xp.broadcast_to(grad, self.shape)


class Mean(Sum):
    """y = sum of x over some axes / their length n;  dx = dy / n, repeated along them."""

    def forward(self, x):
        y = super().forward(x)
        self.count = x.size // max(1, y.size)
        return y / self.count

    def backward(self, grad):
        return super().backward(grad / self.count)


class Reshape(Function):
    """The same elements in another shape;  dx is dy in the old shape.

    Flattening a batch-last activation, (N, C, H, W) -> (N, C * H * W), copies nothing.
    """

    def __init__(self, *shape: int):
        self.shape = shape

    def forward(self, x):
        self.old_shape = x.shape
        return x.reshape(self.shape)

    def backward(self, grad):
        return grad.reshape(self.old_shape)


class Transpose(Function):
    """y[i, j, ...] = x with its axes permuted;  dx is dy permuted back."""

    def __init__(self, *axes: int):
        self.axes = axes

    def forward(self, x):
        self.axes = tuple(axis % x.ndim for axis in self.axes) or tuple(reversed(range(x.ndim)))
        return x.transpose(self.axes)

    def backward(self, grad):
        return grad.transpose([self.axes.index(i) for i in range(grad.ndim)])


def flatten(x: Tensor, start_dim: int = 1) -> Tensor:
    """(N, C, H, W) -> (N, C * H * W): the axes from start_dim on become one."""
    return Reshape(*x.shape[:start_dim], math.prod(x.shape[start_dim:]))(x)


def _power(x: Tensor, exponent: float) -> Tensor:
    if not isinstance(exponent, (int, float)):
        raise TypeError(f"x ** p takes a number p, not {type(exponent).__name__}")
    return Power(exponent)(x)


def _unpacked(arguments: tuple) -> tuple:
    """reshape(2, 3) and reshape((2, 3)) are the same, as in NumPy."""
    return tuple(arguments[0]) if len(arguments) == 1 and isinstance(arguments[0], (tuple, list)) else arguments


Tensor.__add__ = lambda a, b: Add()(a, b)
Tensor.__radd__ = lambda a, b: Add()(b, a)
Tensor.__sub__ = lambda a, b: Subtract()(a, b)
Tensor.__rsub__ = lambda a, b: Subtract()(b, a)
Tensor.__mul__ = lambda a, b: Multiply()(a, b)
Tensor.__rmul__ = lambda a, b: Multiply()(b, a)
Tensor.__truediv__ = lambda a, b: Divide()(a, b)
Tensor.__rtruediv__ = lambda a, b: Divide()(b, a)
Tensor.__matmul__ = lambda a, b: MatMul()(a, b)
Tensor.__rmatmul__ = lambda a, b: MatMul()(b, a)
Tensor.__neg__ = lambda x: Negate()(x)
Tensor.__pow__ = _power
Tensor.sum = lambda x, axis=None, keepdims=False: Sum(axis, keepdims)(x)
Tensor.mean = lambda x, axis=None, keepdims=False: Mean(axis, keepdims)(x)
Tensor.reshape = lambda x, *shape: Reshape(*_unpacked(shape))(x)
Tensor.transpose = lambda x, *axes: Transpose(*_unpacked(axes))(x)
