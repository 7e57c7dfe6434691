"""Test the claims of the AlexNet paper (Krizhevsky 2012) and of the study deck, and report which of them hold.

    python -m alexnet reproduce            the plan: parts, runs, which are done, and the minutes left on this machine
    python -m alexnet reproduce pooling    run a part, or resume it, and report
    python -m alexnet reproduce all        all parts

A part that was stopped or killed resumes where it stopped. The same command in a second terminal takes runs that the first has
not begun. A run whose loss is NaN or infinite is left, and the others continue. The weights of the small runs are not kept.
Exit status: 0 done, 1 a run failed, 2 wrong usage or data; stopped and saved: 129 SIGHUP, 130 Ctrl-C, 143 SIGTERM.
"""

import argparse
import os
from pathlib import Path

from minidl.errors import NotFiniteError, UserError

from .. import entry, launch, reproduction
from ..config import Config
from ..lock import FolderLock
from ..reproduction import find, run_config, run_name, state
from ..run import RunFolder
from ..studies import ARMS, STUDIES
from . import train
from .arguments import Parser, add_devices, folder_name, refuse_mpi

ALL = "all"


def main(arguments: list[str]) -> int:
    """Run and report, or print the plan. Returns the exit status. Raises UserError for an error that the user can fix."""
    p = Parser("-m alexnet reproduce", __doc__)
    p.usage = "python -m alexnet reproduce [options] [NAME ...]"
    p.add_argument("names", nargs="*", metavar="NAME", help=f"parts: {', '.join(STUDIES)}, or {ALL} (default: print the plan)")
    p.add_argument(
        "--runs",
        type=folder_name,
        metavar="DIR",
        default=Path("runs/reproduce"),
        help="folder of the runs (default runs/reproduce)",
    )
    p.add_argument(
        "--keep", type=folder_name, metavar="DIR", help="copy each run's config.json and metrics.jsonl into this folder"
    )
    p.add_argument(
        "--data-dir",
        type=folder_name,
        metavar="DIR",
        help="where CIFAR-10 is (default $MINIDL_DATA, else ~/.cache/minidl)",
    )
    add_devices(p, "GPUs, or processes that share the CPU; they divide the batch")
    args = p.parse_args(arguments)
    asked = getattr(args, "names", [])
    unknown = [name for name in asked if name not in (*STUDIES, ALL)]
    if unknown:
        raise UserError(f"there is no part {unknown[0]!r}; there are {', '.join(STUDIES)}, and {ALL}")
    keep = getattr(args, "keep", None)
    if keep is not None and not asked:
        raise UserError(f"--keep {keep}: the plan has no runs to copy; name a part, or all")
    if keep is not None and os.path.realpath(keep) == os.path.realpath(args.runs):
        raise UserError(f"--keep {keep}: this is the folder of the runs; give another")
    refuse_mpi("reproduce")
    given = argparse.Namespace(**{name: vars(args)[name] for name in ("backend", "devices", "data_dir") if name in args})
    if not asked:
        _print_plan(train.config(given), args.runs)
        return 0
    names = list(STUDIES) if ALL in asked else list(dict.fromkeys(asked))
    failed = False
    try:
        for arm, seed in dict.fromkeys(run for name in names for run in STUDIES[name].runs()):
            failed |= not _run(given, args.runs, arm, seed, keep)
    except entry.Interrupted as error:
        entry.tell("stopped; the same command resumes it")
        return 128 + error.signum
    for name in names:
        print("", *reproduction.report(STUDIES[name], args.runs), sep="\n", flush=True)
    return int(failed)


def _run(given: argparse.Namespace, place: Path, arm: str, seed: int, kept: Path | None) -> bool:
    """Do a run, or the rest of it, unless it is done or another process is running it. Raises Interrupted after a signal.

    Returns False, and prints why, if the loss is NaN or infinite.
    given: the options on the command line that a run takes, also a resumed one.
    """
    path, config = place / run_name(arm, seed), run_config(train.config(given), arm, seed)
    run = find(path, config)
    if state(run) in ("to do", "begun"):
        print(f"{path}: {ARMS[arm].label}, seed {seed}", flush=True)
        status = _train(given, path, config, run)
        entry.handle_signals(entry.clean_up_and_end, entry.end_at_once)  # until the next run begins
        if (stopped := max(status, entry.stopped())) > 1:  # a signal after the last step does not stop the run
            raise entry.Interrupted(stopped - 128)
        if status == 1:
            return False
        run = find(path, config)
    if run is None or state(run) != "done":
        print(f"{path} is being run by another process", flush=True)
        return True
    if ARMS[arm].limit_train:
        reproduction.forget_weights(run)
    if kept is not None:
        try:
            reproduction.keep(run, kept)
        except OSError as error:
            raise UserError(f"--keep {kept}: cannot write there: {error.strerror or error}") from None
    return True


def _train(given: argparse.Namespace, path: Path, config: Config, run: RunFolder | None) -> int:
    """Start a run in the folder `path`, or resume `run`. Returns the exit status: 1 if the loss is NaN or infinite."""
    try:
        if run:
            return launch.resume(run, train.resumed_config(given, run.config), advice=False)
        return launch.start(config, path, advice=False)
    except NotFiniteError as error:
        entry.tell(f"{path} diverged, the other runs continue: {error}")
        return 1
    except UserError:
        if not FolderLock.in_use(path):  # otherwise another process was faster
            raise
        return 0


def _print_plan(base: Config, place: Path) -> None:
    """Print a line for each part. A run that several parts share is counted in each."""
    device = f"cupy:{base.devices[0]}" if base.backend == "cupy" else "numpy"
    print(f"{'part':<15}runs  done  minutes left", flush=True)
    left: dict[str, float] = {}
    for name, study in STUDIES.items():
        own, finished = 0.0, 0
        for arm, seed in study.runs():
            config = run_config(base, arm, seed)
            run = find(place / run_name(arm, seed), config)
            finished += state(run) == "done"
            left[run_name(arm, seed)] = reproduction.minutes_left(run, config, device)
            own += left[run_name(arm, seed)]
        print(f"{name:<15}{len(study.runs()):>4}{finished:>6}{own:>14,.0f}  {study.title}", flush=True)
    print(f"{ALL:<15}{len(left):>4}{'':>6}{sum(left.values()):>14,.0f}  each run counted once; in {place}", flush=True)
