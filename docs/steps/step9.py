"""Step 9: devices.

CuPy has NumPy's functions, for arrays on a GPU. A function asks its array which library it belongs to, and works with both. This
file has the structure of minidl/autodiff.py: the same names in the same order, without the checks.
"""

import contextlib
import contextvars
import sys

import numpy as np

_no_grads = contextvars.ContextVar("no_grads", default=0)


class no_grad(contextlib.ContextDecorator):
    def __enter__(self):
        _no_grads.set(_no_grads.get() + 1)

    def __exit__(self, *error):
        _no_grads.set(_no_grads.get() - 1)


class Tensor:
    def __init__(self, data, requires_grad=False):
        self.data = data if hasattr(data, "dtype") else np.asarray(data, dtype="float32")
        self.requires_grad = requires_grad
        self.grad = None
        self.creator = None

    def backward(self):
        xp = get_array_module(self.data)
        for tensor, gradient in walk(self, xp.ones_like(self.data)):
            if tensor.creator is None:
                tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient


class Freed:
    @property
    def inputs(self):
        raise RuntimeError("this graph was freed by an earlier backward; run the forward pass again")


FREED = Freed()


def ancestors(tensor):
    order, seen, stack = [], set(), [(tensor, False)]
    while stack:
        t, inputs_done = stack.pop()
        if inputs_done:
            order.append(t)
        elif t not in seen and t.requires_grad:
            seen.add(t)
            stack.append((t, True))
            stack.extend((source, False) for source in (t.creator.inputs if t.creator else ()))
    return order


def walk(tensor, grad):
    order, gradients = ancestors(tensor), {tensor: grad}
    while order:
        t = order.pop()
        gradient = gradients.pop(t)
        yield t, gradient
        if t.creator is None:
            continue
        function, t.creator = t.creator, FREED
        for source, part in zip(function.inputs, function.backward(gradient), strict=True):
            if source.requires_grad:
                gradients[source] = gradients[source] + part if source in gradients else part


class Function:
    def __call__(self, *inputs):
        self.inputs = inputs
        needed = any(x.requires_grad for x in inputs) and not _no_grads.get()
        output = Tensor(self.forward(*[x.data for x in inputs]), needed)
        if needed:
            output.creator = self
        return output


# --- what minidl has in backend.py, and two functions -------------------------------------------------------------------


def get_array_module(array):
    """numpy or cupy: the library that the array belongs to."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def to_device(array, device):
    """device: "numpy" or "cupy"."""
    if device == "numpy":
        return array.get() if hasattr(array, "get") else np.asarray(array)
    import cupy

    return cupy.asarray(array)


class Sigmoid(Function):
    """y = 1 / (1 + e^-x);  dx = dy y (1 - y)."""

    def forward(self, x):
        xp = get_array_module(x)
        self.y = 1 / (1 + xp.exp(-x))
        return self.y

    def backward(self, grad):
        return (grad * self.y * (1 - self.y),)


class Sum(Function):
    def forward(self, x):
        self.shape = x.shape
        return x.sum()

    def backward(self, grad):
        return (get_array_module(grad).broadcast_to(grad, self.shape),)


if __name__ == "__main__":
    device = sys.argv[1] if len(sys.argv) > 1 else "numpy"
    x = Tensor(to_device(np.linspace(-2, 2, 5), device), requires_grad=True)
    Sum()(Sigmoid()(x)).backward()
    print(type(x.grad).__module__, x.grad)
