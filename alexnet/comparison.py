"""Runs side by side, on a page: their curves, and what differs in their settings."""

from pathlib import Path
from typing import Any, NamedTuple

from . import page
from .report import MOST_EPOCHS, environment, settings, state, thinned


class Run(NamedTuple):
    """A run to be compared: its folder, config as in config.json, the lines of metrics.jsonl, and whether it goes on."""

    path: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    running: bool = False


def write(path: Path, runs: list[Run]) -> None:
    """Write the page. Raises OSError; then what was there before is as it was."""
    configs = [settings(run.config) | environment(run.config) for run in runs]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    data = {
        "runs": [
            {
                "name": name,
                "path": str(run.path),
                "state": state(run.config, run.metrics, run.running),
                "epochs": run.config["epochs"],
                "config": config,
                "best": max(run.metrics, key=lambda row: row["test_accuracy"], default=None),
                "seconds": sum(row["seconds"] for row in run.metrics),
                "metrics": thinned(run.metrics, MOST_EPOCHS),
            }
            for run, config, name in zip(runs, configs, names([run.path for run in runs]), strict=True)
        ],
        "keys": keys,
        "differing": [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)],
    }
    page.write(path, "compare", "Runs compared · minidl", data)


def names(paths: list[Path]) -> list[str]:
    """The folders' names; if some are equal, each with as many of the folders around it as tell all apart."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        found = ["/".join(own[-count:]) for own in parts]
        if len(set(found)) == len(found):
            return found
    return [str(path) for path in paths]
