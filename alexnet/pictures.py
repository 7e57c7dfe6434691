"""The pictures of a run: learning curves, confusion matrix, and what conv1 looks for."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend import to_numpy
from minidl.files import replacing
from minidl.nn import Conv2d, Module
from minidl.partition import ceil_div


def draw(
    folder: Path,
    metrics: list[dict[str, Any]],
    labels: np.ndarray,
    predictions: np.ndarray,
    classes: Sequence[str],
    model: Module,
) -> dict[str, Exception]:
    """Write curves.png, confusion.png and filters.png into the folder. Returns what went wrong, by the name of the file."""
    pictures = {
        "curves.png": lambda: _curves(metrics),
        "confusion.png": lambda: _confusion(labels, predictions, classes),
    }
    first = next((module for _, module in model.named_modules() if isinstance(module, Conv2d)), None)
    if first is not None:
        pictures["filters.png"] = lambda: _filters(to_numpy(first.weight.data))
    problems: dict[str, Exception] = {}
    for name, picture in pictures.items():
        try:
            with replacing(folder / name) as part:
                picture().savefig(part, format="png")
        except Exception as error:
            problems[name] = error
    return problems


def _figure(width: float, height: float):
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it cannot keep its list of fonts is nobody's concern
    from matplotlib.figure import Figure  # here, so that training needs matplotlib at its end only

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _curves(metrics: list[dict[str, Any]]):
    """Loss and accuracy by epoch, on training and test images."""
    figure = _figure(9, 3.6)
    epochs = [row["epoch"] for row in metrics]
    for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, style in (("train", "--"), ("test", "-")):
            values = [row[f"{part}_{what}"] for row in metrics]
            axes.plot(epochs, values, style, marker="o", markersize=3, label=f"{part} ({values[-1]:.4f})")
        axes.set(xlabel="epoch", title=what)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _confusion(labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]):
    """How many images of each class (rows) were taken for each class (columns)."""
    n = len(classes)
    counts = np.bincount(labels * n + predictions, minlength=n * n).reshape(n, n)
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    figure = _figure(6.4, 6)
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(n), classes, rotation=45, ha="right")
    axes.set_yticks(range(n), classes)
    axes.set(xlabel="predicted", ylabel="true", title=f"{np.trace(counts):,} of {len(labels):,} test images are right")
    for (i, j), count in np.ndenumerate(counts):
        if count:
            axes.text(j, i, count, ha="center", va="center", fontsize=8, color="white" if share[i, j] > 0.5 else "black")
    return figure


def of_kernels(weight: np.ndarray) -> np.ndarray:
    """Kernels (O, C, KH, KW) as pictures (O, KH, KW, 3 or 1) of values from 0 to 1, as the paper's figure 3.

    In colour if C is 3, else of the first channel. Grey, 0.5, is zero; each is on a scale of its own.
    """
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    pictures = 0.5 + 0.5 * weight / np.maximum(largest, 1e-12)
    return (pictures if pictures.shape[1] == 3 else pictures[:, :1]).transpose(0, 2, 3, 1)


def _filters(weight: np.ndarray):
    """A sheet of conv1's kernels."""
    pictures = of_kernels(weight)
    count, height, width, channels = pictures.shape
    columns = int(np.ceil(np.sqrt(count * 1.5)))
    rows = ceil_div(count, columns)
    sheet = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, channels))
    for k, picture in enumerate(pictures):
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        sheet[top : top + height, left : left + width] = picture
    figure = _figure(columns * 0.5, rows * 0.5 + 0.4)
    axes = figure.subplots()
    axes.imshow(sheet.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(f"the {count} kernels of the first convolution, {height} x {width}", fontsize=10)
    return figure
