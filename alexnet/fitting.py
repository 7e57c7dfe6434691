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
    config, epochs, rank = folder.config, folder.config.recipe.epochs, communicators.rank
    model = build_model(config)
    if config.init and rank == 0 and not (resume and folder.checkpoints()):
        start_from(config, model)
    freeze(config, model)
    table = format_summary(summary(model, input_shape(config))) if rank == 0 else ""
    way = parallelism.way(config, model)
    parallelism.divide(model, way, communicators)
    model = model.to(device)
    if way == "towers":  # both ranks read all images, and rank 0 their labels
        train_loader, test_loader = build_loaders(config, dataset, 0, 1, labelled=rank == 0)
    else:
        train_loader, test_loader = build_loaders(config, dataset, rank, communicators.size)
    optimizer = build_optimizer(config, model)
    scheduler, plateau = build_schedules(config, optimizer, len(train_loader))
    weights = class_weights(config, train_loader.labels)
    if weights is not None:
        weights = to_device(weights, device)
    saver = Saver(folder, dataset, train_loader, model, optimizer, plateau, communicators)
    progress = Progress()
    restored = b""
    if resume and rank == 0:
        facts = saver.restore()
        restored = json.dumps(msgspec.to_builtins(facts)).encode()
        if differences := config.differences(Config.from_flat(facts.config)):
            entry.tell(f"resuming with {differences}")
    saver.distribute()
    parallel = DataParallel(model, optimizer, communicators)  # sends all ranks what rank 0 has loaded
    if resume:
        facts = msgspec.convert(json.loads(from_rank_0(communicators, device, restored)), Facts)
        progress = saver.restore_schedules(facts, scheduler)
        if rank == 0:
            try:
                folder.resume_at(progress.epoch, progress.step)
            except OSError as error:
                raise UserError(f"{folder.path}: cannot write there: {error.strerror or error}") from None
    if rank == 0:
        print(table, flush=True)
        images = f"{len(train_loader.labels):,} training and {len(test_loader.labels):,} test images of {dataset.name}"
        devices = f"{communicators.size} devices ({way}), " if communicators.size > 1 else ""
        threads = f"{config.threads} thread{'s' * (config.threads > 1)}"
        print(f"{images}, {devices}{threads}; files in {folder.path}", flush=True)
        if progress.epoch == epochs:
            entry.tell(f"the run is finished, {epochs} of {epochs} epochs; --epochs {epochs + 1} trains it longer")
    reporter = Reporter(folder, dataset.classes, test_loader, progress.step) if rank == 0 else None

    def add_sample(row: dict[str, Any]) -> None:
        saver.add_statistics(row)
        if reporter:
            reporter.sample(row)

    statistics = LayerStatistics(model, optimizer, communicators, max(FEWEST_STEPS, len(train_loader) // SAMPLES), add_sample)

    def save(row: dict[str, Any] | None = None) -> dict[str, Any]:
        statistics.flush()
        whole = saver.whole()
        if rank == 0:
            saver.save(progress, row, whole)
        return whole

    evaluation = None
    try:
        if sum_over_ranks(communicators, device, float(stop())):
            raise Stopped
        while progress.epoch < epochs:
            train_one_epoch(
                model,
                optimizer,
                scheduler,
                train_loader,
                progress,
                seed=config.seed,
                stop=stop,
                due=lambda: rank == 0 and saver.due(),
                save=save,
                parallel=parallel,
                statistics=statistics,
                class_weights=weights,
                label_smoothing=config.recipe.label_smoothing,
            )
            evaluation, of_views = evaluate(model, test_loader, stop, communicators)
            row = _metrics(progress, evaluation, of_views)
            if plateau is not None:
                plateau.step(1 - row["test_accuracy"])
            progress = Progress(progress.epoch + 1, progress.step)
            whole = save(row)
            if reporter:
                print(
                    f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.4f} accuracy "
                    f"{row['train_accuracy']:.4f}, test loss {row['test_loss']:.4f} accuracy {row['test_accuracy']:.4f}, "
                    f"{row['seconds']:.1f} s, {row['images_per_second']:.0f} images/s",
                    flush=True,
                )
                reporter.metrics(row, progress.step)
                if progress.epoch < epochs:
                    reporter.update(evaluation, saver.whole_network(whole))
            del whole
        if evaluation is None:
            evaluation, _ = evaluate(model, test_loader, stop, communicators)
    except Stopped:
        save()
        if reporter:
            reporter.stop()
        raise
    whole = saver.whole()
    if reporter:
        print(f"test loss: {evaluation.loss:.4f} - accuracy: {evaluation.accuracy:.4f}", flush=True)
        reporter.end(evaluation, saver.whole_network(whole))
    return evaluation


def load_network(folder: RunFolder, dataset: Dataset) -> tuple[Module, Progress]:
    """The network of a run's newest checkpoint that can be used, and the progress of the run then.

    Without any checkpoint, it is the initial network. Raises UserError if there are checkpoints, but none can be used.
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
