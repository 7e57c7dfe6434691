"""The contents of a run's checkpoint, and the checks before a run resumes from it."""

import contextlib
import hashlib
import math
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from minidl import checkpoint
from minidl.backend import device_of
from minidl.data import DataLoader
from minidl.errors import TrainingError, UserError
from minidl.nn import Module, init
from minidl.optim import SGD, LRScheduler, ReduceLROnPlateau
from minidl.parallel import ALONE, Communicators
from minidl.parallel.sharding import distribute, sharded_parameters, whole_arrays

from . import entry
from .builders import build_model
from .collectives import sum_over_ranks
from .config import FOUND, Config
from .datasets import Dataset
from .run import RunFolder, place
from .training import Progress

# Settings that may change when a run is resumed. The others determine its numbers, and must be those of the checkpoint.
MAY_CHANGE = {
    *("backend", "devices", "world_size", "threads", "parallel", "precision", "data_dir", "versions"),
    *("save_minutes", "tensorboard"),
}
MOST_FACTS_BYTES = 1 << 24  # of a checkpoint, not counting its arrays

Number = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
Count = Annotated[int, Meta(ge=0)]
Checksum = Annotated[str, Meta(min_length=64, max_length=64)]


class Plateau(msgspec.Struct, forbid_unknown_fields=True):
    """The state of ReduceLROnPlateau. best: None before the first epoch."""

    best: Number | None
    num_bad_epochs: Count
    cooldown_counter: Count


class Facts(msgspec.Struct, forbid_unknown_fields=True):
    """The contents of a checkpoint other than its arrays.

    The random numbers come from a counter-based generator: its key is the seed in config, its counters are in progress.
    """

    progress: Progress
    rates: list[Number]  # the learning rates of the optimiser's groups
    plateau: Plateau | None
    images: Checksum  # of the data set
    metrics: Checksum  # of the lines of metrics.jsonl up to here
    config: dict[str, Any]


def arrays(model: Module, optimizer: SGD) -> dict[str, Any]:
    """The network's parameters and buffers, and the velocity of each trained parameter."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    velocities = zip(names, optimizer.momentum_buffers, strict=True)
    return {f"model.{name}": array for name, array in model.state_dict().items()} | {
        f"velocity.{name}": array for name, array in velocities
    }


class Saver:
    """Writes a run's checkpoints, and restores the newest one that can be used. All ranks take part; rank 0 reads and writes.

    A checkpoint has the whole network, however it is divided among the ranks.
    """

    def __init__(
        self,
        folder: RunFolder,
        dataset: Dataset,
        loader: DataLoader,
        model: Module,
        optimizer: SGD,
        plateau: ReduceLROnPlateau | None,
        communicators: Communicators = ALONE,
    ):
        self.folder, self.dataset, self.loader = folder, dataset, loader
        self.model, self.optimizer, self.plateau, self.communicators = model, optimizer, plateau, communicators
        self._sizes = {
            f"{kind}.{name}": sizes for name, sizes in sharded_parameters(model).items() for kind in ("model", "velocity")
        }
        self._restored: dict[str, Any] = {}
        self._saved = time.monotonic()

    @cached_property
    def images(self) -> str:
        """The checksum of all images and labels; for image files, that of their names, labels and sizes."""
        if self.folder.config.files is not None:
            return self.folder.config.files
        digest = hashlib.sha256()
        for split in (self.dataset.train, self.dataset.test):
            for array in (split.images, split.labels):
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def due(self) -> bool:
        """Whether the last checkpoint, or the start, is more than config.save_minutes ago."""
        return time.monotonic() - self._saved > 60 * self.folder.config.save_minutes

    def whole(self) -> dict[str, Any]:
        """The arrays of a checkpoint, `arrays` of the whole network, on rank 0. Called by all ranks."""
        return whole_arrays(arrays(self.model, self.optimizer), self._sizes, self.communicators.main)

    def whole_network(self, whole: dict[str, Any]) -> Module:
        """The network including the shards of other ranks, from the result of whole(). Called by rank 0."""
        if not self._sizes:
            return self.model
        with init.skipped():
            network = build_model(self.folder.config)
        prefix = "model."
        state = {name.removeprefix(prefix): array for name, array in whole.items() if name.startswith(prefix)}
        network.to(device_of(next(iter(state.values())))).load_state_dict(state)
        return network

    def save(self, progress: Progress, row: dict[str, Any] | None, whole: dict[str, Any]) -> None:
        """Write the metrics of a complete epoch, if given, then a checkpoint with the result of whole(). Called by rank 0.

        Raises TrainingError if that fails.
        """
        with self._failing():
            if row:
                self.folder.add_metrics(row)
            facts = msgspec.to_builtins(self.facts(progress))
            self.folder.save_checkpoint(whole, facts, progress.epoch, progress.step)
        self._saved = time.monotonic()

    def add_statistics(self, row: dict[str, Any]) -> None:
        """Append the layers' statistics of a step. Raises TrainingError if that fails."""
        with self._failing():
            self.folder.add_statistics(row)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(f"cannot save in {self.folder.path}: {error.strerror or error}") from None
        except UserError as error:  # metrics.jsonl was changed meanwhile; after a UserError a new run's folder is removed
            raise TrainingError(str(error)) from None

    def facts(self, progress: Progress) -> Facts:
        state = None
        if self.plateau is not None:
            state = self.plateau.state_dict()
            state = Plateau(**state | {"best": state["best"] if math.isfinite(state["best"]) else None})
        rates = [group["lr"] for group in self.optimizer.param_groups]
        metrics = checksum(self.folder.metrics()[: progress.epoch])
        return Facts(progress, rates, state, self.images, metrics, self.folder.config.flat())

    def restore(self) -> Facts:
        """Read the newest checkpoint that can be used, and print why newer ones cannot. Writes nothing. Called by rank 0.

        distribute() then copies the arrays to the network and the optimiser. Without any checkpoint, the network stays as it is,
        and the progress is that of the start. Raises UserError if there are checkpoints, but none can be used, or if there are
        none, but more than one epoch in metrics.jsonl.
        """
        files, rows = self.folder.checkpoints(), self.folder.metrics()
        self.folder.statistics()
        if not files:
            if len(rows) > 1:
                raise UserError(f"{self.folder.path}: its checkpoints are gone; start a new run")
            return self.facts(Progress())
        problems = []
        for file in reversed(files):
            try:
                facts = self._load(file, rows)
            except UserError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                entry.tell(f"{problem}; resuming from {file.name}")
            return facts
        raise UserError(f"{problems[0]}; none before it can be used")

    def _load(self, file: Path, rows: list[dict[str, Any]]) -> Facts:
        own = {name: (self._whole_shape(name, array), array.dtype) for name, array in arrays(self.model, self.optimizer).items()}
        nbytes = sum(math.prod(shape) * dtype.itemsize for shape, dtype in own.values())
        loaded, told = checkpoint.load(file, nbytes + MOST_FACTS_BYTES)
        try:
            facts = msgspec.convert(told, Facts)
            self._check(facts, file, rows)
            for name in {*loaded, *own}:
                if name not in loaded or name not in own:
                    raise ValueError(f"{name} is not in both the file and the network")
                if (loaded[name].shape, loaded[name].dtype) != own[name]:
                    raise ValueError(f"{name} is {loaded[name].dtype} {loaded[name].shape} in the file")
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file} does not fit this run ({error})") from None
        self._restored = loaded
        return facts

    def _whole_shape(self, name: str, array: Any) -> tuple[int, ...]:
        return (sum(self._sizes[name]), *array.shape[1:]) if name in self._sizes else array.shape

    def distribute(self) -> None:
        """If rank 0 has restored a checkpoint, send each rank its shards; arrays that are not sharded go to rank 0 only."""
        own = arrays(self.model, self.optimizer)
        device = device_of(next(iter(own.values())))
        if sum_over_ranks(self.communicators, device, float(bool(self._restored))):
            distribute(self._restored, own, self._sizes, self.communicators.main)
        self._restored = {}

    def _check(self, facts: Facts, file: Path, rows: list[dict[str, Any]]) -> None:
        """Raise ValueError unless the facts fit this run and the name of the file."""
        config, progress = self.folder.config, facts.progress
        saved, own = Config.from_flat(facts.config).flat(), config.flat()
        for key in own:
            unknown = key in FOUND and saved[key] is None  # in a checkpoint of an earlier version
            moved = key == "data" and own["files"] is not None  # the same files, in another folder
            if key not in MAY_CHANGE | {"epochs"} and saved[key] != own[key] and not unknown and not moved:
                raise ValueError(f"it was saved with {key} {saved[key]!r}, but config.json has {own[key]!r}")
        if own["epochs"] < saved["epochs"]:
            raise ValueError(f"it is from a run of {saved['epochs']} epochs, but config.json has {own['epochs']}")
        if facts.images != self.images:
            raise ValueError("it was trained on other images than these; give the right folder with --data-dir")
        steps, images = len(self.loader), len(self.loader.labels)
        if (
            progress.batch > steps
            or progress.step != progress.epoch * steps + progress.batch
            or progress.seen != min(images, progress.batch * config.recipe.batch_size)
            or progress.correct > progress.seen
            or (not progress.batch and progress != Progress(progress.epoch, progress.step))
            or place(file) != (progress.epoch, progress.step)
            or len(facts.rates) != len(self.optimizer.param_groups)
            or (facts.plateau is None) != (self.plateau is None)
        ):
            raise ValueError("its numbers of epochs, steps and images do not agree")
        if progress.epoch > config.recipe.epochs or (progress.epoch == config.recipe.epochs and progress.batch):
            raise ValueError(f"it has more epochs than the run's {config.recipe.epochs}")
        if len(rows) < progress.epoch:
            raise ValueError(f"metrics.jsonl lacks epochs: it has {len(rows)} of {progress.epoch}")
        if facts.metrics != checksum(rows[: progress.epoch]):
            raise ValueError("the epochs in metrics.jsonl have changed since; put them back as they were")

    def restore_schedules(self, facts: Facts, scheduler: LRScheduler | None) -> Progress:
        """Restore the learning rates and the state of the plateau schedule. Called by all ranks."""
        if scheduler is not None:
            scheduler.resume(facts.progress.step)
        else:
            for group, rate in zip(self.optimizer.param_groups, facts.rates, strict=True):
                group["lr"] = rate
        if self.plateau is not None and facts.plateau is not None and facts.plateau.best is not None:
            self.plateau.load_state_dict(msgspec.structs.asdict(facts.plateau))
        return facts.progress


def checksum(rows: list[dict[str, Any]]) -> str:
    """The checksum of epochs without their times, so that two runs of the same settings have the same checkpoints."""
    timeless = [{key: value for key, value in row.items() if key not in ("seconds", "images_per_second")} for row in rows]
    return hashlib.sha256(msgspec.json.encode(timeless)).hexdigest()
