"""The gradient check: compare backward with finite differences, in float64."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..autodiff import Tensor, no_grad, walk
from ..backend import get_array_module, to_numpy
from ..functional.arguments import as_tensor

MOST_ELEMENTS = 2000  # up to this number, the default is to check each element


class GradientError(AssertionError):
    """A gradient is wrong. The message is the report."""


@dataclasses.dataclass
class Comparison:
    """One comparison of a derivative by backward with a finite difference."""

    what: str
    analytic: float
    numeric: float
    ok: bool
    tiny: bool  # both derivatives are below atol, so that any gradient would pass

    def __str__(self):
        difference = abs(self.analytic - self.numeric)
        verdict = "WRONG" if not self.ok else "too small to tell" if self.tiny else "ok"
        return f"{self.what:<24} {self.analytic:>16.9g} {self.numeric:>16.9g} {difference:>10.1e}  {verdict}"


def gradcheck(
    fn: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    *,
    mode: str | None = None,
    directions: int = 3,
    eps: float = 1e-6,
    rtol: float = 1e-6,
    atol: float = 1e-7,
    seed: int = 0,
    verbose: bool = False,
) -> str:
    """Check dL/dx by backward against (L(x + step u) - L(x - step u)) / (2 step), for L = sum of r * fn(*inputs) with random
    weights r, and every x of the inputs that requires a gradient; if fn is a Module, for its parameters too.

    mode "elements": u is one element at a time, for all elements. It finds every wrong element, and names it. "directions": u
    is a random direction, for each x separately. It takes two evaluations for each direction, but can miss a small error in a
    few elements. Without a mode: "elements" if there are at most 2,000 in all, else "directions".

    The checked tensors must be float64. fn must return the same values for the same inputs, with and without no_grad (give
    dropout a key and a context), and be smooth within a step (keep the inputs of ReLU away from 0, and those of max pooling
    apart). step is eps, times |x| where |x| > 1. A comparison of a and b passes if |a - b| <= atol + rtol * max(|a|, |b|),
    plus an allowance for rounding.

    Returns the report, with a line for each comparison, and prints it if verbose. Raises GradientError with the report if a
    gradient is wrong. Raises ValueError if the check is not possible, or if all derivatives are below atol, as any gradient
    would then pass. The check leaves tensors and a Module fn as they were, and leaves no gradients. A network that fn calls
    keeps what its forward changed, such as running statistics.
    """
    if mode not in (None, "directions", "elements"):
        raise ValueError(f'gradcheck takes mode "directions" or "elements"; got {mode!r}')
    inputs = [as_tensor(x) for x in ([inputs] if isinstance(inputs, Tensor) else inputs)]
    checked = _checked(fn, inputs)
    if mode is None:
        mode = "elements" if sum(x.data.size for x in checked.values()) <= MOST_ELEMENTS else "directions"
    buffers = {name: array.copy() for name, array in fn.state_dict().items()} if hasattr(fn, "state_dict") else {}
    rng = np.random.default_rng(seed)
    try:
        gradients, weights, size = _analytic(fn, inputs, checked, rng)

        def loss() -> float:
            with no_grad():
                return float((to_numpy(fn(*inputs).data) * weights).sum())

        rows = []
        for name, x in checked.items():
            for what, direction, step in _directions(name, to_numpy(x.data), mode, directions, eps, rng):
                with np.errstate(invalid="ignore"):  # the report shows infinite values
                    analytic = float((gradients[name] * direction).sum())
                numeric = _slope(loss, x, direction, step)
                rounding = 20 * np.finfo(np.float64).eps * size / step
                tolerance = atol + rtol * max(abs(analytic), abs(numeric)) + rounding
                ok, tiny = abs(analytic - numeric) <= tolerance < np.inf, max(abs(analytic), abs(numeric)) <= atol
                rows.append(Comparison(what, analytic, numeric, bool(ok), bool(tiny)))
    finally:
        for name, array in buffers.items():
            fn.state_dict()[name][...] = array  # type: ignore[attr-defined]
    report = "\n".join([f"{'gradient of':<24} {'backward':>16} {'differences':>16} {'apart':>10}", *map(str, rows)])
    if verbose:
        print(report)
    wrong = sum(not row.ok for row in rows)
    if wrong:
        raise GradientError(f"{wrong} of {len(rows)} comparisons are wrong\n{report}")
    if all(row.tiny for row in rows):
        raise ValueError(f"all derivatives are below atol = {atol:g}, so any gradient passes: give a smaller atol, or scale fn")
    return report


def _checked(fn: Callable[..., Tensor], inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """The checked tensors by their names in the report: inputs by number, parameters by name."""
    checked = {f"input {i}": x for i, x in enumerate(inputs) if x.requires_grad}
    for name, parameter in fn.named_parameters() if hasattr(fn, "named_parameters") else ():
        if parameter.requires_grad and not any(parameter is x for x in checked.values()):
            checked[name] = parameter
    if not checked:
        raise ValueError("gradcheck needs an input with requires_grad")
    for name, x in checked.items():
        if x.dtype != np.float64:
            raise ValueError(f"gradcheck needs float64; {name} is {x.dtype}, whose rounding is larger than the differences")
    return checked


def _analytic(fn: Callable[..., Tensor], inputs: Sequence[Tensor], checked: dict[str, Tensor], rng: np.random.Generator):
    """backward's gradients of L by name, the random weights r, and the norm of L's terms. ValueError if fn cannot be checked."""
    output = fn(*inputs)
    if not isinstance(output, Tensor):
        raise TypeError(f"gradcheck needs a function that returns a Tensor; this one returned a {type(output).__name__}")
    if not output.requires_grad:
        raise ValueError("gradcheck needs an output that depends on a tensor that requires a gradient; this one does not")
    value = to_numpy(output.data)
    weights = rng.standard_normal(output.shape)
    if not np.isfinite(value).all():
        raise ValueError("gradcheck needs a function with finite values; this one returned NaN or infinite values")
    found = dict(walk(output, get_array_module(output.data).asarray(weights)))
    gradients = {name: to_numpy(found[x]) if x in found else np.zeros(x.shape) for name, x in checked.items()}
    with no_grad():
        untracked, again = (to_numpy(fn(*inputs).data) for _ in range(2))
    if not np.array_equal(untracked, again):
        raise ValueError("gradcheck needs a function that returns the same values for the same inputs; this one does not")
    if not np.allclose(value, untracked, rtol=1e-9, atol=1e-12):
        raise ValueError("gradcheck needs a function that returns the same values under no_grad; this one does not")
    return gradients, weights, float(np.sqrt(((value * weights) ** 2).sum()))


def _directions(
    name: str, x: np.ndarray, mode: str, count: int, eps: float, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray, float]]:
    """(description, direction, step) for each comparison of x."""
    if mode == "directions":
        for k in range(count):
            direction = rng.standard_normal(x.shape)
            norm = max(1e-300, np.sqrt((direction**2).sum()))
            yield f"{name} along direction {k}", direction / norm, eps * max(1.0, float(np.abs(x).max(initial=0.0)))
    else:
        for index in np.ndindex(*x.shape):
            direction = np.zeros(x.shape)
            direction[index] = 1
            yield f"{name} at {index}", direction, eps * max(1.0, float(abs(x[index])))


def _slope(loss: Callable[[], float], x: Tensor, direction: np.ndarray, step: float) -> float:
    data, changes = x.data, x._changes
    change: Any = get_array_module(data).asarray(step * direction)
    try:
        x.data = data + change
        above = loss()
        x.data = data - change
        return (above - loss()) / (2 * step)
    finally:
        x.data, x._changes = data, changes
