"""Start a run, end it at a signal, and say how it ended."""

import dataclasses
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType

from minidl import set_matmul_precision, set_num_threads
from minidl.backend import use_device
from minidl.errors import TrainingError, UserError
from minidl.parallel import Communicators, launch, mpi
from minidl.parallel.communicator import timeout

from . import datasets
from .config import Config
from .fitting import fit
from .models import LEAST_IMAGE_SIZE
from .run import RunFolder
from .training import Evaluation, Stopped


def start(config: Config, out: Path | None) -> int:
    """A new run, in the folder `out` or one named after it. Returns the exit status; raises UserError before it begins."""
    _end_at_sigterm()
    dataset = _load(config.data, config.data_dir)
    least, size = LEAST_IMAGE_SIZE[config.model], min(dataset.image_shape[1:])
    if size < least:
        raise UserError(
            f"--model {config.model} takes images of at least {least} x {least}, and {dataset.name} has {size} x {size}; "
            "choose a cifar model"
        )
    dataset.train.first(config.limit_train, "--limit-train")
    dataset.test.first(config.limit_test, "--limit-test")
    return _run(config, lambda: RunFolder.create(out, config), resume=False)


def resume(folder: RunFolder, data_dir: str | None) -> int:
    """Go on with a run from its last checkpoint; data_dir: where its data is now, None for where it was.

    Returns the exit status; raises UserError before it goes on.
    """
    _end_at_sigterm()
    config = folder.config if data_dir is None else dataclasses.replace(folder.config, data_dir=data_dir)
    if mpi.started() and mpi.world_size() != config.world_size:
        raise UserError(f"--resume {folder.path}: that run has {config.world_size} devices; use mpiexec -n {config.world_size}")
    _load(config.data, config.data_dir)
    return _run(config, lambda: RunFolder(folder.path, config), resume=True)


def _end_at_sigterm() -> None:
    """Until the run begins, a SIGTERM cleans up before it ends the program, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))


@lru_cache(maxsize=1)  # what was checked is trained on
def _load(data: str, data_dir: str | None) -> datasets.Dataset:
    return datasets.load(data, data_dir)


def _run(config: Config, make_folder: Callable[[], RunFolder], resume: bool) -> int:
    """Train in processes started here, one a device, or as one of those that MPI has started."""
    with stop_signal() as received:
        if mpi.started():
            return _run_under_mpi(config, make_folder, resume, received)
        folder = make_folder()
        if config.world_size > 1:
            _load.cache_clear()
        try:
            evaluation = launch(config.world_size, _train, folder, resume, stop=lambda: bool(received), timeout=timeout())
        except UserError:
            if not resume:
                folder.remove()
            raise
        except TrainingError as error:
            print(f"train.py: training failed: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"train.py: stopped at once; go on from the last checkpoint with: {_again(folder)}", file=sys.stderr)
            return 128 + signal.SIGINT
    return _end(folder, evaluation, received)


def _run_under_mpi(config: Config, make_folder: Callable[[], RunFolder], resume: bool, received: list[int]) -> int:
    """A rank that fails ends all. Rank 0 is the first to say why, as what fails often fails on all."""
    communicators = mpi.communicators(timeout())
    rank = communicators.rank
    try:
        folder = RunFolder(Path(), config) if rank else make_folder()
        evaluation = _train(communicators, lambda: bool(received), folder, resume)
    except BaseException as error:
        time.sleep(1 if rank else 0)
        known = isinstance(error, (UserError, TrainingError))
        print(f"train.py: rank {rank}: {error if known else traceback.format_exc()}", file=sys.stderr, flush=True)
        mpi.abort(2 if isinstance(error, UserError) else 1)
    communicators.main.barrier()
    return 0 if rank else _end(folder, evaluation, received)


def _train(communicators: Communicators, stop: Callable[[], bool], folder: RunFolder, resume: bool) -> Evaluation | None:
    """What each device does; None if it was stopped."""
    config = folder.config
    device, communicators = join(config, communicators)
    dataset = _load(config.data, config.data_dir)
    try:
        return fit(folder, dataset, device=device, resume=resume, stop=stop, communicators=communicators)
    except Stopped:
        return None


def join(config: Config, communicators: Communicators) -> tuple[str, Communicators]:
    """The device that this process is to use from now on, and how it reaches the others'."""
    set_num_threads(config.threads)  # sums are added up in another order on another number
    if config.backend == "numpy":
        return "numpy", communicators
    place = mpi.local_rank()[0] if mpi.started() else communicators.rank
    device = f"cupy:{config.devices[place]}"
    use_device(device)
    set_matmul_precision(config.precision)
    if communicators.size > 1:
        from minidl.parallel import nccl

        communicators = nccl.communicators(communicators, timeout())
    return device, communicators


def _end(folder: RunFolder, evaluation: Evaluation | None, received: list[int]) -> int:
    if evaluation is None:
        print(f"train.py: stopped, and saved; go on with: {_again(folder)}", file=sys.stderr)
        return 128 + (received or [signal.SIGTERM])[0]
    print(f"test loss: {evaluation.loss:.4f} - accuracy: {evaluation.accuracy:.4f}", flush=True)
    return 0


def _again(folder: RunFolder) -> str:
    return f"python train.py --resume {folder.path}"


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
