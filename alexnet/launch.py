"""Start or resume a run, stop it at a signal, and report how it ended."""

import contextlib
import multiprocessing
import shlex
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from minidl.errors import TrainingError, UserError
from minidl.files import replacing
from minidl.parallel import Communicators, launch, mpi
from minidl.parallel.communicator import timeout
from minidl.parallel.processes import RemoteTraceback

from . import entry, parallelism, tensorboard
from .builders import build_model, found, freeze, load_dataset, opened
from .config import Config
from .datasets import Dataset
from .devices import join
from .fitting import fit
from .memory import out_of_memory
from .run import RunFolder
from .training import Evaluation, Stopped

UNEVEN = 1.5  # images in the largest class / in the smallest: above this a note is printed


def start(config: Config, out: Path | None, advice: bool = True) -> int:
    """Do a new run in the folder `out`, or in one named after the settings. Returns the exit status.

    advice: whether to print how to resume the run if it is stopped. Raises UserError before the run begins.
    """
    with _checked(config) as (complete, dataset):
        return _run(complete, dataset, lambda: RunFolder.create(out, complete), resume=False, advice=advice)


def resume(folder: RunFolder, config: Config, advice: bool = True) -> int:
    """Resume a run from its last checkpoint, with the settings of config. Returns the exit status.

    advice: as in start(). Raises UserError before the run continues; the folder is then unchanged.
    """
    with _checked(config, resumed=True) as (complete, dataset):

        def hold() -> RunFolder:
            folder.hold()
            folder.config = complete
            return folder

        return _run(complete, dataset, hold, resume=True, advice=advice)


@contextlib.contextmanager
def _checked(config: Config, resumed: bool = False) -> Iterator[tuple[Config, Dataset | None]]:
    """(config completed from the data, data set); no data set if the processes that train load it themselves.

    Raises UserError if the data set is missing or does not fit the settings, or something else that they need is missing.
    """
    if config.tensorboard:
        tensorboard.check_installed()
    with opened(config) as (config, dataset):
        parallelism.check(config)
        if config.freeze:
            freeze(config, build_model(config))
        if not resumed:
            _tell_sizes(config, dataset)
        if config.world_size > 1 and not mpi.started():
            dataset.close()
            yield config, None
        else:
            yield config, dataset


def _tell_sizes(config: Config, dataset: Dataset) -> None:
    """Print a note if the classes are unbalanced and config.balance does not correct it."""
    counts = np.bincount(dataset.train.first(config.limit_train, "--limit-train").labels, minlength=len(dataset.classes))
    if not config.balance and counts.max() > UNEVEN * counts.min() and mpi.first_on_machine():
        least, most = (f"{counts[i]} of {dataset.classes[i]!r}" for i in (counts.argmin(), counts.argmax()))
        entry.tell(f"the classes are unbalanced, from {least} to {most}; with --balance all count the same")


def _run(config: Config, dataset: Dataset | None, make_folder: Callable[[], RunFolder], resume: bool, advice: bool) -> int:
    """Train in processes started here, one for each device, or as one of the processes that MPI has started."""
    received = stop_signal()
    if mpi.started():
        return _run_under_mpi(config, dataset, make_folder, resume, advice, received)
    folder = make_folder()
    _tell_if_not_locked(folder)
    try:
        evaluation = launch(config.world_size, _train, folder, dataset, resume, stop=lambda: bool(received), timeout=timeout())
    except UserError:
        _remove_if_unused(folder, resume)
        raise
    except Exception as error:
        raise _failed(folder, error) from None
    finally:
        folder.lock.release()
    return _end(folder, evaluation, advice, received)


def _run_under_mpi(
    config: Config,
    dataset: Dataset | None,
    make_folder: Callable[[], RunFolder],
    resume: bool,
    advice: bool,
    received: list[int],
) -> int:
    """Train as a rank of MPI. A rank that fails ends all ranks; rank 0 is the first to print why, as often all fail alike."""
    communicators = mpi.communicators(timeout())
    rank = communicators.rank
    folder = None
    try:
        if rank == 0:
            folder = make_folder()
            _tell_if_not_locked(folder)
        path = mpi.from_rank_0(folder and folder.path)
        folder = folder or RunFolder(path, config)
        evaluation = _train(communicators, lambda: bool(received), folder, dataset, resume)
    except Exception as error:
        if isinstance(error, UserError) and folder:
            _remove_if_unused(folder, resume)
        time.sleep(1 if rank else 0)
        entry.tell(f"rank {rank}: {error if isinstance(error, UserError) else _failed(folder, error)}")
        mpi.abort(2 if isinstance(error, UserError) else 1)
    communicators.main.barrier()
    return 0 if rank else _end(folder, evaluation, advice, received)


def _remove_if_unused(folder: RunFolder, resume: bool) -> None:
    """Remove the folder of a new run that could not begin."""
    if not resume and not folder.checkpoints():
        folder.remove()


def _tell_if_not_locked(folder: RunFolder) -> None:
    if not folder.locked:
        entry.tell(f"warning: there are no file locks for {folder.path}: do not resume this run twice at the same time")


def _failed(folder: RunFolder | None, error: Exception) -> TrainingError:
    """The error as a TrainingError of one line. The traceback of an unforeseen error is saved in the run's folder."""
    remote = isinstance(error.__cause__, RemoteTraceback)
    if isinstance(error, TrainingError) and not remote:
        return error
    line = str(error) if remote else f"{type(error).__name__}: {error}"
    details = str(error.__cause__) if remote else "".join(traceback.format_exception(error))
    if folder is None:
        return TrainingError(line)
    file = folder.path / "traceback.txt"
    try:
        with replacing(file) as part:
            part.write_text(details, encoding="utf-8", errors="backslashreplace")
    except OSError:
        return TrainingError(line)
    return TrainingError(f"{line} (its traceback is in {file})")


def _train(
    communicators: Communicators, stop: Callable[[], bool], folder: RunFolder, dataset: Dataset | None, resume: bool
) -> Evaluation | None:
    """Train on the device of this process. Returns None if the run was stopped."""
    entry.prepare_streams()
    config = folder.config
    device, communicators = join(config.backend, config.devices, config.precision, config.threads, communicators)
    with contextlib.ExitStack() as end:
        if dataset is None:
            dataset = load_dataset(config)
            end.callback(dataset.close)
            folder.config = config = found(config, dataset)
        try:
            return fit(folder, dataset, device=device, resume=resume, stop=stop, communicators=communicators)
        except Stopped:
            return None
        except MemoryError:
            pass  # the error is deleted here, and with it the arrays of the failed step
        shards = 1 if config.parallel == "towers" else communicators.size
        raise TrainingError(out_of_memory(config, dataset, device, shards))


def _end(folder: RunFolder, evaluation: Evaluation | None, advice: bool, received: list[int]) -> int:
    if evaluation is None:
        entry.ignore_signals()
        if advice:
            entry.tell(f"stopped and saved; resume with: python train.py --resume {shlex.quote(str(folder.path))}")
        return 128 + (received or [signal.SIGTERM])[0]
    return 0


def stop_signal() -> list[int]:
    """A list that gets the number of the first stop signal, so that the run can save and stop. A second ends all at once."""
    received: list[int] = []

    def end(signum: int) -> None:
        for process in multiprocessing.active_children():
            process.kill()
        entry.end_with("stopped at once; --resume continues from the last checkpoint", 128 + signum)

    entry.handle_signals(received.append, end)
    return received
