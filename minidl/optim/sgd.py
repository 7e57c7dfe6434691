"""Stochastic gradient descent."""

from typing import Any

from ..backend import Array
from ..kernels import kernels_for
from .optimizer import Optimizer, Parameters


class SGD(Optimizer):
    """Gradient descent with momentum, PyTorch's rule:

        d = grad + weight_decay w;  v = momentum v + d;  w = w - lr v,  or w - lr (d + momentum v) with nesterov.

    With a constant lr this is the rule of Krizhevsky 2012, section 5, whose v is -lr times the v here.

    params: parameters, or groups of them: dicts {"params": ..., and the group's own lr, momentum, weight_decay or nesterov}.
    The parameters move into one flat buffer, in their order, and their gradients into another. From then on p.data and
    p.grad are views of these, so that a device sends all gradients as one array. Write into p.data, do not replace it. An
    earlier state_dict of the network keeps the old arrays, which are no longer updated: take it again. step() does not
    change a parameter without a gradient. If a later optimiser takes the same parameters, they belong to that one.

    fixed: PyTorch's other settings; only their defaults are accepted: dampening=0, maximize=False, foreach=None,
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
        """The velocity of each parameter, in order and of its shape: views, which can be saved or written into."""
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
