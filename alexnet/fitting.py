"""A whole run: epoch by epoch, with the files it leaves and goes on from."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import checkpoint
from minidl.errors import TrainingError, UserError
from minidl.nn import Module, format_summary, summary
from minidl.optim import SGD
from minidl.parallel import ALONE, Communicators, DataParallel

from . import pictures
from .builders import build_loaders, build_model, build_optimizer, build_schedules
from .collectives import from_rank_0
from .datasets import Dataset
from .run import RunFolder
from .training import Evaluation, Progress, Stopped, evaluate, never, train_one_epoch


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is told with its step and layer, not by warnings
def fit(
    folder: RunFolder,
    dataset: Dataset,
    *,
    device: str = "numpy",
    resume: bool = False,
    stop: Callable[[], bool] = never,
    communicators: Communicators = ALONE,
) -> Evaluation:
    """Train as folder.config says, from the start or the last checkpoint, on this device, and write the run's files.

    After each epoch its line goes to metrics.jsonl, then a checkpoint is saved. Raises Stopped, after saving, once stop()
    is true, and TrainingError if the loss is NaN or infinite, or a file cannot be written. Called by all ranks; rank 0 alone
    prints, reads and writes.
    """
    config, epochs, rank = folder.config, folder.config.recipe.epochs, communicators.rank
    train_loader, test_loader = build_loaders(config, dataset, rank, communicators.size)
    model = build_model(config, dataset).to(device)
    optimizer = build_optimizer(config, model)
    scheduler, plateau = build_schedules(config, optimizer, len(train_loader))
    progress, errors = Progress(), np.zeros(epochs)  # of each epoch behind, the test error: a plateau is told them again
    if resume and rank == 0:
        try:
            progress = _restore(folder, model, optimizer)
        except OSError as error:
            raise UserError(f"--resume {folder.path}: cannot write there: {error.strerror or error}") from None
        for row in folder.metrics():
            errors[row["epoch"] - 1] = 1 - row["test_accuracy"]
    parallel = DataParallel(model, optimizer, communicators)  # gives all ranks what rank 0 has loaded
    if resume:
        facts = from_rank_0(communicators, device, dataclasses.astuple(progress))
        progress = Progress(*(type(own)(fact) for own, fact in zip(dataclasses.astuple(Progress()), facts, strict=True)))
        errors = from_rank_0(communicators, device, errors)
        if scheduler is not None:
            scheduler.resume(progress.step)
        if plateau is not None:
            for error in errors[: progress.epoch]:
                plateau.step(error)
    if rank == 0:
        print(format_summary(summary(model, dataset.image_shape)), flush=True)
        images = f"{len(train_loader.labels):,} training and {len(test_loader.labels):,} test images of {dataset.name}"
        print(f"{images}, {config.threads} threads; files in {folder.path}", flush=True)
    evaluation = None
    while progress.epoch < epochs:
        try:
            train_one_epoch(model, optimizer, scheduler, train_loader, progress, seed=config.seed, stop=stop, parallel=parallel)
            evaluation = evaluate(model, test_loader, stop, communicators)
        except Stopped:
            if rank == 0:
                _save(folder, model, optimizer, progress)
            raise
        row = _metrics(progress, evaluation)
        if plateau is not None:
            plateau.step(1 - row["test_accuracy"])
        progress = Progress(progress.epoch + 1, progress.step)
        if rank == 0:
            _save(folder, model, optimizer, progress, row)
            print(
                f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.4f} accuracy "
                f"{row['train_accuracy']:.4f}, test loss {row['test_loss']:.4f} accuracy {row['test_accuracy']:.4f}, "
                f"{row['seconds']:.1f} s, {row['images_per_second']:.0f} images/s",
                flush=True,
            )
    if evaluation is None:
        evaluation = evaluate(model, test_loader, stop, communicators)
    if rank == 0:
        try:
            pictures.draw(folder.path, folder.metrics(), test_loader.labels, evaluation.predictions, dataset.classes, model)
        except OSError as error:
            print(f"train.py: cannot draw the pictures in {folder.path}: {error.strerror or error}", file=sys.stderr)
    return evaluation


def _metrics(progress: Progress, evaluation: Evaluation) -> dict[str, Any]:
    """The line of metrics.jsonl of an epoch that is complete."""
    return {
        "epoch": progress.epoch + 1,
        "train_loss": progress.loss / progress.seen,
        "train_accuracy": progress.correct / progress.seen,
        "test_loss": evaluation.loss,
        "test_accuracy": evaluation.accuracy,
        "seconds": round(progress.seconds, 3),
        "images_per_second": round(progress.seen / progress.seconds, 1),
        "lr": progress.lr,
    }


def _state(model: Module, optimizer: SGD) -> dict[str, np.ndarray]:
    """What a checkpoint holds: the network's parameters and buffers, and each parameter's velocity."""
    names = [name for name, _ in model.named_parameters()]
    velocities = zip(names, optimizer.momentum_buffers, strict=True)
    return {f"model.{name}": array for name, array in model.state_dict().items()} | {
        f"velocity.{name}": array for name, array in velocities
    }


def _save(folder: RunFolder, model: Module, optimizer: SGD, progress: Progress, row: dict[str, Any] | None = None) -> None:
    """Write a checkpoint, and before it the metrics of the epoch that it ends."""
    try:
        if row:
            folder.add_metrics(row)
        folder.save_checkpoint(_state(model, optimizer), dataclasses.asdict(progress))
    except OSError as error:
        raise TrainingError(f"cannot save in {folder.path}: {error.strerror or error}") from None


def _restore(folder: RunFolder, model: Module, optimizer: SGD) -> Progress:
    """Load the newest checkpoint, and forget the metrics after it. Without one, the run starts again."""
    files = folder.checkpoints()
    if not files:
        if len(folder.metrics()) > 1:
            raise UserError(f"--resume {folder.path}: its checkpoints are gone; start a new run")
        folder.cut_metrics(0)
        return Progress()
    arrays, facts = checkpoint.load(files[-1])
    own = _state(model, optimizer)
    try:
        progress = Progress(**facts)
        if {name: array.shape for name, array in arrays.items()} != {name: array.shape for name, array in own.items()}:
            raise ValueError("it is of another network")
    except (TypeError, ValueError) as error:
        raise UserError(f"{files[-1]} does not fit this run ({error})") from None
    if [row["epoch"] for row in folder.metrics()][: progress.epoch] != list(range(1, progress.epoch + 1)):
        raise UserError(f"--resume {folder.path}: metrics.jsonl lacks epochs that {files[-1].name} has; start a new run")
    for name, array in own.items():
        array[...] = arrays[name]
    folder.cut_metrics(progress.epoch)
    return progress
