"""Backpropagation: tensors that remember how they were made, and the walk that carries gradients back.

An operation is a `Function`: `forward` computes the output's array and keeps the values that `backward` will need. The
output tensor refers to the Function as its `creator`. So tensors and Functions form a graph from the loss back to the leaves
(the parameters), and `walk` applies the chain rule along it:

    dL/dx  =  sum over every function f that used x  of  f.backward(dL/df)
"""

import contextlib
import contextvars
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from .backend import Array, as_array, get_array_module
from .gradient_buffers import accumulate, offer_buffers
from .kept import Kept, check_finite, share_changes
from .operators import Operators

F = TypeVar("F", bound=Callable[..., Any])
_no_grads = contextvars.ContextVar("no_grads", default=0)  # how many no_grad blocks are open


class no_grad(contextlib.ContextDecorator):
    """No graph is recorded inside `with no_grad():` or a function under @no_grad(), and nothing is kept for backward."""

    def __enter__(self) -> None:
        _no_grads.set(_no_grads.get() + 1)

    def __exit__(self, *error: object) -> None:
        _no_grads.set(_no_grads.get() - 1)

    def __call__(self, function: F) -> F:
        if inspect.isgeneratorfunction(function):
            raise TypeError("no_grad() ends before this generator begins; write `with no_grad():` inside it, around no yield")
        return super().__call__(function)


class Tensor(Operators):
    """An array with a gradient.

    data: a NumPy or CuPy array, or a number or list that can be converted to one (Python floats become float32).
    requires_grad: whether `backward` stores dL/ddata in `grad`, an array of data's shape. Before backward, `grad` is None.
    on_gradient_ready: called with the tensor, once in a backward pass, as soon as its gradient is complete.
    """

    __slots__ = "__weakref__ creator grad grad_buffer on_gradient_ready requires_grad retains_grad".split()

    def __init__(self, data: Any, requires_grad: bool = False):
        self._data, self._changes = None, [0]
        self.data = data
        if requires_grad and self.dtype.kind != "f":
            raise TypeError(f"only floating-point tensors have gradients; this one is {self.dtype}")
        self.requires_grad = requires_grad
        self.grad: Array = None
        self.grad_buffer: Array = None  # where the optimiser wants the gradient to be written
        self.creator: Any = None
        self.retains_grad = False
        self.on_gradient_ready: Callable[[Tensor], None] | None = None

    def detach(self) -> "Tensor":
        """A tensor with the same data that is not part of the graph."""
        tensor = Tensor(self.data)
        tensor._changes = self._changes
        return tensor

    def retain_grad(self) -> None:
        """Make backward store `grad` for this tensor too, although it is not a leaf."""
        if not self.requires_grad:
            raise RuntimeError("retain_grad on a tensor that does not require a gradient")
        self.retains_grad = True

    def backward(self, grad: Any = None) -> None:
        """Add dL/dleaf to the `grad` of every leaf that this tensor was computed from, given grad = dL/dself.

        grad may be omitted if this tensor is a single number: then it is L itself, and grad is 1. The graph is freed
        during the pass, so a second backward through it is an error. There is no recursion, so depth is limited by memory only.
        """
        if not self.requires_grad:
            raise RuntimeError("backward on a tensor that does not require a gradient and was computed from none that does")
        if grad is None and self.data.size != 1:
            raise RuntimeError(f"backward on shape {self.shape} needs a gradient of that shape; only a single number needs none")
        xp = get_array_module(self.data)
        given = grad if isinstance(grad, Tensor) else Tensor(xp.ones_like(self.data) if grad is None else grad)
        if given.shape != self.shape:
            raise ValueError(f"backward on shape {self.shape} was given a gradient of shape {given.shape}")
        for tensor, gradient in walk(self, given.data.astype(self.dtype, copy=False), free=True):
            if tensor.creator is None or tensor.retains_grad:
                accumulate(tensor, gradient)


FREED: Any = object()  # the creator of a tensor whose graph was freed


def ancestors(tensor: Tensor) -> list[Tensor]:
    """A tensor and all tensors that it was computed from, in topological order: each comes after its own inputs."""
    order, seen, stack = [], set(), [(tensor, False)]
    while stack:
        t, inputs_done = stack.pop()
        if inputs_done:
            order.append(t)
        elif t not in seen:
            if t.creator is FREED:
                raise RuntimeError("this graph was freed by an earlier backward; run the forward pass again")
            seen.add(t)
            stack.append((t, True))
            inputs = t.creator.inputs if t.creator else ()
            stack.extend((source, False) for source in reversed(inputs) if source is not None)
    return order


def walk(tensor: Tensor, grad: Array, free: bool = False) -> Iterator[tuple[Tensor, Array]]:
    """Backpropagation from grad = dL/dtensor: yields (t, dL/dt) for each tensor t that needs a gradient.

    A tensor comes after every tensor that was computed from it, so its gradient is complete by then.
    free: release each function after its backward, and let this backward write into the optimiser's buffers.
    """
    order = ancestors(tensor)
    gradients = {tensor: grad}
    while order:
        t = order.pop()
        if t not in gradients:
            continue
        gradient = gradients.pop(t)
        yield t, gradient
        if t.creator is None:
            continue
        function = t.creator
        function._kept.check(function, (*function.inputs, t))
        if free:
            t.creator = FREED
            offer_buffers(function, gradients)
        for source, part in zip(function.inputs, function.input_gradients(gradient), strict=True):
            if part is not None:
                gradients[source] = gradients[source] + part if source in gradients else part


class Function:
    """One differentiable operation, used once: `F(parameters)(tensors)` is a new tensor.

    A subclass defines two methods. forward(*arrays) returns the output's array, and may keep on self what backward needs.
    backward(grad), with grad = dL/doutput, returns dL/dinput for each input, in order; it may return None for input i if
    needs_grad[i] is False. An input may be None.
    """

    inputs: tuple[Tensor | None, ...] = ()
    needs_grad: tuple[bool, ...] = ()
    buffers: Sequence[Array] = ()  # for each input, where backward may write its gradient, or None
    _kept: Kept
    module: Any = None  # the layer whose output this function computed, if any

    def forward(self, *arrays: Array) -> Array:
        """The output's array, from the arrays of the inputs."""
        raise TypeError(f"{type(self).__name__} defines no forward")

    def backward(self, grad: Array) -> Any:
        """dL/dinput for each input, given grad = dL/doutput."""
        raise TypeError(f"{type(self).__name__} defines no backward")

    def __call__(self, *inputs: Any) -> Tensor:
        if self.inputs:
            raise RuntimeError(f"a {type(self).__name__} can be called only once; make a new one")
        like = next((x.data for x in inputs if isinstance(x, Tensor)), None)
        self.inputs = tuple(x if x is None or isinstance(x, Tensor) else Tensor(as_array(x, like)) for x in inputs)
        self.buffers = (None,) * len(inputs)
        self.needs_grad = tuple(x is not None and x.requires_grad and _no_grads.get() <= 0 for x in self.inputs)
        output = Tensor(self.forward(*[None if x is None else x.data for x in self.inputs]), any(self.needs_grad))
        share_changes(output, self.inputs)
        if output.requires_grad:
            self._kept = Kept(self, (*self.inputs, output))
            output.creator = self
        return output

    def input_gradients(self, grad: Array) -> list[Array]:
        """backward's gradient for each input that needs one, else None; their number, shapes and dtypes are checked."""
        gradients = self.backward(grad)
        gradients = list(gradients) if isinstance(gradients, (tuple, list)) else [gradients]
        name = type(self).__name__
        if len(gradients) != len(self.inputs):
            raise ValueError(f"{name}.backward returned {len(gradients)} gradients for {len(self.inputs)} inputs")
        for i, (x, needed) in enumerate(zip(self.inputs, self.needs_grad, strict=True)):
            if x is None or not needed:
                gradients[i] = None
                continue
            if x.dtype.kind != "f":
                raise TypeError(f"only floating-point tensors have gradients; input {i} of {name} is {x.dtype}")
            shape = getattr(gradients[i], "shape", None)
            if shape != x.shape:
                raise ValueError(f"{name}.backward returned a gradient of shape {shape} for input {i} of shape {x.shape}")
            gradients[i] = gradients[i].astype(x.dtype, copy=False)
        check_finite(self, gradients)
        return gradients
