"""Is a backward right? Compare it with finite differences, in float64."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from .autodiff import Tensor, no_grad
from .backend import get_array_module, to_numpy


class GradientError(AssertionError):
    """A gradient is wrong. The message is the report."""


@dataclasses.dataclass
class Row:
    """One comparison."""

    what: str
    analytic: float
    numeric: float
    ok: bool

    def __str__(self):
        difference = abs(self.analytic - self.numeric)
        verdict = "ok" if self.ok else "WRONG"
        return f"{self.what:<24} {self.analytic:>16.9g} {self.numeric:>16.9g} {difference:>10.1e}  {verdict}"


def gradcheck(
    fn: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    *,
    mode: str = "directions",
    directions: int = 3,
    eps: float = 1e-6,
    rtol: float = 1e-6,
    atol: float = 1e-7,
    seed: int = 0,
    verbose: bool = False,
) -> str:
    """Check dL/dinput by backward against (L(input + eps u) - L(input - eps u)) / (2 eps), for L = sum of r * fn(*inputs)
    with random weights r.

    mode "directions": u runs through random directions, each input by itself; any wrong element of the gradient changes the
    slope along them, at the price of two evaluations a direction. mode "elements": u is one element at a time, all of
    them, which says where the gradient is wrong; for small inputs.

    inputs: float64 tensors; those with requires_grad are checked. fn must give the same for the same inputs (give dropout a
    key and a context), and be smooth within eps of them (keep ReLU's inputs away from 0, max pooling's apart).
    A comparison passes if |difference| <= atol + rtol * max(|both|, largest gradient of the input).

    Returns the report, a line for each comparison, and prints it if verbose. Raises GradientError with the report if a
    gradient is wrong, and ValueError if the check is not possible.
    """
    checked = [(i, x) for i, x in enumerate(inputs) if x.requires_grad]
    if mode not in ("directions", "elements"):
        raise ValueError(f'gradcheck takes mode "directions" or "elements"; got {mode!r}')
    if not checked:
        raise ValueError("gradcheck needs an input with requires_grad")
    for i, x in checked:
        if x.dtype != np.float64:
            raise ValueError(f"gradcheck needs float64 inputs; input {i} is {x.dtype}: differences would drown in rounding")
    rng = np.random.default_rng(seed)
    gradients, weights = _analytic(fn, inputs, checked, rng)

    def loss() -> float:
        with no_grad():
            return float((to_numpy(fn(*inputs).data) * weights).sum())

    if not np.isfinite(loss()):
        raise ValueError("gradcheck needs a function whose values are finite; this one's are not")
    if loss() != loss():
        raise ValueError("gradcheck needs a function that gives the same for the same inputs; this one changes")

    rows = []
    for (i, x), gradient in zip(checked, gradients, strict=True):
        largest = float(np.abs(gradient).max(initial=0.0))
        for what, direction in _directions(i, x.shape, mode, directions, rng):
            with np.errstate(invalid="ignore"):  # the report tells what is infinite
                analytic = float((gradient * direction).sum())
            numeric = _slope(loss, x, direction, eps)
            tolerance = atol + rtol * max(abs(analytic), abs(numeric), largest)
            rows.append(Row(what, analytic, numeric, bool(abs(analytic - numeric) <= tolerance < np.inf)))
    report = "\n".join([f"{'gradient of input':<24} {'backward':>16} {'differences':>16} {'apart':>10}", *map(str, rows)])
    if verbose:
        print(report)
    wrong = sum(not row.ok for row in rows)
    if wrong:
        raise GradientError(f"{wrong} of {len(rows)} comparisons are wrong\n{report}")
    return report


def _analytic(fn, inputs, checked, rng):
    """backward's gradients of L, and the random weights r; the inputs' own grad is left as it was."""
    kept = [(x.grad, x.grad_buffer) for _, x in checked]
    for _, x in checked:
        x.grad = x.grad_buffer = None
    try:
        output = fn(*inputs)
        weights = rng.standard_normal(output.shape)
        output.backward(get_array_module(output.data).asarray(weights))
        gradients = [np.zeros(x.shape) if x.grad is None else to_numpy(x.grad) for _, x in checked]
    finally:
        for (_, x), (grad, buffer) in zip(checked, kept, strict=True):
            x.grad, x.grad_buffer = grad, buffer
    return gradients, weights


def _directions(i: int, shape, mode: str, count: int, rng):
    """(what it is, direction) for each comparison of input i."""
    if mode == "directions":
        for k in range(count):
            direction = rng.standard_normal(shape)
            yield f"{i} along direction {k}", direction / max(1e-300, np.sqrt((direction**2).sum()))
    else:
        for index in np.ndindex(*shape):
            direction = np.zeros(shape)
            direction[index] = 1
            yield f"{i} at {index}", direction


def _slope(loss: Callable[[], float], x: Tensor, direction: np.ndarray, eps: float) -> float:
    data = x.data
    step = get_array_module(data).asarray(eps * direction)
    try:
        x.data = data + step
        above = loss()
        x.data = data - step
        return (above - loss()) / (2 * eps)
    finally:
        x.data = data
