"""Backpropagation: tensors that remember how they were made, and the walk that carries gradients back.

An operation is a `Function`: `forward` computes on arrays and keeps what `backward` will need, and the Function hangs on
the tensor it made as its `creator`. So tensors and Functions form a graph from the loss back to the leaves (the weights),
and `Tensor.backward` walks it by the chain rule:

    dL/dx  =  sum over every function f that used x  of  f.backward(dL/df)
"""

import contextlib
import contextvars
from collections.abc import Callable, Sequence
from typing import Any

from .backend import Array, as_array, get_array_module

_recording = contextvars.ContextVar("recording", default=True)


@contextlib.contextmanager
def no_grad():
    """Inside `with no_grad():` nothing is recorded: no graph, nothing kept for a backward pass."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


class Tensor:
    """An array with a gradient.

    data: a NumPy or CuPy array, or what makes one (Python floats become float32).
    requires_grad: whether `backward` shall leave dL/ddata in `grad`, an array of data's shape, None before.
    on_gradient_ready: called with the tensor, once in a backward pass, as soon as its gradient is complete.
    """

    __slots__ = ("__weakref__", "creator", "data", "grad", "grad_buffer", "on_gradient_ready", "requires_grad")
    __array_ufunc__ = None  # array + tensor asks the tensor, not NumPy
    # Defined with their derivatives in functional/arithmetic.py:
    __add__: Any
    __radd__: Any
    __sub__: Any
    __rsub__: Any
    __mul__: Any
    __rmul__: Any
    __truediv__: Any
    __rtruediv__: Any
    __pow__: Any
    __neg__: Any
    __matmul__: Any
    __rmatmul__: Any
    sum: Any
    mean: Any
    reshape: Any
    transpose: Any

    def __init__(self, data, requires_grad: bool = False):
        if isinstance(data, Tensor):
            raise TypeError("data is a Tensor already; use it, its .data, or its .detach()")
        self.data: Array = as_array(data)
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(f"only floating-point tensors have gradients; this one is {self.data.dtype}")
        self.requires_grad = requires_grad
        self.grad: Array = None
        self.grad_buffer: Array = None  # where an optimiser wants the gradient written
        self.creator: Any = None
        self.on_gradient_ready: Callable[[Tensor], None] | None = None

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    dtype = property(lambda self: self.data.dtype)

    def item(self) -> float:
        return self.data.item()

    def detach(self) -> "Tensor":
        """The same data, cut from the graph."""
        return Tensor(self.data)

    def __repr__(self):
        return f"Tensor({self.data}{', requires_grad=True' if self.requires_grad else ''})"

    def backward(self, grad=None) -> None:
        """Add dL/dleaf to the `grad` of every leaf that this tensor was computed from, given grad = dL/dself.

        grad may be left out for a single number (L itself, so 1). The graph is freed on the way, so a second backward
        through it is an error. No recursion: a chain may be as long as memory allows.
        """
        if not self.requires_grad:
            raise RuntimeError("backward on a tensor that is not tracked: nothing it was computed from requires_grad")
        if grad is None and self.data.size != 1:
            raise RuntimeError(f"backward on shape {self.shape} needs a gradient of that shape; only one number can go without")
        xp = get_array_module(self.data)
        grad = xp.ones_like(self.data) if grad is None else as_array(grad.data if isinstance(grad, Tensor) else grad)
        if grad.shape != self.shape:
            raise ValueError(f"backward on shape {self.shape} was given a gradient of shape {grad.shape}")

        # 1. Count how many gradients each tensor will get: one for each use of it.
        pending = {self: 0}
        stack = [self]
        while stack:
            function = stack.pop().creator
            if function is None:
                continue
            if function is FREED:
                raise RuntimeError("this graph was freed by an earlier backward; run the forward pass again")
            for tensor, needed in zip(function.inputs, function.needs_grad, strict=True):
                if needed:
                    if tensor not in pending:
                        pending[tensor] = 0
                        stack.append(tensor)
                    pending[tensor] += 1

        # 2. Walk back. A tensor goes on once all its gradients have come in and are added up.
        gradients = {self: grad}
        ready = [self]
        while ready:
            tensor = ready.pop()
            grad = gradients.pop(tensor)
            del pending[tensor]
            if tensor.creator is None:
                tensor._accumulate(grad)
                continue
            function, tensor.creator = tensor.creator, FREED
            function.buffers = [
                x.grad_buffer if needed and x.grad is None and pending[x] == 1 and x not in gradients else None
                for x, needed in zip(function.inputs, function.needs_grad, strict=True)
            ]
            parts = function.input_gradients(grad)
            for source, needed, part in zip(function.inputs, function.needs_grad, parts, strict=True):
                if needed:
                    gradients[source] = gradients[source] + part if source in gradients else part
                    pending[source] -= 1
                    if pending[source] == 0:
                        ready.append(source)

    def _accumulate(self, grad: Array) -> None:
        """Add to a leaf's gradient. The first one is copied, as `grad` may be shared with another tensor."""
        if self.grad is not None:
            self.grad += grad
        elif self.grad_buffer is not None:
            if grad is not self.grad_buffer:
                self.grad_buffer[...] = grad
            self.grad = self.grad_buffer
        else:
            self.grad = grad.astype(self.dtype)
        if self.on_gradient_ready is not None:
            self.on_gradient_ready(self)


FREED = object()  # the creator of a tensor whose graph is gone


class Function:
    """One differentiable operation, used once: `F(parameters)(tensors)` is a new tensor.

    A subclass defines forward(*arrays) -> array, which may keep on self what backward needs, and
    backward(grad) -> the gradients of the inputs, in their order: from grad = dL/doutput, dL/dinput for each. Where
    needs_grad[i] is False nobody wants input i's gradient, and backward may give None for it.
    """

    inputs: tuple[Tensor, ...] = ()
    needs_grad: tuple[bool, ...] = ()
    buffers: Sequence[Array] = ()  # for each input, where backward may write its gradient, or None
    module: Any = None  # the layer whose output this made, if it is one's

    def forward(self, *arrays: Array) -> Array:
        raise TypeError(f"{type(self).__name__} defines no forward")

    def backward(self, grad: Array):
        raise TypeError(f"{type(self).__name__} defines no backward")

    def __call__(self, *inputs) -> Tensor:
        if self.inputs:
            raise RuntimeError(f"a {type(self).__name__} holds one call; make a new one for the next")
        like = next((x.data for x in inputs if isinstance(x, Tensor)), None)
        self.inputs = tuple(x if isinstance(x, Tensor) else Tensor(as_array(x, like)) for x in inputs)
        self.buffers = (None,) * len(inputs)
        self.needs_grad = tuple(_recording.get() and x.requires_grad for x in self.inputs)
        output = Tensor(self.forward(*[x.data for x in self.inputs]), requires_grad=any(self.needs_grad))
        if output.requires_grad:
            output.creator = self
        return output

    def input_gradients(self, grad: Array) -> list[Array]:
        """backward's gradients, one for each input, checked: the right number, shape and dtype."""
        gradients = self.backward(grad)
        gradients = list(gradients) if isinstance(gradients, tuple) else [gradients]
        name = type(self).__name__
        if len(gradients) != len(self.inputs):
            raise ValueError(f"{name}.backward gave {len(gradients)} gradients for {len(self.inputs)} inputs")
        for i, (x, needed) in enumerate(zip(self.inputs, self.needs_grad, strict=True)):
            if needed:
                shape = None if gradients[i] is None else gradients[i].shape
                if shape != x.shape:
                    raise ValueError(f"{name}.backward gave a gradient of shape {shape} for input {i} of shape {x.shape}")
                gradients[i] = gradients[i].astype(x.dtype, copy=False)
        return gradients
