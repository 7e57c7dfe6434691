"""The parts of Tensor without derivatives: data, shape, conversions, copies. Operators are only declared here."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .backend import Array, as_array

if TYPE_CHECKING:
    from typing_extensions import Self

    Axes = int | tuple[int, ...] | None


class Operators:
    """The base of Tensor. functional/ defines the operators with their derivatives, and assigns them to Tensor."""

    __slots__ = ("_changes", "_data")
    __array_ufunc__ = None  # array + tensor calls Tensor.__radd__, not NumPy
    __hash__ = object.__hash__  # == compares elements, but as a dict key a tensor counts by identity

    if TYPE_CHECKING:

        def __add__(self, other: Any, /) -> Self: ...
        def __radd__(self, other: Any, /) -> Self: ...
        def __sub__(self, other: Any, /) -> Self: ...
        def __rsub__(self, other: Any, /) -> Self: ...
        def __mul__(self, other: Any, /) -> Self: ...
        def __rmul__(self, other: Any, /) -> Self: ...
        def __truediv__(self, other: Any, /) -> Self: ...
        def __rtruediv__(self, other: Any, /) -> Self: ...
        def __matmul__(self, other: Any, /) -> Self: ...
        def __rmatmul__(self, other: Any, /) -> Self: ...
        def __pow__(self, exponent: float, /) -> Self: ...
        def __neg__(self) -> Self: ...
        def __getitem__(self, key: Any, /) -> Self: ...
        def __eq__(self, other: object, /) -> Self: ...  # type: ignore[override]
        def __ne__(self, other: object, /) -> Self: ...  # type: ignore[override]
        def __lt__(self, other: Any, /) -> Self: ...
        def __le__(self, other: Any, /) -> Self: ...
        def __gt__(self, other: Any, /) -> Self: ...
        def __ge__(self, other: Any, /) -> Self: ...
        def sum(self, axis: Axes = None, keepdims: bool = False) -> Self: ...
        def mean(self, axis: Axes = None, keepdims: bool = False) -> Self: ...
        def max(self, axis: Axes = None, keepdims: bool = False) -> Self: ...
        def exp(self) -> Self: ...
        def log(self) -> Self: ...
        def reshape(self, *shape: Any) -> Self: ...
        def transpose(self, *axes: Any) -> Self: ...

    grad: Array
    requires_grad: bool
    creator: Any
    _data: Array
    _changes: list[int]  # one count, shared by a tensor and its views

    @property
    def data(self) -> Array:
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        if isinstance(data, Operators):
            raise TypeError("data is a Tensor already; use it, its .data, or its .detach()")
        array = as_array(data)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"a tensor holds real numbers or booleans; got {data!r:.80} of {array.dtype}")
        if array is self._data:
            self.version += 1  # tensor.data += 1 calls this with the changed array
        else:
            self._data, self._changes = array, [self.version]

    @property
    def version(self) -> int:
        """The number of changes of the data in place, by this library or by `tensor.data += ...`."""
        return self._changes[0]

    @version.setter
    def version(self, version: int) -> None:
        self._changes[0] = version

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    dtype = property(lambda self: self.data.dtype)

    def item(self) -> float:
        """The value of a single number."""
        return self.data.item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.data.size != 1:
            raise ValueError(
                f"a Tensor of shape {self.shape} is neither true nor false; compare its elements, or use .any() of .data"
            )
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        """f"{loss:.4f}" for a single number."""
        return format(self.item(), spec) if spec and self.data.size == 1 else super().__format__(spec)

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("a Tensor of a single number has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return map(self.__getitem__, range(len(self)))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """For NumPy's functions. A tensor that requires a gradient raises TypeError, because NumPy would lose the gradient."""
        if self.requires_grad:
            raise TypeError("NumPy was given a Tensor that requires a gradient; give it tensor.data, or tensor.detach()")
        if not isinstance(self.data, np.ndarray):
            raise TypeError("NumPy was given a Tensor on a GPU; give it minidl.backend.to_numpy(tensor.data)")
        return np.array(self.data, dtype, copy=copy)

    def __repr__(self) -> str:
        return f"Tensor({self.data}{', requires_grad=True' if self.requires_grad else ''})"

    def __getstate__(self) -> tuple:
        """For copy and pickle. The optimiser's buffer and on_gradient_ready are not copied."""
        if self.creator is not None:
            raise RuntimeError("only leaves can be copied or pickled; this tensor was computed from others, use its .detach()")
        return self.data, self.grad, self.requires_grad

    def __setstate__(self, state: tuple) -> None:
        data, grad, requires_grad = state
        type(self).__init__(self, data, requires_grad)  # type: ignore[call-arg]
        self.grad = grad
