"""The page that compares runs: their results, their curves, and the settings that differ."""

from pathlib import Path
from typing import Any, NamedTuple

from . import page
from .report import MOST_EPOCHS, environment, settings, state, thinned


class Run(NamedTuple):
    """A run to compare: its folder, its config as in config.json, the lines of metrics.jsonl, and whether it is running."""

    path: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    running: bool = False


def write(path: Path, runs: list[Run]) -> None:
    """Write the page atomically. Raises OSError; an earlier page is then unchanged."""
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
    """The folders' names; if some are equal, all with as many parent folders as make them different."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        found = ["/".join(own[-count:]) for own in parts]
        if len(set(found)) == len(found):
            return found
    return [str(path) for path in paths]
