"""The results of a study: means with their spread, and whether a claim holds."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .studies import Claim, Measure, Study

Rows = list[dict[str, Any]]  # the lines of a run's metrics.jsonl
GOAL = 0.25  # training error

# Student's t, two-sided, 95 %, by degrees of freedom from 1; for more degrees, the last makes intervals slightly too wide.
T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


def test_error(rows: Rows) -> float:
    """Test error in % after the last epoch, from one view of each image."""
    return 100 * (1 - rows[-1]["test_accuracy"])


def epochs_to_goal(rows: Rows) -> float:
    """Epochs until the training error fell to 25 %, interpolated linearly between two epochs; infinity if it never did.

    An epoch's training error is the mean over its batches, each measured before the batch's step.
    """
    before = 1.0
    for row in rows:
        error = 1 - row["train_accuracy"]
        if error <= GOAL:
            return float(row["epoch"] - (GOAL - error) / (before - error))
        before = error
    return math.inf


MEASURES: dict[Measure, tuple[Callable[[Rows], float], str]] = {
    "test error": (test_error, "points"),
    "epochs to 25 % training error": (epochs_to_goal, "epochs"),
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The comparison of the two arms of a claim.

    found: by how much the measure of the better arm is lower, or how many times. low, high: its 95 % confidence interval. word:
    reproduced, not reproduced, or not decided.
    """

    found: float
    low: float
    high: float
    word: str
    factor: bool  # whether `found` is a factor

    def told(self, unit: str) -> str:
        """The verdict in one line. unit: the measure's."""
        bounds = f" ({self.low:.2f} to {self.high:.2f})" if math.isfinite(self.high) else ""
        size = f"{self.found:.2f}{bounds} times" if self.factor else f"{self.found:.2f}{bounds} {unit}"
        return f"{size}: {self.word}"


def spread(values: Sequence[float]) -> str:
    """Mean, sample standard deviation and range, as text; or in how many runs the goal was not reached, which is infinity."""
    if missed := sum(map(math.isinf, values)):
        return f"not reached in {missed} of {len(values)}" if len(values) > 1 else "not reached"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def measured(study: Study, runs: Mapping[tuple[str, int], Rows]) -> dict[str, list[float]]:
    """The measures of the existing runs, by arm."""
    measure, _ = MEASURES[study.measure]
    by_arm: dict[str, list[float]] = {}
    for arm, seed in study.runs():
        if (arm, seed) in runs:
            by_arm.setdefault(arm, []).append(measure(runs[arm, seed]))
    return by_arm


def judge(claim: Claim, values: Mapping[str, Sequence[float]]) -> Verdict | None:
    """Whether the claim holds; None while one of its arms has no runs, or none that reached the goal.

    The means of the two arms are compared by Student's t-test with a common variance. For a claim with a factor, the logarithms
    are compared.
    """
    better, worse = (best(name, values) for name in (claim.better, claim.worse))
    if better is None or worse is None:
        return None
    lower, higher = values[better], values[worse]
    n = min(len(lower), len(higher))
    undecided = f"not decided at n = {n}"
    if claim.factor is None:
        found, margin = _difference(lower, higher)
        low, high = found - margin, found + margin
        holds = low > 0
        fails = high < 0
    else:
        found, margin = _difference([math.log(v) for v in lower], [math.log(v) for v in higher])
        found, low, high = math.exp(found), math.exp(found - margin), math.exp(found + margin)
        holds = low > 1 and high >= claim.factor
        fails = high < claim.factor
    word = "reproduced" if holds else "not reproduced" if fails else undecided
    return Verdict(found, low, high, word, claim.factor is not None)


def best(name: str, values: Mapping[str, Sequence[float]]) -> str | None:
    """The arm of that name. A name that ends with a star is a prefix: of its arms with the most runs, the best is returned."""
    arms = [arm for arm in values if arm.startswith(name[:-1])] if name.endswith("*") else [name] if name in values else []
    arms = [arm for arm in arms if all(map(math.isfinite, values[arm]))]
    return min(arms, key=lambda arm: (-len(values[arm]), statistics.fmean(values[arm])), default=None)


def _difference(lower: Sequence[float], higher: Sequence[float]) -> tuple[float, float]:
    """The difference of the means and half of its 95 % interval, which is infinite if one arm has a single run."""
    difference = statistics.fmean(higher) - statistics.fmean(lower)
    if min(len(lower), len(higher)) < 2:
        return difference, math.inf
    freedom = len(lower) + len(higher) - 2
    squares = sum((len(v) - 1) * statistics.variance(v) for v in (lower, higher))
    error = math.sqrt(squares / freedom * (1 / len(lower) + 1 / len(higher)))
    return difference, T95[min(freedom, len(T95)) - 1] * error
