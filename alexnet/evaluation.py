"""Test a trained network on images whose classes are known."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidl import get_num_threads
from minidl.data import Compose, DataLoader, Normalize
from minidl.errors import UserError
from minidl.parallel import Communicators

from . import datasets, entry, image_folders
from .builders import LOADER_THREADS, moved, opened
from .datasets import Dataset, Split
from .devices import join
from .image_folders import named
from .run import RunFolder
from .training import Evaluation
from .training import evaluate as evaluate_on
from .views import Views
from .weights import Weights

MOST_MISTAKES = 12


@dataclasses.dataclass
class Job:
    """The options of `python -m alexnet evaluate`: which network to test, and on which images."""

    source: Path
    data: str | None = None
    data_dir: str | None = None
    views: int = 1  # of each image
    checkpoint: str = "newest"
    batch_size: int | None = None
    backend: str = "numpy"
    devices: Sequence[int] = (0,)

    def check(self) -> None:
        """Raise UserError, before processes are started, if there is nothing to test or nothing to test it on."""
        if not self.source.exists():
            raise UserError(f"{self.source}: there is no run and no file of that name")
        if self.source.is_dir():
            RunFolder.read(self.source)
        elif self.data is None:
            raise UserError(f"{self.source} has no test images of its own; give some with --data")


@dataclasses.dataclass
class Found:
    """An evaluation, the classes and labels of its images, and the mistakes of which the network was most certain.

    mistakes: (image (C, H, W) uint8, its class, the predicted class, the probability of the latter), the most certain first.
    """

    evaluation: Evaluation
    classes: Sequence[str]
    labels: np.ndarray
    mistakes: list[tuple[np.ndarray, str, str, float]]

    def summary(self) -> dict[str, Any]:
        """The object that `evaluate --json` prints."""
        result, n = self.evaluation, len(self.classes)
        images = np.bincount(self.labels, minlength=n)
        right = np.bincount(self.labels[result.predictions == self.labels], minlength=n)
        of_classes = {
            name: {"images": int(a), "right": int(b)} for name, a, b in zip(self.classes, images, right, strict=True) if a
        }
        return {
            "images": len(self.labels),
            "loss": result.loss,
            "top1": result.accuracy,
            "top5": result.top5,
            "classes": of_classes,
        }


def evaluate(communicators: Communicators, stop: Callable[[], bool], job: Job, loaded: Weights) -> Found:
    """Evaluate on all ranks, each with its shard of the images. Raises UserError for an error that the user can fix.

    loaded: the job's network. It is read once for all ranks: a run that is still training may save another meanwhile.
    """
    entry.prepare_streams()
    threads = max(1, get_num_threads() // communicators.size)
    device, communicators = join(job.backend, job.devices, "fp32", threads, communicators)
    preparation, dtype = loaded.preparation, next(loaded.network.parameters()).dtype
    with _images(job, loaded, communicators) as split:
        loader = DataLoader(
            split.images,
            split.labels,
            max(1, (job.batch_size or loaded.batch_size) // job.views),
            Compose(
                [
                    Views(preparation.image_size, job.views, loaded.padding, loaded.reflection, loaded.padding_mode),
                    Normalize(preparation.mean, preparation.std, dtype),
                ]
            ),
            threads=LOADER_THREADS,
            rank=communicators.rank,
            size=communicators.size,
        )
        _, result = evaluate_on(loaded.network.to(device), loader, stop, communicators)
        wrong = np.flatnonzero(result.predictions != split.labels)
        places = wrong[np.argsort(-result.probabilities[wrong], kind="stable")][:MOST_MISTAKES]
        mistakes = [
            (
                split.images[place],
                loaded.classes[split.labels[place]],
                loaded.classes[result.predictions[place]],
                float(result.probabilities[place]),
            )
            for place in (places if communicators.rank == 0 else ())
        ]
    return Found(result, loaded.classes, split.labels, mistakes)


@contextlib.contextmanager
def _images(job: Job, loaded: Weights, communicators: Communicators) -> Iterator[Split]:
    """The images to test on, the same on all ranks; their labels are indices of the network's classes."""
    if job.data is None:
        config = dataclasses.replace(RunFolder.read(job.source).config, devices=list(job.devices))
        if job.data_dir is not None:
            config = moved(config, job.data_dir)
        with opened(config, download=False) as (config, dataset):
            yield dataset.test.first(config.limit_test, "--limit-test")
        return
    in_folder = job.data not in ("cifar10", "digits") and os.path.isdir(job.data)
    if in_folder:
        dataset = image_folders.load_test(Path(job.data), loaded.preparation, sharers=communicators.size)
    else:
        dataset = datasets.load(job.data, job.data_dir)
    try:
        labels = _labels(dataset, loaded)
        if dataset.image_shape != _stored(loaded):
            shapes = [" x ".join(map(str, shape)) for shape in (dataset.image_shape, _stored(loaded))]
            raise UserError(f"--data {job.data}: its images are {shapes[0]}, but those of the network {shapes[1]}")
        if in_folder:
            image_folders.survey(dataset, None, None, quiet=communicators.rank > 0)
        yield Split(dataset.test.images, labels[dataset.test.labels])
    finally:
        dataset.close()


def _stored(loaded: Weights) -> tuple[int, int, int]:
    """(C, H, W) of the images that the network's inputs are cut from."""
    preparation = loaded.preparation
    return preparation.channels, preparation.resize, preparation.resize


def _labels(dataset: Dataset, loaded: Weights) -> np.ndarray:
    """The network's index of each class of the data set. Raises UserError if the network lacks one.

    torchvision's files have no names of classes: they are numbered, in the order of the names.
    """
    if loaded.model == "alexnet-torchvision" and loaded.classes == [str(i) for i in range(len(dataset.classes))]:
        return np.arange(len(dataset.classes))
    if unknown := [name for name in dataset.classes if name not in loaded.classes]:
        raise UserError(
            f"--data {dataset.name}: the network has no class {unknown[0]!r}; it has {named(loaded.classes)}: rename the folder"
        )
    return np.array([loaded.classes.index(name) for name in dataset.classes])
