"""Gradient clipping by the norm."""

from collections.abc import Iterable

from ..autodiff import Tensor
from ..backend import Array, as_array, get_array_module


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Array:
    """Scale all gradients, in place, so that the norm of the vector of all of them is max_norm at most.

    Pascanu et al. 2013, algorithm 1; as torch.nn.utils.clip_grad_norm_. Call it between backward and step.

    norm_type: the p of the p-norm, inf for the largest entry. error_if_nonfinite: raise RuntimeError, and change nothing,
    if the norm is NaN or infinite; on a GPU this waits for the norm.
    Returns the norm before scaling, a scalar of the gradients' library, which float() reads; 0 if there is no gradient.
    """
    if not (max_norm >= 0 and norm_type > 0):
        raise ValueError(f"clip_grad_norm_ takes a max_norm of at least 0 and a norm_type above 0; got {max_norm}, {norm_type}")
    tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    grads = [p.grad for p in tensors if p.grad is not None]
    if not grads:
        return as_array(0.0)
    xp = get_array_module(grads[0])
    wide = [grad.astype("float32") if grad.dtype == "float16" else grad for grad in grads]  # in float16, squares overflow at 256
    norm = xp.linalg.norm(xp.stack([xp.linalg.norm(grad.reshape(-1), norm_type) for grad in wide]), norm_type)
    if error_if_nonfinite and not xp.isfinite(norm):
        raise RuntimeError(f"the norm of the gradients is {float(norm)}; pass error_if_nonfinite=False to accept it")
    scale = xp.minimum(max_norm / (norm + 1e-6), 1.0)
    for grad in grads:
        grad *= scale.astype(grad.dtype)
    return norm
