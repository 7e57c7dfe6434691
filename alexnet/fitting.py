"""A whole run, epoch by epoch: the files that it writes, and resuming from them."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from minidl.backend import to_device
from minidl.errors import UserError
from minidl.nn import Module, format_summary, summary
from minidl.parallel import ALONE, Communicators, DataParallel

from . import entry, parallelism
from .builders import (
    build_loaders,
    build_model,
    build_optimizer,
    build_schedules,
    class_weights,
    freeze,
    input_shape,
    start_from,
)
from .collectives import from_rank_0, sum_over_ranks
from .config import Config
from .datasets import Dataset
from .reporter import Reporter
from .run import RunFolder
from .saving import Facts, Saver
from .statistics import LayerStatistics
from .training import Evaluation, Progress, Stopped, evaluate, never, train_one_epoch

# How often the layers are measured: about ten times an epoch, and in at most one step of 20, so that it takes less than 1 %.
SAMPLES, FEWEST_STEPS = 10, 20


@np.errstate(over="ignore", invalid="ignore")  # NaN and infinity are reported with their step and layer, not by warnings
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

    After each epoch, its line is appended to metrics.jsonl, then a checkpoint is saved. Raises Stopped, after saving, once stop()
    is true, NotFiniteError if the loss is NaN or infinite, and TrainingError if a file cannot be written. Called by all ranks;
    only rank 0 prints, reads and writes. Its last line on standard output is the result.
    """
    run = _Run(folder, dataset, device, resume, communicators)
    evaluation = None
    try:
        if sum_over_ranks(communicators, device, float(stop())):
            raise Stopped
        while run.progress.epoch < run.epochs:
            evaluation = run.epoch(stop)
        if evaluation is None:
            evaluation, _ = evaluate(run.model, run.test_loader, stop, communicators)
    except Stopped:
        run.save()
        if run.reporter:
            run.reporter.stop()
        raise
    run.end(evaluation)
    return evaluation


class _Run:
    """What a rank trains with: network, images, optimiser and schedules, new or restored; on rank 0, also what writes the files.

    Its methods are called by all ranks.
    """

    def __init__(self, folder: RunFolder, dataset: Dataset, device: str, resume: bool, communicators: Communicators):
        self.folder, self.device, self.communicators = folder, device, communicators
        self.config, self.epochs, rank = folder.config, folder.config.recipe.epochs, communicators.rank
        config, model = self.config, build_model(self.config)
        if config.init and rank == 0 and not (resume and folder.checkpoints()):
            start_from(config, model)
        freeze(config, model)
        table = format_summary(summary(model, input_shape(config))) if rank == 0 else ""
        way = parallelism.way(config, model)
        parallelism.divide(model, way, communicators)
        self.model = model.to(device)
        if way == "towers":  # both ranks read all images, and rank 0 their labels
            self.train_loader, self.test_loader = build_loaders(config, dataset, 0, 1, labelled=rank == 0)
        else:
            self.train_loader, self.test_loader = build_loaders(config, dataset, rank, communicators.size)
        self.optimizer = build_optimizer(config, self.model)
        self.scheduler, self.plateau = build_schedules(config, self.optimizer, len(self.train_loader))
        weights = class_weights(config, self.train_loader.labels)
        self.class_weights = None if weights is None else to_device(weights, device)
        self.saver = Saver(folder, dataset, self.train_loader, self.model, self.optimizer, self.plateau, communicators)
        self.progress = self._restore(resume)
        if rank == 0:
            print(table, flush=True)
            self._print_sizes(dataset.name, way)
        reporter = Reporter(folder, dataset.classes, self.test_loader, self.progress.step) if rank == 0 else None
        saver = self.saver

        def add_sample(row: dict[str, Any]) -> None:
            saver.add_statistics(row)
            if reporter:
                reporter.sample(row)

        every = max(FEWEST_STEPS, len(self.train_loader) // SAMPLES)
        self.reporter = reporter
        self.statistics = LayerStatistics(self.model, self.optimizer, communicators, every, add_sample)

    def _restore(self, resume: bool) -> Progress:
        """Give all ranks the same weights: those of the last checkpoint, or new ones. Returns the progress of the run then."""
        rank, saver = self.communicators.rank, self.saver
        restored = b""
        if resume and rank == 0:
            facts = saver.restore()
            restored = json.dumps(msgspec.to_builtins(facts)).encode()
            if differences := self.config.differences(Config.from_flat(facts.config)):
                entry.tell(f"resuming with {differences}")
        saver.distribute()
        self.parallel = DataParallel(self.model, self.optimizer, self.communicators)  # sends all ranks what rank 0 has loaded
        if not resume:
            return Progress()
        facts = msgspec.convert(json.loads(from_rank_0(self.communicators, self.device, restored)), Facts)
        progress = saver.restore_schedules(facts, self.scheduler)
        if rank == 0:
            try:
                self.folder.resume_at(progress.epoch, progress.step)
            except OSError as error:
                raise UserError(f"{self.folder.path}: cannot write there: {error.strerror or error}") from None
        return progress

    def _print_sizes(self, name: str, way: str) -> None:
        images = f"{len(self.train_loader.labels):,} training and {len(self.test_loader.labels):,} test images of {name}"
        devices = f"{self.communicators.size} devices ({way}), " if self.communicators.size > 1 else ""
        threads = f"{self.config.threads} thread{'s' * (self.config.threads > 1)}"
        print(f"{images}, {devices}{threads}; files in {self.folder.path}", flush=True)
        if self.progress.epoch == self.epochs:
            entry.tell(f"the run is finished, {self.epochs} of {self.epochs} epochs; --epochs {self.epochs + 1} trains it longer")

    def epoch(self, stop: Callable[[], bool]) -> Evaluation:
        """Train for an epoch, or the rest of one, evaluate, and save. Raises Stopped once stop() is true."""
        train_one_epoch(
            self.model,
            self.optimizer,
            self.scheduler,
            self.train_loader,
            self.progress,
            seed=self.config.seed,
            stop=stop,
            due=lambda: self.communicators.rank == 0 and self.saver.due(),
            save=self.save,
            parallel=self.parallel,
            statistics=self.statistics,
            class_weights=self.class_weights,
            label_smoothing=self.config.recipe.label_smoothing,
        )
        evaluation, of_views = evaluate(self.model, self.test_loader, stop, self.communicators)
        row = _metrics(self.progress, evaluation, of_views)
        if self.plateau is not None:
            self.plateau.step(1 - row["test_accuracy"])
        self.progress = Progress(self.progress.epoch + 1, self.progress.step)
        whole = self.save(row)
        if self.reporter:
            print(
                f"epoch {row['epoch']}/{self.epochs}: train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.4f}, "
                f"test loss {row['test_loss']:.4f} accuracy {row['test_accuracy']:.4f}, "
                f"{row['seconds']:.1f} s, {row['images_per_second']:.0f} images/s",
                flush=True,
            )
            self.reporter.metrics(row, self.progress.step)
            if self.progress.epoch < self.epochs:
                self.reporter.update(evaluation, self.saver.whole_network(whole))
        return evaluation

    def save(self, row: dict[str, Any] | None = None) -> dict[str, Any]:
        """Save a checkpoint, and before it the metrics of a complete epoch. Returns the checkpoint's arrays, on rank 0."""
        self.statistics.flush()
        whole = self.saver.whole()
        if self.communicators.rank == 0:
            self.saver.save(self.progress, row, whole)
        return whole

    def end(self, evaluation: Evaluation) -> None:
        """Print the result of a run that is done, and write its report."""
        whole = self.saver.whole()
        if self.reporter:
            print(f"test loss: {evaluation.loss:.4f} - accuracy: {evaluation.accuracy:.4f}", flush=True)
            self.reporter.end(evaluation, self.saver.whole_network(whole))


def load_network(folder: RunFolder, dataset: Dataset) -> tuple[Module, Progress]:
    """The network of a run's newest checkpoint that can be used, and the progress of the run then.

    Without any checkpoint, it has the initial weights that the seed gives, also if the run starts from those of --init. Raises
    UserError as Saver.restore does.
    """
    loader, _ = build_loaders(folder.config, dataset, 0, 1)
    model = build_model(folder.config)
    freeze(folder.config, model)
    optimizer = build_optimizer(folder.config, model)
    _, plateau = build_schedules(folder.config, optimizer, len(loader))
    saver = Saver(folder, dataset, loader, model, optimizer, plateau)
    progress = saver.restore().progress
    saver.distribute()
    return model, progress


def _metrics(progress: Progress, evaluation: Evaluation, of_views: Evaluation) -> dict[str, Any]:
    """The line of metrics.jsonl for a complete epoch."""
    return {
        "epoch": progress.epoch + 1,
        "train_loss": progress.loss / progress.seen,
        "train_accuracy": progress.correct / progress.seen,
        "test_loss": evaluation.loss,
        "test_accuracy": evaluation.accuracy,
        "test_accuracy_views": of_views.accuracy,
        "test_top5": evaluation.top5,
        "seconds": round(progress.seconds, 3),
        "images_per_second": round(progress.seen / max(progress.seconds, 1e-6), 1),
        "lr": progress.lr,
    }
