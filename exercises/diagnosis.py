"""Is a backward right, and if not, what is wrong with it?

`examine` runs a Function on the cases of an exercise; `minidl.gradcheck` decides whether its gradients are right. If one is not,
it is compared with the gradients that known mistakes give: first mistakes in any backward, then those of the exercise.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from minidl import Function, GradientError, Tensor, gradcheck, no_grad

SEED = 0  # grad is what gradcheck draws, so that both see the same
Finding = tuple[str, ...]  # what is wrong, a hint, and for some mistakes a second hint


class NotYet(Exception):
    """The exercise is not right yet: what is wrong, a hint, a second hint for a changed copy, and a table that shows it."""

    def __init__(self, what: str, hint: str, second_hint: str = "", *, table: tuple[str, ...] = ()):
        super().__init__(what)
        self.what, self.hint, self.second_hint, self.table = what, hint, second_hint, table


@dataclass
class Case:
    """One call. inputs: float64 arrays by name; arguments: those of the Function's constructor."""

    inputs: dict[str, np.ndarray]
    arguments: tuple = ()

    def values(self) -> tuple:
        return *self.inputs.values(), *self.arguments


@dataclass
class Evidence:
    """A wrong gradient of one input, the true one, the values of the call, and the wrong gradient for 2 grad instead of grad."""

    name: str
    yours: np.ndarray
    true: np.ndarray
    grad: np.ndarray
    case: Case
    sizes: dict[str, float]
    yours_of_twice_grad: np.ndarray

    def right(self) -> np.ndarray:
        return np.abs(self.yours - self.true) <= tolerance(self.true)


@dataclass
class Mistake:
    """A mistake with which the gradient of the input `of` is gradient(grad, *inputs, *arguments)."""

    of: str
    what: str
    hint: str
    gradient: Callable[..., np.ndarray]

    def explain(self, e: Evidence) -> Finding | None:
        k = factor(e.yours, self.gradient(e.grad, *e.case.values()))
        if k is None:
            return None
        if np.isclose(k, 1, rtol=1e-5):
            return self.what, self.hint
        rest = f"With that repaired, yours will still be the true one {times(k, e.sizes)}."
        return f"{self.what}, and a factor is wrong too", f"{self.hint} {rest}"


@dataclass
class Place:
    """A mistake in some elements of the gradient of the input `of`: where(*inputs, *arguments) is True for them only."""

    of: str
    what: str
    hint: str
    where: Callable[..., np.ndarray]
    second_hint: str = ""

    def explain(self, e: Evidence) -> Finding | None:
        elsewhere = ~self.where(*e.case.values())
        return (self.what, self.hint, self.second_hint) if elsewhere.any() and e.right()[elsewhere].all() else None


@dataclass
class Exercise:
    """function: the name of the class in the student's file. forward: computes the right output in another way.

    sizes: names for factors that may be missing. after_forward: called with the class and all values of a case, between a
    forward and its backward. axes: a hint about the axes, for an index that does not fit.
    """

    title: str
    function: str
    forward: Callable[..., np.ndarray]
    cases: list[Case]
    mistakes: list[Mistake | Place] = field(default_factory=list)
    sizes: Callable[..., dict[str, float]] = lambda *values: {}
    after_forward: Callable[..., object] = lambda function, *values: None
    axes: str = ""

    def call(self, case: Case) -> str:
        """The call as text."""
        inputs = shapes({name: x.shape for name, x in case.inputs.items()})
        return f"{self.function}({', '.join(map(str, case.arguments))}) and {inputs}"


def examine(exercise: Exercise, function: type[Function]) -> str:
    """One line about the gradients that are right. Raises NotYet if something is wrong."""
    elements = 0
    for i, case in enumerate(exercise.cases):
        expected = exercise.forward(*case.values())
        wanted = shapes({f"d{name}": x.shape for name, x in case.inputs.items()})
        task = f"With {exercise.call(case)}, backward is given grad {np.shape(expected)}, and is to return {wanted}."
        try:
            _examine_case(exercise, function, case, expected)
        except NotYet as trouble:
            before = f"Right with {exercise.call(exercise.cases[i - 1])}, but not with" if i else "With"
            trouble.table = (f"{before} {exercise.call(case)}:", *trouble.table) if trouble.table else ()
            raise
        except NotImplementedError as error:
            raise NotYet("backward is blank", f"To do: {error}. {task}") from None
        except (Exception, SystemExit) as error:
            axes = exercise.axes if isinstance(error, IndexError | ValueError) else ""
            raise NotYet(f"it failed with {type(error).__name__}: {error}", f"{task} {axes}") from error
        elements += sum(x.size for x in case.inputs.values())
    return f"{elements} elements of gradients agree with finite differences, in {len(exercise.cases)} cases"


def _examine_case(exercise: Exercise, function: type[Function], case: Case, expected: np.ndarray) -> None:
    tensors = [Tensor(x.copy(), requires_grad=True) for x in case.inputs.values()]

    def call(*tensors: Tensor) -> Tensor:
        output = function(*case.arguments)(*tensors)
        exercise.after_forward(function, *case.values())
        return output

    def gradients(grad: np.ndarray) -> list[np.ndarray]:
        """The gradients that backward returns, without autodiff. Raises NotYet if their number or a shape is wrong."""
        given = grad.copy()
        parts = call(*tensors).creator.backward(given)
        inputs_kept = all(map(np.array_equal, case.inputs.values(), [t.data for t in tensors]))
        if not inputs_kept or not np.array_equal(given, grad):
            raise NotYet(
                "it changes in place what it was given",
                "grad and the inputs may be in use elsewhere: write a * b in place of a *= b, or change a copy.",
            )
        return _of_the_right_shapes(parts, case, np.shape(expected))

    output = call(*tensors)
    if output.shape != np.shape(expected) or not np.allclose(output.data, expected, rtol=1e-9, atol=1e-9):
        raise NotYet("its forward gives other values than before", "The forward was right as it came: put it back.")
    grad = np.asarray(np.random.default_rng(SEED).standard_normal(output.shape))
    yours = gradients(grad)
    for name, gradient in zip(case.inputs, yours, strict=True):
        for index in zip(*np.nonzero(~np.isfinite(gradient)), strict=True):
            table = (f"gradient of {name} at [{', '.join(map(str, index))}]: yours is {gradient[index]}",)
            hint = "Look for a division by 0, or a power of 0."
            raise NotYet(f"the gradient of {name} has nan or inf in it", hint, table=table)
    try:
        gradcheck(call, tensors, mode="elements", seed=SEED)
    except GradientError:
        if not all(map(np.array_equal, yours, gradients(grad))):
            raise NotYet(
                "backward gives something else each time", "It must depend only on grad and on what forward did."
            ) from None
        true, doubled, sizes = _differences(call, tensors, grad), gradients(2 * grad), exercise.sizes(*case.values())
        evidence = [
            Evidence(name, mine, truth, grad, case, sizes, twice)
            for name, mine, truth, twice in zip(case.inputs, yours, true, doubled, strict=True)
        ]
        first_wrong = min(evidence, key=lambda e: e.right().all())
        raise NotYet(*_diagnose(first_wrong, exercise.mistakes), table=_table(evidence)) from None


def _differences(call: Callable[..., Tensor], tensors: list[Tensor], grad: np.ndarray, eps: float = 1e-6) -> list[np.ndarray]:
    """dL/dtensor by central differences, for L = sum of grad * call(*tensors)."""

    def slope(x: np.ndarray, index) -> float:
        value, losses = x[index], []
        for step in (eps, -eps):
            x[index] = value + step
            losses.append((call(*tensors).data * grad).sum())
        x[index] = value
        return (losses[0] - losses[1]) / (2 * eps)

    with no_grad():
        return [np.array([slope(t.data, i) for i in np.ndindex(t.shape)]).reshape(t.shape) for t in tensors]


def _of_the_right_shapes(parts, case: Case, output_shape: tuple[int, ...]) -> list[np.ndarray]:
    """What backward returned: one array for each input, of its shape; else NotYet."""
    order = f"Return an array for each input of forward, in their order: {', '.join(f'd{name}' for name in case.inputs)}."
    if parts is None:
        raise NotYet(
            "backward returns None", f"Is its return missing? A call that works in place, like np.add.at, returns None. {order}"
        )
    parts = list(parts) if isinstance(parts, tuple | list) else [parts]
    if len(parts) != len(case.inputs):
        raise NotYet(f"the forward takes {len(case.inputs)} inputs, and backward returns {len(parts)} gradients", order)
    for (name, x), part in zip(case.inputs.items(), parts, strict=True):
        if part is None:
            raise NotYet(f"the gradient of {name} is None", order)
        if not isinstance(part, np.ndarray | np.generic):
            raise NotYet(f"the gradient of {name} is a {type(part).__name__}, not an array", order)
        if part.shape != x.shape:
            table = (f"gradient of {name}: yours has shape {part.shape}, the true one {x.shape}",)
            hint = _hint_for_shape(part.shape, name, case, output_shape)
            raise NotYet(f"the gradient of {name} has the wrong shape", hint, table=table)
    return parts


def _hint_for_shape(shape: tuple[int, ...], name: str, case: Case, output_shape: tuple[int, ...]) -> str:
    wanted = case.inputs[name].shape
    if 0 in shape:
        return "It is empty. A slice p:-p is empty if p is 0; p : n - p, with the length n of the axis, is not."
    if shape == wanted[::-1]:
        return "It is transposed. Which index of the product is summed over, and which stays?"
    if shape == output_shape:
        return (
            f"Yours has the shape of the output, not that of {name}. Broadcasting used each element of {name} many times: "
            "sum over the axes along which it was repeated."
        )
    for other, x in case.inputs.items():
        if shape == x.shape:
            return f"Yours has the shape of {other}. Gradients are returned in the order of forward's inputs."
    if np.prod(shape) == np.prod(wanted):
        return "It has the right number of elements. Look for keepdims or a reshape."
    if len(shape) > len(wanted):
        return f"It has an axis that {name} has not: there is more to sum over."
    if len(shape) < len(wanted):
        return f"It lacks an axis that {name} has: too much is summed, or an index is missing."
    if all(n >= m for n, m in zip(shape, wanted, strict=True)):
        return f"It is larger than {name}: cut off what forward put around {name}."
    return f"Compare them axis by axis: each element of {name} has one gradient, of the axes that {name} has."


def _diagnose(e: Evidence, mistakes: list[Mistake | Place]) -> Finding:
    """The first mistake that gives the gradient found."""
    candidates = itertools.chain([_general(e)], (m.explain(e) for m in mistakes if m.of == e.name))
    wrong = int((~e.right()).sum())
    unknown = (
        f"{wrong} of the {e.true.size} elements of the gradient of {e.name} are wrong",
        f"Take one element of {e.name}, and write down every place where forward uses it. The chain rule adds a term for each.",
    )
    return next((finding for finding in candidates if finding), unknown)


def _general(e: Evidence) -> Finding | None:
    """Mistakes that can be made in any backward."""
    if not e.yours.any():
        return f"the gradient of {e.name} is zero everywhere", f"The output does depend on {e.name}."
    if close(e.yours, e.yours_of_twice_grad):
        return (
            f"the gradient of {e.name} does not depend on grad",
            "backward is given grad = dL/dy, and returns dL/dinput: by the chain rule, grad is a factor in every term.",
        )
    k = factor(e.yours, e.true)
    if k is not None and not close(e.yours_of_twice_grad, 2 * e.yours):
        return (
            f"the gradient of {e.name} is not proportional to grad",
            "With twice the grad it should be twice as large, and yours is not: grad is a factor in every term, once.",
        )
    if k is not None and np.isclose(k, -1):
        return (
            f"the gradient of {e.name} has the wrong sign",
            "Yours is the true one times -1 at every element: follow the minus signs of the forward.",
        )
    if k is not None:
        hint = f"Yours is the true one {times(k, e.sizes)} at every element: a factor is missing, or there is one too many."
        return f"the gradient of {e.name} is off by a constant factor", hint
    for axes in itertools.permutations(range(e.true.ndim)):
        if close(e.yours.transpose(axes), e.true):
            return f"the gradient of {e.name} is transposed", "Its axes are in another order than those of the input."
    return None


def _table(all_evidence: list[Evidence], rows: int = 3) -> tuple[str, ...]:
    lines = [f"{'gradient of':<12} {'element':<16} {'yours':>12} {'true':>12}"]
    for e in all_evidence:
        wrong = list(zip(*np.nonzero(~e.right()), strict=True))
        if not wrong:
            lines.append(f"{e.name:<12} all right")
        for index in wrong[:rows]:
            element = f"[{', '.join(map(str, index))}]"
            lines.append(f"{e.name:<12} {element:<16} {e.yours[index] + 0.0:>12.6g} {e.true[index] + 0.0:>12.6g}")
        if len(wrong) > rows:
            lines.append(f"{e.name:<12} wrong in {len(wrong)} of {e.true.size} elements")
    return tuple(lines)


def tolerance(true: np.ndarray) -> float:
    return 1e-7 + 1e-6 * float(np.abs(true).max(initial=0))


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool((np.abs(a - b) <= tolerance(b)).all())


def factor(a: np.ndarray, b: np.ndarray) -> float | None:
    """The number k for which a = k b, if there is one other than 0."""
    if a.shape != b.shape or not a.any() or not b.any():
        return None
    k = float((a * b).sum() / (b * b).sum())
    return k if k and close(a / k, b) else None


def times(k: float, sizes: dict[str, float]) -> str:
    """The factor as text: times 12, or divided by 12, with the name of the 12 if it has one."""
    for name, size in sizes.items():
        if np.isclose(k, size):
            return f"times {name} = {size:g}"
        if np.isclose(k, 1 / size):
            return f"divided by {name} = {size:g}"
    return f"times {k:.6g}"


def shapes(named: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in named.items())
