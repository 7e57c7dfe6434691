"""Training for an epoch, step by step, and evaluation."""

import collections
import dataclasses
import math
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from typing import Annotated

import numpy as np
from msgspec import Meta
from tqdm import tqdm

import minidl.functional as F
from minidl import Tensor, no_grad, random
from minidl.backend import Array, copy_to_host, device_of, get_array_module, to_numpy
from minidl.data import Batch, DataLoader
from minidl.errors import NotFiniteError
from minidl.nn import Module, Parameter
from minidl.optim import SGD, LRScheduler
from minidl.parallel import ALONE, Communicators, DataParallel, feed

from .collectives import sum_over_ranks
from .diagnosis import first_not_finite
from .statistics import LayerStatistics

tqdm.monitor_interval = 0  # no monitor thread: ulimit -u may not allow one, and every batch updates the bar anyway
tqdm.set_lock(threading.RLock())  # tqdm's own lock works across processes, and needs /dev/shm

Count = Annotated[int, Meta(ge=0, le=10**15)]
Number = Annotated[float, Meta(ge=0, le=sys.float_info.max)]

TOP = 5  # top-5 accuracy


class Stopped(Exception):
    """The run was asked to stop; the caller saves it."""


@dataclasses.dataclass
class Progress:
    """Where a run is: complete epochs, optimiser steps in all, and batches of the current epoch with the sums over them."""

    epoch: Count = 0
    step: Count = 0
    batch: Count = 0
    loss: Number = 0.0
    correct: Count = 0
    seen: Count = 0
    seconds: Number = 0.0
    lr: Number = 0.0


@dataclasses.dataclass
class Evaluation:
    """Mean loss, accuracy and top-5 accuracy over a data set; for each image the predicted class, its probability, the loss."""

    loss: float
    accuracy: float
    top5: float
    predictions: np.ndarray
    probabilities: np.ndarray
    losses: np.ndarray


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
    due: Callable[[], bool] = never,
    save: Callable[[], object] = never,
    parallel: DataParallel | None = None,
    statistics: LayerStatistics | None = None,
    class_weights: Array | None = None,
    label_smoothing: float = 0.0,
) -> None:
    """Train for the rest of epoch progress.epoch, from batch progress.batch, and keep the sums over its batches in progress.

    Returns after the last batch. Raises Stopped after the first batch in which stop() is true on any rank, and NotFiniteError if
    a loss is NaN or infinite, with the weights of before that step. If due() is true on any rank, save() is called on all ranks
    after a batch. scheduler: stepped after every batch. parallel: data parallelism with other ranks; the loader then gives this
    rank's shard of each batch, and the sums are over all ranks. class_weights (classes,): the weight of an image's loss, by its
    class. label_smoothing: as in cross_entropy.
    """
    model.train()
    for module in model.modules():
        own = [value for value in vars(module).values() if isinstance(value, Parameter)]
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()  # a frozen batch norm keeps its running statistics, and uses them
    parallel = parallel or DataParallel(model, optimizer, ALONE)
    device = device_of(optimizer.parameters[0].data)
    with (
        _bar(f"epoch {progress.epoch + 1}", len(loader.labels), parallel.communicators, progress.seen) as bar,
        closing(feed(loader.epoch(progress.epoch, progress.batch), device)) as batches,
    ):
        sums = RunningSums(model, progress, parallel.communicators, stop, due, bar)
        for batch in batches:
            # Dropout's masks depend on the seed, the step and the image, not on the devices or on interruptions of the run.
            step = progress.step + len(sums.unread)
            masks = seed, step, batch.first_sample
            with statistics.watch(progress.epoch + 1, step + 1) if statistics else nullcontext():
                training_step(model, optimizer, parallel, batch, masks, sums, class_weights, label_smoothing)
            progress.lr = optimizer.param_groups[0]["lr"]
            if scheduler is not None:
                scheduler.step()
            if sums.stopping:
                break
            if sums.saving:
                sums.read_all()
                save()
                sums.saving = False
        sums.read_all()
    if sums.stopping:
        raise Stopped


def training_step(
    model: Module,
    optimizer: SGD,
    parallel: DataParallel,
    batch: Batch,
    masks: tuple[int, int, int],
    sums: "RunningSums",
    class_weights: Array | None = None,
    label_smoothing: float = 0.0,
) -> None:
    """One step of the optimiser on the batch's mean loss. batch: this rank's shard; masks: the random context of its dropout."""
    with random.context(*masks):
        logits = model(Tensor(batch.images))
    losses = F.cross_entropy(logits, batch.labels, label_smoothing, reduction="none")
    if class_weights is not None:
        losses = losses * Tensor(class_weights[batch.labels])
    loss = losses.sum() / batch.global_size  # the mean, once summed over the ranks
    optimizer.zero_grad()
    loss.backward()
    parallel.synchronize()
    mean_loss = sums.add(batch, masks, loss, logits)
    optimizer.step(mean_loss)


class RunningSums:
    """Sums of the loss, the correct predictions, and the ranks' votes to stop or to save.

    Those of a step are summed over the ranks, on their devices; those of the epoch are in progress. The host reads a GPU's sums
    one step late, when the next step is in the GPU's queue, so that neither waits for the other. It reads them before the next
    step's update is queued: after a loss that is NaN or infinite, the weights do not change.
    """

    def __init__(
        self,
        model: Module,
        progress: Progress,
        communicators: Communicators,
        stop: Callable[[], bool],
        due: Callable[[], bool],
        bar: tqdm,
    ) -> None:
        self.model, self.progress, self.communicators, self.bar = model, progress, communicators, bar
        self.stop, self.due = stop, due
        self.late = 0 if device_of(next(model.parameters()).data) == "numpy" else 1
        self.unread: collections.deque[tuple[Batch, tuple[int, int, int], Callable[[], list]]] = collections.deque()
        self.stopping = self.saving = False
        self.started = time.perf_counter() - progress.seconds

    def add(self, batch: Batch, masks: tuple[int, int, int], loss: Tensor, logits: Tensor) -> Array:
        """Sum a step's numbers over the ranks. Returns its mean loss (1,), still on the device. Raises as read does."""
        sums = get_array_module(loss.data).zeros(4)
        sums[0], sums[1] = loss.data, (logits.data.argmax(axis=1) == batch.labels).sum()
        sums[2], sums[3] = self.stop(), self.due()
        self.communicators.main.all_reduce(sums)
        self.unread.append((batch, masks, copy_to_host(sums)))
        if len(self.unread) > self.late:
            self.read()
        return sums[:1]

    def read_all(self) -> None:
        """Read all steps that are not read yet, so that progress agrees with the weights."""
        while self.unread:
            self.read()

    def read(self) -> None:
        """Add the oldest step that is not read yet to progress. Raises NotFiniteError if its loss is NaN or infinite."""
        batch, masks, values = self.unread.popleft()
        loss, correct, stop, due = values()
        progress = self.progress
        if not math.isfinite(loss):
            with random.context(*masks):
                place = first_not_finite(self.model, batch, self.communicators)
            raise NotFiniteError(
                f"the loss is {loss} at step {progress.step + 1} (epoch {progress.epoch + 1}); {place}; a new run with a smaller "
                "--lr may help"
            )
        progress.step += 1
        progress.batch += 1
        progress.seen += batch.global_size
        progress.loss += loss * batch.global_size
        progress.correct += int(correct)
        progress.seconds = time.perf_counter() - self.started
        self.stopping, self.saving = self.stopping or bool(stop), self.saving or bool(due)
        self.bar.set_postfix(
            loss=f"{progress.loss / progress.seen:.4f}", accuracy=f"{progress.correct / progress.seen:.4f}", refresh=False
        )
        self.bar.update(batch.global_size)


@np.errstate(over="ignore", invalid="ignore")  # NaN and infinity are reported with their layer, not by warnings
def evaluate(
    model: Module, loader: DataLoader, stop: Callable[[], bool] = never, communicators: Communicators = ALONE
) -> tuple[Evaluation, Evaluation]:
    """Loss and accuracy in evaluation mode: without dropout, with batch normalisation's running statistics.

    The loader may give several views of each image (alexnet.views). Returns the evaluation of the first view, and that of the
    mean of all views' probabilities; they are the same if there is one view. With several ranks, each takes its shards, and all
    get the results for every image. Raises Stopped after the first batch in which stop() is true on any rank, and NotFiniteError
    if the loss is NaN or infinite.
    """
    model.eval()
    of_one, of_all = _Answers(len(loader.labels)), _Answers(len(loader.labels))
    device = device_of(next(model.parameters()).data)
    with (
        no_grad(),
        _bar("test", len(loader.labels), communicators) as bar,
        closing(feed(loader.epoch(0), device)) as batches,
    ):
        for batch in batches:
            of_views = model(Tensor(batch.images))
            logits = Tensor(of_views.data[: len(batch)])
            loss, stopping = sum_over_ranks(communicators, device, [of_one.add(logits, batch), stop()])
            if stopping:
                raise Stopped
            if not math.isfinite(loss):
                place = first_not_finite(model, batch, communicators)
                raise NotFiniteError(f"the loss on test images is {loss}; {place}; a new run with a smaller --lr may help")
            if len(of_views.data) > len(batch):
                of_all.add(average(of_views, len(batch)), batch)
            bar.update(batch.global_size)
    one = of_one.evaluation(loader.labels, communicators, device)
    several = sum_over_ranks(communicators, device, float(of_all.seen)) > 0
    return one, of_all.evaluation(loader.labels, communicators, device) if several else one


class _Answers:
    """The predictions for n images, gathered batch by batch."""

    def __init__(self, n: int):
        self.seen = 0
        self.predictions, self.ranks = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.probabilities, self.losses = np.zeros(n), np.zeros(n)

    def add(self, logits: Tensor, batch: Batch) -> float:
        """Add a batch's predictions. Returns the sum of its losses."""
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
        self.seen += len(batch)
        self.predictions[batch.indices] = to_numpy(logits.data.argmax(axis=1))
        self.probabilities[batch.indices] = to_numpy(F.softmax(logits).data.max(axis=1))
        self.ranks[batch.indices] = to_numpy(_ranks(logits.data, batch.labels))
        self.losses[batch.indices] = to_numpy(losses.data)
        return losses.sum().item()

    def evaluation(self, labels: np.ndarray, communicators: Communicators, device: str) -> Evaluation:
        """The evaluation of all ranks' images."""
        own = self.predictions, self.ranks, self.probabilities, self.losses
        predictions, ranks, probabilities, losses = (sum_over_ranks(communicators, device, array) for array in own)
        right = predictions == labels
        means = float(losses.mean()), float(right.mean()), float((ranks < TOP).mean())
        return Evaluation(*means, predictions, probabilities, losses)


def average(logits: Tensor, images: int) -> Tensor:
    """(views x images, classes) -> (images, classes): the logarithms of the mean of the views' probabilities.

    The logits of a single view are returned unchanged.
    """
    if len(logits.data) == images:
        return logits
    xp = get_array_module(logits.data)
    of_views = F.log_softmax(logits).data.reshape(-1, images, logits.shape[1])
    highest = of_views.max(axis=0)
    return Tensor(highest + xp.log(xp.exp(of_views - highest).mean(axis=0)))


def _ranks(logits: Array, labels: Array) -> Array:
    """How many classes are more probable than the right one; of equally probable classes, earlier ones count as more probable."""
    xp = get_array_module(logits)
    own = logits[xp.arange(len(labels)), labels][:, None]
    before = xp.arange(logits.shape[1]) < labels[:, None]
    return ((logits > own) | ((logits == own) & before)).sum(axis=1)


def _bar(what: str, total: int, communicators: Communicators, done: int = 0) -> tqdm:
    """A progress bar on standard error, shown by rank 0 and only in a terminal."""
    hidden = True if communicators.rank else None
    return tqdm(desc=what, total=total, initial=done, unit="img", disable=hidden, leave=False, dynamic_ncols=True)
