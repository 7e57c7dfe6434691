"""Training: one epoch, an evaluation, and the whole run with its files."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
from tqdm import tqdm

import minidl.functional as F
from minidl import Tensor, checkpoint, no_grad, random
from minidl.data import Batch, Compose, DataLoader, Normalize, Transform
from minidl.errors import TrainingError, UserError
from minidl.nn import Module, Parameter
from minidl.nn.summary import format_summary, summary
from minidl.optim import SGD, LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR

from . import models, report
from .augment import RandomCrop, RandomHorizontalFlip
from .datasets import Dataset
from .run import Config, RunFolder


class Stopped(Exception):
    """The run was asked to stop; whoever catches this saves what it has done."""


@dataclasses.dataclass
class Progress:
    """Where a run is: complete epochs, optimiser steps in all, and batches of the epoch at hand with the sums over them."""

    epoch: int = 0
    step: int = 0
    batch: int = 0
    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    lr: float = 0.0


@dataclasses.dataclass
class Evaluation:
    """Mean loss and accuracy over a data set, and the class predicted for each of its images."""

    loss: float
    accuracy: float
    predictions: np.ndarray


def never() -> bool:
    return False


def train_one_epoch(
    model: Module,
    optimizer: SGD,
    scheduler: LRScheduler | None,
    loader: DataLoader,
    progress: Progress,
    *,
    seed: int,
    stop: Callable[[], bool] = never,
) -> None:
    """Train on the batches of epoch progress.epoch from progress.batch on, keeping the sums there. scheduler: stepped a batch.

    Returns after the last batch. Raises Stopped after the first batch at whose end stop() is true, and TrainingError,
    before the weights are touched, if a loss is not finite.
    """
    model.train()
    started = time.perf_counter() - progress.seconds
    with (
        _bar(f"epoch {progress.epoch + 1}", len(loader.labels), progress.seen) as bar,
        closing(loader.epoch(progress.epoch, progress.batch)) as batches,
    ):
        for batch in batches:
            with random.context(seed, progress.step):
                logits = model(Tensor(batch.images))
            loss = F.cross_entropy(logits, batch.labels, reduction="sum") / len(batch)
            value = loss.item()
            if not math.isfinite(value):
                with random.context(seed, progress.step):
                    place = first_not_finite(model, batch)
                raise TrainingError(
                    f"the loss is {value} at step {progress.step + 1} (epoch {progress.epoch + 1}); {place}; "
                    "a smaller --lr may help"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress.lr = optimizer.param_groups[0]["lr"]
            if scheduler is not None:
                scheduler.step()

            progress.step += 1
            progress.batch += 1
            progress.seen += len(batch)
            progress.loss += value * len(batch)
            progress.correct += int((logits.data.argmax(axis=1) == batch.labels).sum())
            progress.seconds = time.perf_counter() - started
            bar.set_postfix(
                loss=f"{progress.loss / progress.seen:.4f}", accuracy=f"{progress.correct / progress.seen:.4f}", refresh=False
            )
            bar.update(len(batch))
            if stop():
                raise Stopped


def evaluate(model: Module, loader: DataLoader, stop: Callable[[], bool] = never) -> Evaluation:
    """Loss and accuracy without dropout, with batch norm's running statistics. Raises Stopped at once if stop() is true."""
    model.eval()
    total, predictions = 0.0, []
    with no_grad(), _bar("test", len(loader.labels)) as bar, closing(loader.epoch(0)) as batches:
        for batch in batches:
            if stop():
                raise Stopped
            logits = model(Tensor(batch.images))
            loss = F.cross_entropy(logits, batch.labels, reduction="sum").item()
            if not math.isfinite(loss):
                raise TrainingError(f"the loss on test images is {loss}; {first_not_finite(model, batch)}")
            total += loss
            predictions.append(logits.data.argmax(axis=1))
            bar.update(len(batch))
    predicted = np.concatenate(predictions)
    return Evaluation(total / len(predicted), float((predicted == loader.labels).mean()), predicted)


def first_not_finite(model: Module, batch: Batch) -> str:
    """Run the batch again, and tell the first layer whose output is not finite."""
    found: list[str] = []

    def watch(name: str):
        def hook(module, x, y):
            if not found and not np.isfinite(y.data).all():
                own = [p for p in vars(module).values() if isinstance(p, Parameter)]
                weights = "" if all(np.isfinite(p.data).all() for p in own) else ", as its weights are not"
                found.append(f"the first layer whose output is not finite is {name} ({type(module).__name__}){weights}")

        return hook

    removers = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    with no_grad():
        model(Tensor(batch.images))
    for remove in removers:
        remove()
    return found[0] if found else "all layers are finite, the loss itself overflowed"


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is told with its step and layer, not by warnings
def fit(folder: RunFolder, dataset: Dataset, *, resume: bool = False, stop: Callable[[], bool] = never) -> Evaluation:
    """Train as folder.config says, from the start or the last checkpoint, and write the run's files.

    After each epoch its line goes to metrics.jsonl, then a checkpoint is saved. Raises Stopped, after saving, once stop()
    is true, and TrainingError if the loss leaves the numbers or the disk takes no more.
    """
    config = folder.config
    train, test = dataset.train.first(config.limit_train, "--limit-train"), dataset.test.first(config.limit_test, "--limit-test")
    train_loader = DataLoader(
        train.images, train.labels, config.batch_size, training_transform(config, dataset), shuffle=True, seed=config.seed
    )
    test_loader = DataLoader(test.images, test.labels, config.batch_size, normalize(config, dataset))

    model = build_model(config, dataset)
    optimizer = build_optimizer(config, model)
    scheduler, plateau = build_schedules(config, optimizer, len(train_loader))
    progress = Progress()
    if resume:
        try:
            progress = _restore(folder, model, optimizer)
        except OSError as error:
            raise UserError(f"--resume {folder.path}: cannot write there: {error.strerror or error}") from None
        if scheduler is not None:
            scheduler.resume(progress.step)
        if plateau is not None:
            for row in folder.metrics():
                plateau.step(1 - row["test_accuracy"])
    print(format_summary(summary(model, dataset.image_shape)), flush=True)
    images = f"{len(train):,} training and {len(test):,} test images of {dataset.name}"
    print(f"{images}, {config.threads} threads; files in {folder.path}", flush=True)

    def save(row: dict | None = None) -> None:
        try:
            if row:
                folder.add_metrics(row)
            folder.save_checkpoint(_state(model, optimizer), dataclasses.asdict(progress))
        except OSError as error:
            raise TrainingError(f"cannot save in {folder.path}: {error.strerror or error}") from None

    evaluation = None
    while progress.epoch < config.epochs:
        try:
            train_one_epoch(model, optimizer, scheduler, train_loader, progress, seed=config.seed, stop=stop)
            evaluation = evaluate(model, test_loader, stop)
        except Stopped:
            save()
            raise
        row = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss / progress.seen,
            "train_accuracy": progress.correct / progress.seen,
            "test_loss": evaluation.loss,
            "test_accuracy": evaluation.accuracy,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(progress.seen / progress.seconds, 1),
            "lr": progress.lr,
        }
        if plateau is not None:
            plateau.step(1 - row["test_accuracy"])
        progress = Progress(progress.epoch + 1, progress.step)
        save(row)
        print(
            f"epoch {row['epoch']}/{config.epochs}: train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.4f}, "
            f"test loss {row['test_loss']:.4f} accuracy {row['test_accuracy']:.4f}, {row['seconds']:.1f} s, "
            f"{row['images_per_second']:.0f} images/s",
            flush=True,
        )
    if evaluation is None:
        evaluation = evaluate(model, test_loader, stop)
    try:
        report.draw(folder.path, folder.metrics(), test.labels, evaluation.predictions, dataset.classes, model)
    except OSError as error:
        print(f"train.py: cannot draw the pictures in {folder.path}: {error.strerror or error}", file=sys.stderr)
    return evaluation


def build_model(config: Config, dataset: Dataset) -> Module:
    """The network of a run, initialised from its seed."""
    channels, height, width = dataset.image_shape
    random.manual_seed(config.seed)
    model = models.create(config.model, len(dataset.classes), in_channels=channels, image_size=min(height, width))
    return model.to(dtype=config.dtype)


def build_optimizer(config: Config, model: Module) -> SGD:
    """SGD over the parameters in their order, with what the recipe says of biases."""
    groups = []
    for name, parameter in model.named_parameters():
        group: dict[str, Any] = {"params": [parameter]}
        if name.endswith("bias"):
            group |= {"lr": config.lr * config.bias_lr, "weight_decay": config.weight_decay if config.bias_decay else 0.0}
        groups.append(group)
    return SGD(groups, config.lr, config.momentum, config.weight_decay)


def build_schedules(config: Config, optimizer: SGD, epoch_steps: int) -> tuple[LRScheduler | None, ReduceLROnPlateau | None]:
    """The learning-rate schedule of a run: one that is stepped after every batch, or one that is given every epoch's error."""
    rates = [group["lr"] for group in optimizer.param_groups]
    if config.schedule == "step":
        return StepLR(optimizer, config.step_epochs * epoch_steps), None
    if config.schedule == "one-cycle":
        return OneCycleLR(optimizer, rates, config.epochs * epoch_steps), None
    if config.schedule != "plateau":
        raise UserError(f"config.json: schedule {config.schedule!r}; there are step, one-cycle and plateau")
    # Three divisions by ten, as in the paper's section 5.
    return None, ReduceLROnPlateau(optimizer, patience=config.step_epochs - 1, min_lr=[rate * 1e-3 for rate in rates])


def normalize(config: Config, dataset: Dataset) -> Transform:
    """What every image goes through."""
    return Normalize(dataset.mean, dataset.std, config.dtype)


def training_transform(config: Config, dataset: Dataset) -> Transform:
    """The recipe's augmentation, then what every image goes through."""
    steps: list[Transform] = []
    if config.crop_padding:
        steps.append(RandomCrop(config.crop_padding, config.seed))
    if config.reflection:
        steps.append(RandomHorizontalFlip(config.seed))
    return Compose([*steps, normalize(config, dataset)])


def _state(model: Module, optimizer: SGD) -> dict[str, np.ndarray]:
    """What a checkpoint holds: the network's parameters and buffers, and each parameter's velocity."""
    names = [name for name, _ in model.named_parameters()]
    velocities = zip(names, optimizer.momentum_buffers, strict=True)
    return {f"model.{name}": array for name, array in model.state_dict().items()} | {
        f"velocity.{name}": array for name, array in velocities
    }


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


def _bar(what: str, total: int, done: int = 0) -> tqdm:
    """A progress bar on standard error; none if that is no terminal."""
    return tqdm(desc=what, total=total, initial=done, unit="img", disable=None, leave=False, dynamic_ncols=True)
