"""Many random experiments on runs: python -m tests.soak --experiments 1000 --seed 0. The exit status is 1 if one fails.

An experiment damages files, draws a command line, or stops or kills a process at a random moment. Nothing may be lost, and
no traceback may be shown. Prints the counts, and each failure with the smallest example that hypothesis finds.
"""

import argparse
import collections
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import hypothesis
from hypothesis import strategies as st

from .helpers import experiments, moments

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]
SHARE_OF_MOMENTS = 0.15  # small: each takes seconds, in a process of its own


def drawn(experiment: Callable, count: int, seed: int, counts: collections.Counter, name: str) -> None:
    """Call experiment(draw) with `count` different draws, and count their outcomes by exit status."""

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(st.data())
    def test(data):
        status, _ = experiment(data.draw)
        counts[name, {0: "resumed", 1: "failed as it should", 2: "refused"}[status]] += 1

    test()


def soak(experiments_in_all: int, seed: int) -> tuple[collections.Counter, int]:
    """(counts by kind and outcome, number of kinds in which an experiment failed)."""
    counts: collections.Counter = collections.Counter()
    failed = 0
    at_moments = int(experiments_in_all * SHARE_OF_MOMENTS)
    each = (experiments_in_all - at_moments) // (len(experiments.DAMAGES) + 1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        baseline = experiments.Baseline(place / "baseline")
        kinds: dict[str, Callable] = {
            damage.__name__: lambda draw, damage=damage: baseline.resume(place, lambda run: damage(draw, run))
            for damage in experiments.DAMAGES
        }
        kinds["command_line"] = lambda draw: experiments.started(place / "new", draw(experiments.command_lines()))
        for name, experiment in kinds.items():
            try:
                drawn(experiment, each, seed, counts, name)
            except Exception:
                failed += 1
                traceback.print_exc()
            print(f"{sum(counts.values()):5} experiments: {name} done", flush=True)
    chance = random.Random(seed)
    for _ in range(experiments_in_all - sum(counts.values())):
        signum = chance.choice(SIGNALS)
        stop = moments.Stop(
            signum, chance.random(), chance.choice(["process", "group", "both"]), chance.choice(["0", "0", "0,1"])
        )
        if wrong := moments.experiment(stop):
            failed += 1
            print(f"{stop}: {wrong}", flush=True)
        counts[f"{signal.Signals(stop.signum).name} at a moment", "wrong" if wrong else "all was well"] += 1
    return counts, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started = time.monotonic()
    counts, failed = soak(args.experiments, args.seed)
    for (name, outcome), count in sorted(counts.items()):
        print(f"{count:6}  {name}: {outcome}")
    print(f"{sum(counts.values())} experiments in {time.monotonic() - started:.0f} s, {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
