"""Stochastic gradient descent."""

from typing import Any

from ..backend import Array
from ..kernels import kernels_for
from .optimizer import Optimizer, Parameters


class SGD(Optimizer):
    """Gradient descent with momentum, PyTorch's rule:

        d = grad + weight_decay w;  v = momentum v + d;  w = w - lr v,  or w - lr (d + momentum v) with nesterov.

    With a constant lr this is the paper's section 5 with v scaled by -lr.

    params: parameters, or groups of them: dicts {"params": ..., and lr, momentum, weight_decay or nesterov of its own}.
    The parameters move into one flat buffer, in their order, and their gradients will be written into another: from here on
    p.data and p.grad are views of these, so that a device sends all gradients as one array. Write into p.data, do not
    replace it. A state_dict of the network taken before holds the old arrays, which are no longer updated: take it again, or
    copy it. A parameter without a gradient is left alone by step(). A later optimiser takes its parameters over from this.

    fixed: PyTorch's other settings, each taken at its default only: dampening=0, maximize=False, foreach=None,
    differentiable=False, fused=None. Raises ValueError or TypeError for wrong arguments.
    """

    numbers = ("lr", "momentum", "weight_decay")
    fixed = {"dampening": 0, "maximize": False, "foreach": None, "differentiable": False, "fused": None}
    buffers = ("momentum_buffer",)

    def __init__(
        self,
        params: Parameters,
        lr: float,
        momentum: float = 0.0,
        *,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        **fixed: Any,
    ):
        super().__init__(params, fixed, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)

    @property
    def momentum_buffers(self) -> list[Array]:
        """The velocity of each parameter, in their order and of their shape: views, to be saved or written into."""
        return [self._state(i)["momentum_buffer"] for i in range(len(self._flat))]

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if not isinstance(group["nesterov"], bool):
            raise ValueError(f"SGD takes a nesterov of True or False; got {group['nesterov']!r}")
        if group["nesterov"] and not group["momentum"]:
            raise ValueError("nesterov needs a momentum above 0")

    def _update(self, group, data, gradient, state, loss):
        settings = (group[name] for name in ("lr", "momentum", "weight_decay", "nesterov"))
        kernels_for(data).sgd_update(data, gradient, state["momentum_buffer"], *settings, loss)
