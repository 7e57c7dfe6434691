"""A run and its folder: config.json, metrics.jsonl, checkpoints/ and pictures."""

import contextlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from minidl import checkpoint
from minidl.errors import UserError

from .config import Config

KEPT_CHECKPOINTS = 2


class RunFolder:
    """runs/NAME. Files in it are whole at every moment: a kill loses the work since the last checkpoint, nothing else."""

    def __init__(self, path: Path, config: Config):
        self.path, self.config = path, config
        self.made_parents: list[Path] = []

    @classmethod
    def create(cls, path: Path | None, config: Config) -> "RunFolder":
        """A new folder; without a path, one named after the run and the time."""
        default = Path("runs") / f"{config.model}-{Path(config.data).name}-{config.recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        wanted = path or default
        attempt, number = wanted, 1
        missing = [parent for parent in wanted.parents if not parent.exists()]
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {wanted}: cannot make the folder {wanted.parent}: {error.strerror}") from None
        while True:
            try:
                attempt.mkdir()
                break
            except FileExistsError:
                if path is not None:
                    raise UserError(f"--out {path}: exists already; choose another, or continue it with --resume") from None
                number += 1
                attempt = wanted.with_name(f"{wanted.name}-{number}")
            except OSError as error:
                raise UserError(f"--out {attempt}: cannot make this folder: {error.strerror}") from None
        folder = cls(attempt, config)
        folder.made_parents = missing
        try:
            (attempt / "checkpoints").mkdir()
            folder._replace("config.json", config.to_json())
        except OSError as error:
            shutil.rmtree(attempt, ignore_errors=True)
            raise UserError(f"--out {attempt}: cannot write there: {error.strerror}") from None
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The folder of an earlier run."""
        file = path / "config.json"
        try:
            config = Config.from_json(file.read_text())
        except FileNotFoundError:
            raise UserError(f"--resume {path}: this is not a run, there is no {file}") from None
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"--resume {path}: {file} is damaged ({error})") from None
        return cls(path, config)

    def remove(self) -> None:
        """Leave nothing of a run that could not begin."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):  # another run's folder is in it
            for parent in self.made_parents:
                parent.rmdir()

    def metrics(self) -> list[dict[str, Any]]:
        """The epochs written so far. A last line that a kill cut short does not count."""
        rows = []
        try:
            lines = (self.path / "metrics.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        for line in lines:
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
            if not isinstance(rows[-1], dict) or "epoch" not in rows[-1]:
                raise UserError(f"{self.path / 'metrics.jsonl'} is damaged: a line has no epoch")
        return rows

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Append an epoch's line. To be called before the epoch's checkpoint is saved."""
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def cut_metrics(self, epochs: int) -> None:
        """Forget the lines of epochs after `epochs`, which will be run again."""
        kept = [row for row in self.metrics() if row["epoch"] <= epochs]
        self._replace("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))

    def save_checkpoint(self, arrays: dict[str, Any], facts: dict[str, Any]) -> Path:
        """Save, and remove all but the newest two. facts tells epoch (those complete) and step (those of the whole run)."""
        name = f"epoch-{facts['epoch']:04d}-step-{facts['step']:06d}.safetensors"
        checkpoint.save(self.path / "checkpoints" / name, arrays, facts)
        for old in self.checkpoints()[:-KEPT_CHECKPOINTS]:
            old.unlink(missing_ok=True)
        return self.path / "checkpoints" / name

    def checkpoints(self) -> list[Path]:
        """The checkpoint files, the newest last."""
        files = (self.path / "checkpoints").glob("epoch-*-step-*.safetensors")
        return sorted(files, key=lambda file: [int(number) for number in re.findall(r"\d+", file.name)])

    def _replace(self, name: str, text: str) -> None:
        part = self.path / f".{name}.part"
        with open(part, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path / name)
