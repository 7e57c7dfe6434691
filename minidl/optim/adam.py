"""Adam: adaptive step sizes from running moments of the gradient."""

from typing import Any

from ..kernels import kernels_for
from .optimizer import Optimizer, Parameters, is_number


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1), with weight decay added to the gradient, as in PyTorch:

        d = grad + weight_decay w;  m = beta1 m + (1 - beta1) d;  v = beta2 v + (1 - beta2) d^2
        w = w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)   in a parameter's step t = 1, 2, ...

    betas: (beta1, beta2), each at least 0 and below 1. params: as for SGD, and packed in the same way; a group may have its
    own lr, betas, eps and weight_decay. The settings after weight_decay are PyTorch's; only their defaults are accepted.
    Raises ValueError or TypeError for wrong arguments.
    """

    numbers = ("lr", "eps", "weight_decay")
    fixed = {
        "amsgrad": False,
        "maximize": False,
        "foreach": None,
        "capturable": False,
        "differentiable": False,
        "fused": None,
        "decoupled_weight_decay": False,
    }
    buffers = ("exp_avg", "exp_avg_sq")
    counts = ("step",)

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **fixed: Any,
    ):
        super().__init__(params, fixed, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        betas = group["betas"]
        pair = isinstance(betas, (tuple, list)) and len(betas) == 2
        if not pair or not all(is_number(beta, below=1) for beta in betas):
            raise ValueError(f"Adam takes betas, two numbers of at least 0 and below 1; got {betas!r}")
        group["betas"] = float(betas[0]), float(betas[1])

    def _update(self, group, data, gradient, state, loss):
        settings = (group[name] for name in ("lr", "betas", "eps", "weight_decay"))
        moments = state["exp_avg"], state["exp_avg_sq"]
        kernels_for(data).adam_update(data, gradient, *moments, state["step"], *settings, loss)
