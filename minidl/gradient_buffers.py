"""Where the gradient of a leaf is written, and what is called when it is complete: a step aside from backpropagation.

An optimiser keeps all gradients in one flat buffer, and gives each leaf its place there as `grad_buffer`. The last function on
the way to a leaf may write there itself, which saves a copy. Data parallelism wants to know when a gradient is complete, to
send it while backward goes on; it sets the leaf's `on_gradient_ready`.
"""

from typing import Any

from .backend import Array, get_array_module


def offer_buffers(function: Any, gradients: dict[Any, Array]) -> None:
    """Set function.buffers: for each input, where backward may write the gradient, if it is the first one; else None."""
    function.buffers = [
        x.grad_buffer if needed and x.grad is None and x not in gradients else None
        for x, needed in zip(function.inputs, function.needs_grad, strict=True)
    ]


def accumulate(tensor: Any, grad: Array) -> None:
    """Add to tensor.grad. The first gradient is copied, as another tensor may have the same array, unless it is in the buffer."""
    if tensor.grad is not None:
        tensor.grad += grad
    elif tensor.grad_buffer is not None:
        if grad is not tensor.grad_buffer:
            tensor.grad_buffer[...] = grad
        tensor.grad = tensor.grad_buffer
    else:
        tensor.grad = get_array_module(grad).array(grad, tensor.dtype)
    if tensor.on_gradient_ready is not None:
        tensor.on_gradient_ready(tensor)
