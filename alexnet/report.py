"""A run's report: a page with its curves, its layers over time, its confusion matrix, its worst mistakes and its kernels."""

import base64
import io
import time
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from minidl.files import read_regular

from . import page
from .findings import Findings, Mistake, Output

ENVIRONMENT = ("backend", "devices", "world_size", "threads", "dtype", "precision")  # and the versions; the rest are settings
MOST_BYTES = 1 << 30  # of a report that is there already
MOST_EPOCHS, MOST_SAMPLES = 2000, 300  # shown on the page
MOST_IN_MATRIX = 100  # classes
MOST_PAIRS = 12  # confused classes
LARGEST_IMAGE, LARGEST_MAP = 128, 64  # height and width in pixels; larger pictures are reduced
ROW = 256  # features in a row, for a layer without maps

Row = TypeVar("Row")


def write(
    path: Path,
    config: dict[str, Any],
    metrics: list[dict[str, Any]],
    statistics: list[dict[str, Any]],
    findings: Findings | None = None,
    *,
    running: bool = False,
    note: str = "",
) -> None:
    """Write a run's report atomically. Raises OSError; an earlier report is then unchanged.

    config: as in config.json; metrics and statistics: the lines of these files; findings: those of the current network; note:
    why there are none. running: whether the run continues.
    """
    name = path.resolve().parent.name
    page.write(
        path,
        "report",
        f"{name} · minidl",
        {
            "name": name,
            "written": time.strftime("%Y-%m-%d %H:%M"),
            "state": state(config, metrics, running),
            "note": note,
            "best": max(metrics, key=lambda row: row["test_accuracy"], default=None),
            "seconds": sum(row["seconds"] for row in metrics),
            "settings": settings(config),
            "environment": environment(config),
            "epochs": config["epochs"],
            "metrics": thinned(metrics, MOST_EPOCHS),
            "statistics": thinned(statistics, MOST_SAMPLES),
            "findings": findings and _seen(findings),
        },
    )


def has_pictures(path: Path) -> bool:
    """Whether there is a report of a network that was tested."""
    try:
        return b'"findings":null' not in read_regular(path, MOST_BYTES)
    except OSError:
        return False


def state(config: dict[str, Any], metrics: list[dict[str, Any]], running: bool) -> str:
    """The state of a run: "running", "finished" or "stopped"."""
    if running:
        return "running"
    return "finished" if len(metrics) >= config["epochs"] else "stopped"


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that determine what a run computes."""
    return {key: value for key, value in config.items() if key not in (*ENVIRONMENT, "versions")}


def environment(config: dict[str, Any]) -> dict[str, Any]:
    """The devices, threads and versions of a run."""
    return {key: config[key] for key in ENVIRONMENT if key in config} | config.get("versions", {})


def thinned(rows: list[Row], most: int) -> list[Row]:
    """At most `most` rows at equal distances, including the last."""
    step = -(-len(rows) // most) or 1
    return rows[::-1][::step][::-1]


# --- the network's results on the test images -------------------------------------------------------------------------


def _seen(findings: Findings) -> dict[str, Any]:
    """The findings in the form that the page's script needs: lists, and pictures as data URIs."""
    counts = findings.confusion
    return {
        "classes": list(findings.classes),
        "images": int(counts.sum()),
        "right": int(np.trace(counts)),
        "confusion": counts.tolist() if len(counts) <= MOST_IN_MATRIX else None,
        "pairs": _pairs(counts),
        "mistakes": [_mistake(mistake) for mistake in findings.mistakes],
        "kernels": None if findings.kernels is None else _kernels(findings.kernels),
        "image": picture(findings.image.transpose(1, 2, 0), LARGEST_IMAGE),
        "label": findings.label,
        "probabilities": _largest(findings.probabilities),
        "outputs": [_output(output) for output in findings.outputs],
    }


def _pairs(counts: np.ndarray) -> list[dict[str, int]]:
    """The classes that are confused most: `count` of the `of` images of class label were predicted as class prediction."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    largest = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    places = [(int(i), int(j)) for i, j in zip(*np.unravel_index(largest, counts.shape), strict=True)]
    return [
        {"label": i, "prediction": j, "count": int(wrong[i, j]), "of": int(counts[i].sum())} for i, j in places if wrong[i, j]
    ]


def _largest(probabilities: np.ndarray, most: int = 5) -> list[tuple[int, float]]:
    """(class, probability) of the most probable classes."""
    return [(int(i), float(probabilities[i])) for i in np.argsort(-probabilities, kind="stable")[:most]]


def _mistake(mistake: Mistake) -> dict[str, Any]:
    return {
        "place": mistake.place,
        "image": picture(mistake.image.transpose(1, 2, 0), LARGEST_IMAGE),
        "label": mistake.label,
        "prediction": mistake.prediction,
        "labelProbability": mistake.label_probability,
        "probability": mistake.probability,
        "loss": mistake.loss,
    }


def _kernels(kernels: np.ndarray) -> dict[str, Any]:
    pixels = np.round(kernels * 255).astype(np.uint8)
    return {"size": kernels.shape[1:3], "pictures": [picture(kernel, LARGEST_MAP) for kernel in pixels]}


def _output(output: Output) -> dict[str, Any]:
    values = np.nan_to_num(output.values)
    largest = float(np.abs(values).max(initial=0))
    maps, side = (values, LARGEST_MAP) if values.ndim == 3 else (_in_rows(values), ROW)
    return {
        "layer": output.layer,
        "kind": output.kind,
        "shape": output.shape,
        "least": float(output.values.min(initial=0)),
        "most": float(output.values.max(initial=0)),
        "size": maps.shape[1:],
        "maps": [_map(one, largest, side) for one in maps],
    }


def _in_rows(values: np.ndarray) -> np.ndarray:
    """(F,) -> (1, H, W): row by row, filled up with zeros."""
    width = min(len(values), ROW)
    height = -(-len(values) // width)
    return np.pad(values, (0, width * height - len(values))).reshape(1, height, width)


# --- pictures ---------------------------------------------------------------------------------------------------------


def _palette() -> bytes:
    """255 colours from light blue for -1 over black for 0 to light orange for 1, which colour-blind readers can distinguish."""
    stops = np.array([(190, 232, 255), (56, 150, 220), (0, 0, 0), (225, 120, 20), (255, 236, 170)], float)
    at = np.linspace(0, len(stops) - 1, 255)
    return np.stack([np.interp(at, range(len(stops)), stops[:, c]) for c in range(3)], axis=1).round().astype(np.uint8).tobytes()


PALETTE = _palette()


def _map(values: np.ndarray, largest: float, side: int) -> str:
    """A map (H, W) in the palette's colours, as a data URI with sides of at most `side` pixels; largest: the value shown as 1."""
    from PIL import Image

    image = Image.fromarray(np.round(127 + 127 * (values / (largest or 1))).astype(np.uint8))
    image.putpalette(PALETTE)
    return _data_uri(image, side)


def picture(pixels: np.ndarray, largest: int) -> str:
    """An image (H, W, 3 or 1) uint8 as a data URI, with sides of at most `largest` pixels."""
    from PIL import Image

    return _data_uri(Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]), largest)


def _data_uri(image: Any, largest: int) -> str:
    image.thumbnail((largest, largest))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
