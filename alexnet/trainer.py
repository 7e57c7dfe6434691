"""Training: one epoch, an evaluation, and the whole run with its files."""

import collections
import dataclasses
import math
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
from tqdm import tqdm

import minidl.functional as F
from minidl import Tensor, checkpoint, no_grad, random
from minidl.backend import copy_to_host, device_of, get_array_module, to_device, to_numpy
from minidl.data import Batch, Compose, DataLoader, Normalize, Transform
from minidl.errors import TrainingError, UserError
from minidl.nn import Module, Parameter, format_summary, summary
from minidl.optim import SGD, LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR
from minidl.parallel import ALONE, Communicators, DataParallel, feed

from . import models, report
from .augment import RandomCrop, RandomHorizontalFlip
from .datasets import Dataset
from .run import Config, RunFolder

tqdm.set_lock(threading.RLock())  # its own is for several processes too, and lies in /dev/shm


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
    parallel: DataParallel | None = None,
) -> None:
    """Train on the batches of epoch progress.epoch from progress.batch on, keeping the sums there. scheduler: stepped a batch.

    Returns after the last batch. Raises Stopped after the first batch in which stop() is true, on any rank, and
    TrainingError if a loss is not finite, with the weights as they were before. parallel: what keeps this device in
    step with others; the loader gives its shard, and the sums are those of all.
    """
    model.train()
    parallel = parallel or DataParallel(model, optimizer, ALONE)
    communicators, device = parallel.communicators, device_of(optimizer.parameters[0].data)
    started = time.perf_counter() - progress.seconds
    under_way: collections.deque = collections.deque()  # steps whose sums are still to be read,
    late = 0 if device == "numpy" else 1  # on a GPU that is one step later, so that it never waits
    stopping = False
    with (
        _bar(f"epoch {progress.epoch + 1}", len(loader.labels), communicators, progress.seen) as bar,
        closing(feed(loader.epoch(progress.epoch, progress.batch), device)) as batches,
    ):

        def account() -> bool:
            """Read the sums of the oldest step under way; whether to stop."""
            batch, masks, read = under_way.popleft()
            value, correct, stopping = read()
            if not math.isfinite(value):
                with random.context(*masks):
                    place = first_not_finite(model, batch, communicators)
                raise TrainingError(
                    f"the loss is {value} at step {progress.step + 1} (epoch {progress.epoch + 1}); {place}; "
                    "a smaller --lr may help"
                )
            progress.step += 1
            progress.batch += 1
            progress.seen += batch.global_size
            progress.loss += value * batch.global_size
            progress.correct += int(correct)
            progress.seconds = time.perf_counter() - started
            bar.set_postfix(
                loss=f"{progress.loss / progress.seen:.4f}", accuracy=f"{progress.correct / progress.seen:.4f}", refresh=False
            )
            bar.update(batch.global_size)
            return bool(stopping)

        for batch in batches:
            masks = seed, progress.step + len(under_way), batch.first_sample
            with random.context(*masks):
                logits = model(Tensor(batch.images))
            loss = F.cross_entropy(logits, batch.labels, reduction="sum") / batch.global_size
            optimizer.zero_grad()
            loss.backward()
            parallel.synchronize()
            sums = get_array_module(loss.data).zeros(3)
            sums[0], sums[1], sums[2] = loss.data, (logits.data.argmax(axis=1) == batch.labels).sum(), stop()
            communicators.main.all_reduce(sums)
            under_way.append((batch, masks, copy_to_host(sums)))
            stopping = account() if len(under_way) > late else False
            optimizer.step(sums[:1])
            progress.lr = optimizer.param_groups[0]["lr"]
            if scheduler is not None:
                scheduler.step()
            if stopping:
                break
        while under_way:
            stopping = account() or stopping
    if stopping:
        raise Stopped


def evaluate(
    model: Module, loader: DataLoader, stop: Callable[[], bool] = never, communicators: Communicators = ALONE
) -> Evaluation:
    """Loss and accuracy without dropout, with batch norm's running statistics. Raises Stopped at once if stop() is true.

    With several ranks, each takes its shards, and all get the result for every image.
    """
    model.eval()
    total, predictions = 0.0, np.zeros(len(loader.labels), np.int64)
    device = device_of(next(model.parameters()).data)
    with (
        no_grad(),
        _bar("test", len(loader.labels), communicators) as bar,
        closing(feed(loader.epoch(0), device)) as batches,
    ):
        for batch in batches:
            logits = model(Tensor(batch.images))
            loss = F.cross_entropy(logits, batch.labels, reduction="sum").item()
            loss, stopping = _sum_over_ranks(communicators, device, [loss, stop()])
            if stopping:
                raise Stopped
            if not math.isfinite(loss):
                raise TrainingError(f"the loss on test images is {loss}; {first_not_finite(model, batch, communicators)}")
            total += loss
            predictions[batch.indices] = to_numpy(logits.data.argmax(axis=1))
            bar.update(batch.global_size)
    predictions = _sum_over_ranks(communicators, device, predictions)
    return Evaluation(total / len(predictions), float((predictions == loader.labels).mean()), predictions)


def first_not_finite(model: Module, batch: Batch, communicators: Communicators = ALONE) -> str:
    """Run the batch again, on all ranks, and tell the first layer whose output is not finite on any of them."""
    outputs: list[tuple[str, Module, bool]] = []

    def watch(name: str):
        def hook(module, args, y):
            outputs.append((name, module, not get_array_module(y.data).isfinite(y.data).all()))

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    with no_grad():
        model(Tensor(batch.images))
    for handle in handles:
        handle.remove()
    wrong = _sum_over_ranks(communicators, device_of(batch.images), [float(wrong) for _, _, wrong in outputs])
    if not wrong.any():
        return "all layers are finite, the loss itself overflowed"
    name, module, _ = outputs[int(np.flatnonzero(wrong)[0])]
    own = [p for p in vars(module).values() if isinstance(p, Parameter)]
    weights = "" if all(np.isfinite(to_numpy(p.data)).all() for p in own) else ", as its weights are not"
    return f"the first layer whose output is not finite is {name} ({type(module).__name__}){weights}"


def _from_rank_0(communicators: Communicators, device: str, values) -> np.ndarray:
    array = to_device(np.array(values, np.float64), device)
    communicators.main.broadcast(array)
    return to_numpy(array)


def _sum_over_ranks(communicators: Communicators, device: str, values) -> np.ndarray:
    array = to_device(np.array(values), device)
    communicators.main.all_reduce(array)
    return to_numpy(array)


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
    is true, and TrainingError if the loss leaves the numbers or the disk takes no more. Called by all ranks; rank 0 alone
    prints, reads and writes.
    """
    config, rank, size = folder.config, communicators.rank, communicators.size
    train, test = dataset.train.first(config.limit_train, "--limit-train"), dataset.test.first(config.limit_test, "--limit-test")
    train_loader = DataLoader(
        train.images,
        train.labels,
        config.batch_size,
        training_transform(config, dataset),
        shuffle=True,
        seed=config.seed,
        rank=rank,
        size=size,
    )
    test_loader = DataLoader(test.images, test.labels, config.batch_size, normalize(config, dataset), rank=rank, size=size)
    model = build_model(config, dataset).to(device)
    optimizer = build_optimizer(config, model)
    scheduler, plateau = build_schedules(config, optimizer, len(train_loader))
    progress, errors = Progress(), np.zeros(config.epochs)
    if resume and rank == 0:
        try:
            progress = _restore(folder, model, optimizer)
        except OSError as error:
            raise UserError(f"--resume {folder.path}: cannot write there: {error.strerror or error}") from None
        for row in folder.metrics():
            errors[row["epoch"] - 1] = 1 - row["test_accuracy"]
    parallel = DataParallel(model, optimizer, communicators)
    if resume:
        facts = _from_rank_0(communicators, device, dataclasses.astuple(progress))
        progress = Progress(*(type(own)(fact) for own, fact in zip(dataclasses.astuple(Progress()), facts, strict=True)))
        errors = _from_rank_0(communicators, device, errors)
        if scheduler is not None:
            scheduler.resume(progress.step)
        if plateau is not None:
            for error in errors[: progress.epoch]:
                plateau.step(error)
    if rank == 0:
        print(format_summary(summary(model, dataset.image_shape)), flush=True)
        images = f"{len(train):,} training and {len(test):,} test images of {dataset.name}"
        print(f"{images}, {config.threads} threads; files in {folder.path}", flush=True)

    def save(row: dict | None = None) -> None:
        if rank:
            return
        try:
            if row:
                folder.add_metrics(row)
            folder.save_checkpoint(_state(model, optimizer), dataclasses.asdict(progress))
        except OSError as error:
            raise TrainingError(f"cannot save in {folder.path}: {error.strerror or error}") from None

    evaluation = None
    while progress.epoch < config.epochs:
        try:
            train_one_epoch(model, optimizer, scheduler, train_loader, progress, seed=config.seed, stop=stop, parallel=parallel)
            evaluation = evaluate(model, test_loader, stop, communicators)
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
        if rank == 0:
            print(
                f"epoch {row['epoch']}/{config.epochs}: train loss {row['train_loss']:.4f} accuracy "
                f"{row['train_accuracy']:.4f}, test loss {row['test_loss']:.4f} accuracy {row['test_accuracy']:.4f}, "
                f"{row['seconds']:.1f} s, {row['images_per_second']:.0f} images/s",
                flush=True,
            )
    if evaluation is None:
        evaluation = evaluate(model, test_loader, stop, communicators)
    if rank == 0:
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


def _bar(what: str, total: int, communicators: Communicators, done: int = 0) -> tqdm:
    """A progress bar on standard error, of rank 0; none if that is no terminal."""
    hidden = True if communicators.rank else None
    return tqdm(desc=what, total=total, initial=done, unit="img", disable=hidden, leave=False, dynamic_ncols=True)
