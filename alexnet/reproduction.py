"""The runs of the studies: their settings, which are done, how long the others take, and the report on them."""

import dataclasses
import json
import shutil
import time
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

import minidl.functional as F
from minidl import Tensor
from minidl.backend import to_device, use_device
from minidl.errors import UserError
from minidl.files import replacing
from minidl.optim import SGD

from . import verdicts
from .config import FOUND, Config
from .lock import FolderLock
from .models import create
from .run import RunFolder
from .saving import MAY_CHANGE
from .studies import ARMS, Study
from .verdicts import MEASURES, Rows

TRAINING, TEST = 50_000, 10_000  # images of CIFAR-10
FORWARD = 1 / 3  # the forward pass's share of a step's time

State = Literal["done", "begun", "in use", "to do"]


def run_name(arm: str, seed: int) -> str:
    """The name of a run's folder."""
    return f"{arm}-{seed}"


def run_config(base: Config, arm: str, seed: int) -> Config:
    """The settings of a run; its devices and the folder of its data are those of base."""
    chosen = ARMS[arm]
    return dataclasses.replace(
        base,
        model=chosen.model,
        recipe=chosen.recipe,
        limit_train=chosen.limit_train,
        limit_test=chosen.limit_test,
        seed=seed,
    )


def find(path: Path, wanted: Config) -> RunFolder | None:
    """The run in that folder, None if there is none. Raises UserError if it is damaged or has other settings than `wanted`."""
    if not path.exists():
        return None
    found = RunFolder.read(path)
    own, its = wanted.flat(), found.config.flat()
    for key in own:
        if key not in MAY_CHANGE | set(FOUND) and own[key] != its[key]:
            raise UserError(
                f"{path} has {key} {its[key]!r}, but the study now has {own[key]!r}; remove it, or give another --runs"
            )
    return found


def state(run: RunFolder | None) -> State:
    if run is None:
        return "to do"
    if FolderLock.in_use(run.path):  # also while its last checkpoint and pictures are written
        return "in use"
    return "done" if run.finished() else "begun"


def minutes_left(run: RunFolder | None, config: Config, device: str) -> float:
    """An estimate of the minutes that the rest of the run takes here, from the time of a few steps."""
    recipe = config.recipe
    epochs = recipe.epochs - (len(run.metrics()) if run else 0)
    images = config.limit_train or TRAINING
    tested = FORWARD * recipe.test_views * (config.limit_test or TEST)
    return epochs * (images + tested) * _seconds_an_image(config.model, recipe.batch_size, device) / 60


@cache
def _seconds_an_image(model: str, batch_size: int, device: str) -> float:
    """Seconds of training for each image: the fastest of three steps, the first of which is slower."""
    use_device(device)
    network = create(model).to(device)
    optimizer = SGD(network.parameters(), 1e-6, 0.9)
    images = to_device(np.zeros((batch_size, 3, 32, 32), np.float32), device)
    labels = to_device(np.zeros(batch_size, np.int64), device)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        loss = F.cross_entropy(network(Tensor(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        seconds.append(time.perf_counter() - started)
    return min(seconds) / batch_size


def keep(run: RunFolder, place: Path) -> None:
    """Copy a run's config.json and metrics.jsonl into a folder of its name in `place`. Raises OSError.

    The copy leaves out the folder of the data, which is this machine's.
    """
    folder = place / run.path.name
    folder.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(run.config, data_dir=None)
    metrics = "".join(json.dumps(row) + "\n" for row in run.metrics())
    for name, text in (("config.json", config.to_json()), ("metrics.jsonl", metrics)):
        with replacing(folder / name) as part:
            part.write_text(text)


def forget_weights(run: RunFolder) -> None:
    """Remove the checkpoints of a run that is done."""
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)


def done(study: Study, place: Path) -> dict[tuple[str, int], Rows]:
    """The metrics of the study's runs in `place` that are done."""
    found = {}
    for arm, seed in study.runs():
        path = place / run_name(arm, seed)
        if path.exists() and state(run := RunFolder.read(path)) == "done":
            found[arm, seed] = run.metrics()
    return found


def report(study: Study, place: Path) -> list[str]:
    """The lines of a report on the runs in `place`: a table of the arms, and a verdict on each claim."""
    values = verdicts.measured(study, done(study, place))
    _, unit = MEASURES[study.measure]
    width = max(len(ARMS[arm].label) for arm in study.arms)
    lines = [f"{study.title} ({study.source})", f"{'':<{width}}  runs  {study.measure}"]
    for arm in study.arms:
        text = f"{len(values[arm]):>4}  {verdicts.spread(values[arm])}" if arm in values else "   0"
        lines.append(f"{ARMS[arm].label:<{width}}  {text}")
    for claim in study.claims:
        verdict = verdicts.judge(claim, values)
        lines.append(f"{claim.text}: {verdict.told(unit) if verdict else 'not decided at n = 0'}")
    return lines
