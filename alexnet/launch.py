"""Start a run, end it at a signal, and say how it ended."""

import dataclasses
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from minidl import set_num_threads
from minidl.errors import TrainingError, UserError

from . import datasets
from .models import LEAST_IMAGE_SIZE
from .run import Config, RunFolder
from .trainer import Stopped, fit


def start(config: Config, out: Path | None) -> int:
    """A new run, in the folder `out` or one named after it. Returns the exit status; raises UserError before it begins."""
    dataset = _load(config)
    least, size = LEAST_IMAGE_SIZE[config.model], min(dataset.image_shape[1:])
    if size < least:
        raise UserError(
            f"--model {config.model} takes images of at least {least} x {least}, and {dataset.name} has {size} x {size}; "
            "choose a cifar model"
        )
    dataset.train.first(config.limit_train, "--limit-train")
    dataset.test.first(config.limit_test, "--limit-test")
    return _run(RunFolder.create(out, config), dataset, resume=False)


def resume(folder: RunFolder, data_dir: str | None) -> int:
    """Go on with a run from its last checkpoint; data_dir: where its data is now, None for where it was.

    Returns the exit status; raises UserError before it goes on.
    """
    config = folder.config if data_dir is None else dataclasses.replace(folder.config, data_dir=data_dir)
    set_num_threads(config.threads)  # sums are added up in another order on another number
    return _run(folder, _load(config), resume=True)


def _load(config: Config) -> datasets.Dataset:
    """The data set. A SIGTERM meanwhile cleans up before it ends the program, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    return datasets.load(config.data, config.data_dir)


def _run(folder: RunFolder, dataset: datasets.Dataset, resume: bool) -> int:
    again = f"python train.py --resume {folder.path}"
    try:
        with stop_signal() as stopped_by:
            evaluation = fit(folder, dataset, resume=resume, stop=lambda: bool(stopped_by))
    except TrainingError as error:
        print(f"train.py: training failed: {error}", file=sys.stderr)
        return 1
    except Stopped:
        print(f"train.py: stopped, and saved; go on with: {again}", file=sys.stderr)
        return 128 + stopped_by[0]
    except KeyboardInterrupt:
        print(f"train.py: stopped at once; go on from the last checkpoint with: {again}", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"test loss: {evaluation.loss:.4f} - accuracy: {evaluation.accuracy:.4f}", flush=True)
    return 0


@contextmanager
def stop_signal() -> Iterator[list[int]]:
    """A list that SIGINT or SIGTERM puts its number into, so that the run can save and stop. A second one interrupts."""
    received: list[int] = []

    def receive(signum: int, frame: FrameType | None) -> None:
        if received:
            signal.signal(signum, signal.SIG_IGN)  # a third has nothing to add
            raise KeyboardInterrupt
        received.append(signum)

    before = {signum: signal.signal(signum, receive) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            if signal.getsignal(signum) is receive:
                signal.signal(signum, handler)
