"""The storage of the gradients of leaves, and the call when one is complete. autodiff.py can be read without it.

An optimiser keeps all gradients in one flat buffer; `grad_buffer` is a leaf's view of it. The function whose backward computes
the leaf's gradient may write it there directly, which saves a copy. Data parallelism sets the leaf's `on_gradient_ready`, to
send each gradient as soon as it is complete, while backward continues.
"""

from typing import Any

from .backend import Array, get_array_module


def offer_buffers(function: Any, gradients: dict[Any, Array]) -> None:
    """Set function.buffers: for each input the buffer into which backward may write a first gradient, or None."""
    function.buffers = [
        x.grad_buffer if needed and x.grad is None and x not in gradients else None
        for x, needed in zip(function.inputs, function.needs_grad, strict=True)
    ]


def accumulate(tensor: Any, grad: Array) -> None:
    """Add to tensor.grad. A first gradient that is not in the buffer is copied, because another tensor may share its array."""
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
