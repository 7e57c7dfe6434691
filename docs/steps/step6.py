"""Step 6: freeing the graph.

A graph holds every array that backward needs: most of a training step's memory. Backward visits each function once, so it
releases each function as soon as it is done with it. If no gradient is needed, nothing is kept at all.
"""

import contextlib

import numpy as np
from step5 import ancestors

recording = True


@contextlib.contextmanager
def no_grad():
    """No graph is made inside."""
    global recording
    before, recording = recording, False
    try:
        yield
    finally:
        recording = before


class Tensor:
    def __init__(self, data, requires_grad=False):
        self.data = np.asarray(data, dtype="float64")
        self.requires_grad = requires_grad
        self.grad = None
        self.creator = None

    def backward(self):
        for tensor, gradient in walk(self, np.ones_like(self.data)):
            if tensor.creator is None:
                tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient


class Freed:
    """The creator of a tensor whose graph has been freed."""

    @property
    def inputs(self):
        raise RuntimeError("this graph was freed by an earlier backward; run the forward pass again")


def walk(tensor, grad):
    """Yield (tensor, gradient) for each tensor that needs one, after all tensors that were made from it."""
    order, gradients = ancestors(tensor), {tensor: grad}
    while order:
        t = order.pop()  # so the list no longer refers to it
        gradient = gradients.pop(t)
        yield t, gradient
        if t.creator is None:
            continue
        function, t.creator = t.creator, Freed()
        for source, part in zip(function.inputs, function.backward(gradient), strict=True):
            if source.requires_grad:
                gradients[source] = gradients[source] + part if source in gradients else part


class Function:
    def __call__(self, *inputs):
        self.inputs = inputs
        needed = recording and any(x.requires_grad for x in inputs)
        output = Tensor(self.forward(*[x.data for x in inputs]), needed)
        if needed:
            output.creator = self
        return output


class Square(Function):
    def forward(self, x):
        self.x = x
        return x * x

    def backward(self, grad):
        return (2 * grad * self.x,)


class Sum(Function):
    def forward(self, x):
        self.shape = x.shape
        return x.sum()

    def backward(self, grad):
        return (np.broadcast_to(grad, self.shape),)


if __name__ == "__main__":
    import tracemalloc

    x = Tensor(np.full(1_000_000, 0.5), requires_grad=True)
    tracemalloc.start()
    y = x
    for _ in range(20):
        y = Square()(y)
    L = Sum()(y)
    held = tracemalloc.get_traced_memory()[0]
    del y
    L.backward()
    print(f"held by the graph: {held / 1e6:.0f} MB, after backward: {tracemalloc.get_traced_memory()[0] / 1e6:.0f} MB")
