"""A run and its folder: config.json, metrics.jsonl, statistics.jsonl, checkpoints/, report and pictures."""

import contextlib
import errno
import itertools
import json
import os
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from minidl import checkpoint
from minidl.errors import UserError
from minidl.files import PART, append, read_regular, replacing

from .config import Config
from .lock import FolderLock
from .statistics import Sample

NEWEST_KEPT = 2  # checkpoints, beside the best one
DAMAGED = ".damaged"  # added to the name of a checkpoint that cannot be used
UNMADE = ".minidl-"  # prefix of the name of a run's folder while it is made; the name ends with PART
ABANDONED = 3600.0  # seconds after which such a folder is removed if it has no lock file
MOST_CONFIG_BYTES, MOST_METRICS_BYTES, MOST_STATISTICS_BYTES = 1 << 20, 1 << 28, 1 << 30
# Files and folders that are written in place: through a symbolic link, a run would write somewhere else.
WRITTEN_INTO = ("metrics.jsonl", "statistics.jsonl", "checkpoints", "tensorboard", FolderLock.FILE)

Number = Annotated[float, Meta(ge=0, le=1e300)]  # so that sums are finite
Share = Annotated[float, Meta(ge=0, le=1)]


class Metrics(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A line of metrics.jsonl: mean losses and accuracies of an epoch, and the learning rate of its last step.

    test_accuracy is that of one view of each image, its centre; test_accuracy_views averages the recipe's test_views.
    """

    epoch: Annotated[int, Meta(ge=1)]
    train_loss: Number
    train_accuracy: Share
    test_loss: Number
    test_accuracy: Share
    seconds: Number
    images_per_second: Number
    lr: Number
    test_accuracy_views: Share | None = None  # None, as test_top5, in runs of earlier versions
    test_top5: Share | None = None


class RunFolder:
    """The folder runs/NAME. A kill loses only the work since the last checkpoint.

    Its files are written atomically. metrics.jsonl, statistics.jsonl and event files are appended to instead; an incomplete
    line at their end is ignored.

    A process that writes in it holds its lock, and so do the processes that this object is sent to. `locked` is False if the
    system or the file system has no locks.
    """

    def __init__(self, path: Path, config: Config):
        self.path, self.config, self.config_read = path, config, config
        self.lock, self.locked = FolderLock(), False
        self.made_parents: list[Path] = []

    @classmethod
    def create(cls, path: Path | None, config: Config) -> "RunFolder":
        """Make a new folder atomically, and lock it; without a path, one named after the settings and the time.

        Raises UserError if it exists already or cannot be made; then nothing is left.
        """
        default = Path("runs") / f"{config.model}-{Path(config.data).name}-{config.recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        wanted = path or default
        folder = cls(wanted.parent / f"{UNMADE}{secrets.token_hex(4)}{PART}", config)
        folder.made_parents = [parent for parent in wanted.parents if not os.path.lexists(parent)]
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(wanted.parent)
            folder.path.mkdir()
            folder.locked = folder.lock.acquire(folder.path)
            (folder.path / "checkpoints").mkdir()
            folder._replace("config.json", config.to_json().encode())
            folder.path = _rename(folder.path, wanted, numbered=path is None)
        except OSError as error:
            folder.remove()
            if os.path.lexists(wanted):
                raise UserError(f"{wanted}: exists already; choose another --out, or continue it with --resume") from None
            raise UserError(f"{wanted}: cannot make {error.filename or 'it'}: {error.strerror}") from None
        return folder

    @classmethod
    def read(cls, path: Path) -> "RunFolder":
        """The folder of an earlier run, not locked, to read from. Raises UserError if it is not a run, or is damaged."""
        file = path / "config.json"
        if not path.is_dir():
            raise UserError(f"{path}: this is not a run, there is no such folder")
        try:
            return cls(path, Config.from_json(read_regular(file, MOST_CONFIG_BYTES)))
        except FileNotFoundError:
            raise UserError(f"{path}: this is not a run, there is no {file}") from None
        except PermissionError:
            raise UserError(f"{file}: no permission to read it") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{file} is damaged ({reason(error)}); put it back as it was, or start a new run") from None

    def hold(self) -> None:
        """Lock the folder of an earlier run to resume it. Raises UserError if it is in use or cannot be written to."""
        for name in WRITTEN_INTO:
            if (self.path / name).is_symlink():
                raise UserError(f"{self.path / name} is a symbolic link; a run writes in its own folder only: put the file there")
        try:
            self.locked = self.lock.acquire(self.path)
        except OSError as error:
            raise UserError(f"{self.path}: cannot write there: {error.strerror}") from None
        try:
            if RunFolder.read(self.path).config != self.config_read:
                raise UserError(f"{self.path}: another process has changed its config.json meanwhile; try again")
        except UserError:
            self.lock.release()
            raise

    def remove(self) -> None:
        """Remove the folder of a run that could not begin."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.lock.release()
        with contextlib.suppress(OSError):  # another run's folder is in it
            for parent in self.made_parents:
                parent.rmdir()

    def resume_at(self, epoch: int, step: int) -> None:
        """Bring the folder to the state of the checkpoint of this epoch and step; to be called after all checks.

        Writes the configuration, removes later lines of metrics and statistics, and unfinished files that a kill has left. Later
        checkpoints, which could not be used, are renamed. Raises OSError.
        """
        (self.path / "checkpoints").mkdir(exist_ok=True)
        for unusable in self.checkpoints():
            if place(unusable) > (epoch, step):
                aside = f"{unusable}{DAMAGED}"
                while os.path.lexists(aside):
                    aside += DAMAGED
                os.rename(unusable, aside)
        for folder in (self.path, self.path / "checkpoints"):
            for file in folder.iterdir():
                debris = file.name.startswith(".tmp") or (file.name.startswith(".") and file.name.endswith(PART))
                if debris and (file.is_symlink() or not file.is_dir()):
                    file.unlink()
        metrics = [row for row in self.metrics() if row["epoch"] <= epoch]
        statistics = [row for row in self.statistics() if row["step"] <= step]
        for name, rows in (("metrics.jsonl", metrics), ("statistics.jsonl", statistics)):
            self._replace(name, b"".join(map(_line, rows)))
        self._replace("config.json", self.config.to_json().encode())

    # --- epoch by epoch -----------------------------------------------------------------------------------------------

    def metrics(self) -> list[dict[str, Any]]:
        """The epochs written so far, checked. Raises UserError if a line is not what add_metrics writes."""
        rows = self._lines("metrics.jsonl", Metrics, MOST_METRICS_BYTES)
        if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)):
            raise UserError(f"{self.path / 'metrics.jsonl'} is damaged (its epochs are not 1, 2, 3, ...); start a new run")
        return rows

    def statistics(self) -> list[dict[str, Any]]:
        """The layers' statistics written so far, checked as in metrics()."""
        return self._lines("statistics.jsonl", Sample, MOST_STATISTICS_BYTES)

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Append an epoch's line. To be called before the epoch's checkpoint is saved. Raises OSError."""
        self.lock.check(self.path)
        append(self.path / "metrics.jsonl", _line(row))

    def add_statistics(self, row: dict[str, Any]) -> None:
        """Append the layers' statistics of a step. Raises OSError."""
        append(self.path / "statistics.jsonl", _line(row))

    def _lines(self, name: str, kind: type[msgspec.Struct], most_bytes: int) -> list[dict[str, Any]]:
        """The checked lines of a file. A last line without a line end was cut off by a kill, and is ignored."""
        file = self.path / name
        try:
            lines = read_regular(file, most_bytes).split(b"\n")[:-1]
            return [msgspec.to_builtins(msgspec.json.decode(line, type=kind)) for line in lines]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{file} is damaged ({reason(error)}); put it back as it was, or start a new run") from None

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def save_checkpoint(self, arrays: dict[str, Any], facts: dict[str, Any], epoch: int, step: int) -> None:
        """Save a checkpoint, and remove all but the newest two and the best. Raises OSError.

        epoch: the number of complete epochs; step: the number of steps in the whole run.
        """
        self.lock.check(self.path)
        checkpoint.save(self.path / "checkpoints" / f"epoch-{epoch:04d}-step-{step:06d}.safetensors", arrays, facts)
        files = self.checkpoints()
        rows = self.metrics()[:epoch]
        best = max(rows, key=lambda row: row["test_accuracy"])["epoch"] if rows else 0
        kept = {*files[-NEWEST_KEPT:], *[file for file in files if place(file)[0] == best][:1]}  # the epoch's first
        for old in set(files) - kept:
            if not old.is_dir():
                old.unlink(missing_ok=True)

    def checkpoints(self) -> list[Path]:
        """The checkpoint files, the newest last."""
        files = (self.path / "checkpoints").glob("epoch-*-step-*.safetensors")
        return sorted((file for file in files if re.fullmatch(r"epoch-\d{1,9}-step-\d{1,12}", file.stem)), key=place)

    def finished(self) -> bool:
        """Whether all epochs are done, and the newest checkpoint is that of the last one. Weights may have been removed since."""
        epochs, files = self.config.recipe.epochs, self.checkpoints()
        return len(self.metrics()) == epochs and (not files or place(files[-1])[0] == epochs)

    def _replace(self, name: str, content: bytes) -> None:
        with replacing(self.path / name) as part:
            part.write_bytes(content)


def place(file: Path) -> tuple[int, int]:
    """(epoch, step) of a checkpoint, by its name."""
    epoch, step = re.findall(r"\d+", file.name)[:2]
    return int(epoch), int(step)


def _rename(part: Path, wanted: Path, numbered: bool) -> Path:
    """Rename a folder to `wanted`; if numbered and the name is taken, to wanted-2, wanted-3, ... Returns the name."""
    for number in itertools.count(1):
        name = wanted.with_name(f"{wanted.name}-{number}") if number > 1 else wanted
        if os.path.lexists(name):  # os.rename would replace an empty folder
            taken = OSError(errno.EEXIST, "exists already")
        else:
            try:
                os.rename(part, name)
                return name
            except OSError as error:
                taken = error
        if not numbered or not os.path.lexists(name):
            raise taken
    raise AssertionError


def _remove_abandoned(parent: Path) -> None:
    """Remove folders of runs that were killed while the folder was made."""
    for folder in parent.glob(f"{UNMADE}*{PART}"):
        lock = FolderLock()
        with contextlib.suppress(OSError, UserError):  # removed meanwhile, or being made
            unlocked = (folder / FolderLock.FILE).exists() and lock.acquire(folder)
            if unlocked or time.time() - folder.stat().st_mtime > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def reason(error: Exception) -> str:
    """The reason of an error, without the name of the file."""
    if isinstance(error, MemoryError):
        return "the memory is full"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
