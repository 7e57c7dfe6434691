"""Find the first layer whose output is NaN or infinite."""

import numpy as np

from minidl import Tensor, no_grad
from minidl.backend import device_of, get_array_module, to_numpy
from minidl.data import Batch
from minidl.nn import Module, Parameter
from minidl.parallel import Communicators

from .collectives import sum_over_ranks


def first_not_finite(model: Module, batch: Batch, communicators: Communicators) -> str:
    """Run the batch again on all ranks. Returns text that names the first layer with a NaN or infinite output on any rank."""
    outputs: list[tuple[str, Module, bool]] = []

    def watch(name: str):
        def hook(module, args, y):
            outputs.append((name, module, not get_array_module(y.data).isfinite(y.data).all()))

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    with no_grad():
        model(Tensor(batch.images))
    for handle in handles:
        handle.remove()
    wrong = sum_over_ranks(communicators, device_of(batch.images), [float(wrong) for _, _, wrong in outputs])
    if not wrong.any():
        return "the outputs of all layers are finite, the loss itself overflowed"
    name, module, _ = outputs[int(np.flatnonzero(wrong)[0])]
    own = [p for p in vars(module).values() if isinstance(p, Parameter)]
    wrong_weights = not all(np.isfinite(to_numpy(p.data)).all() for p in own)
    anywhere = sum_over_ranks(communicators, device_of(batch.images), float(wrong_weights))
    weights = ", and so are its weights" if anywhere else ""
    return f"the first layer whose output is NaN or infinite is {name} ({type(module).__name__}){weights}"
