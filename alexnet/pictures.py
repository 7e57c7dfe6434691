"""The pictures of a run: learning curves, confusion matrix, and conv1's kernels."""

import logging
import os
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend import to_numpy
from minidl.files import replacing
from minidl.nn import Conv2d, Module
from minidl.partition import ceil_div

MOST_NAMES = 30  # class names along a confusion matrix
ACROSS = 6  # images in a row
# Fonts with the letters that matplotlib's own lacks, such as those of Korean: of Linux, Windows and macOS.
FONTS = ("NanumGothic", "Noto Sans CJK JP", "Noto Sans KR", "Malgun Gothic", "Apple SD Gothic Neo", "Arial Unicode MS")


def draw(
    folder: Path,
    metrics: list[dict[str, Any]],
    labels: np.ndarray,
    predictions: np.ndarray,
    classes: Sequence[str],
    model: Module,
) -> dict[str, Exception]:
    """Write curves.png, confusion.png and filters.png into the folder. Returns the errors, by the name of the file."""
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
            _save(picture(), folder / name)
        except Exception as error:
            problems[name] = error
    return problems


def _figure(width: float, height: float):
    os.environ["MPLBACKEND"] = "agg"  # pictures are written to files; a notebook may have set a back end that only it has
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no warning if it cannot save its list of fonts
    from matplotlib.figure import Figure  # imported here, so that training needs matplotlib only at its end

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
    """How many images of each class (rows) were predicted as each class (columns)."""
    figure = _figure(6.4, 6)
    _draw_confusion(figure.subplots(), labels, predictions, classes)
    return figure


def _draw_confusion(axes: Any, labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]) -> None:
    n = len(classes)
    counts = np.bincount(labels * n + predictions, minlength=n * n).reshape(n, n)
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    named = range(0, n, ceil_div(n, MOST_NAMES))
    axes.set_xticks(named, [shortened(classes[i]) for i in named], rotation=45, ha="right")
    axes.set_yticks(named, [shortened(classes[i]) for i in named])
    axes.set(
        xlabel="predicted", ylabel="true", title=f"{np.trace(counts):,} of {len(labels):,} test images are classified correctly"
    )
    if n <= MOST_NAMES:
        for (i, j), count in np.ndenumerate(counts):
            if count:
                axes.text(j, i, count, ha="center", va="center", fontsize=8, color="white" if share[i, j] > 0.5 else "black")


def shortened(name: str, most: int = 24, width: int | None = None) -> str:
    """A name short enough for a picture, as plain text: for matplotlib, $ would begin a formula. width: of its lines."""
    short = name if len(name) <= most else name[: most - 1] + "…"
    return (textwrap.fill(short, width) if width else short).replace("$", r"\$")


def draw_evaluation(
    path: Path,
    labels: np.ndarray,
    predictions: np.ndarray,
    classes: Sequence[str],
    mistakes: Sequence[tuple[np.ndarray, str, str, float]],
) -> None:
    """A PNG with the confusion matrix, and mistakes below it: (image (C, H, W) uint8, its class, predicted class, probability).

    Raises OSError.
    """
    rows = ceil_div(len(mistakes), ACROSS)
    figure = _figure(8, 7.5 + 1.9 * rows)
    upper, lower = figure.subfigures(2, 1, height_ratios=[7.5, max(1e-3, 1.9 * rows)])
    _draw_confusion(upper.subplots(), labels, predictions, classes)
    if rows:
        lower.suptitle("the most certain wrong answers", fontsize=12)
        places = lower.subplots(rows, ACROSS, squeeze=False).ravel()
        for axes in places:
            axes.set_axis_off()
        for axes, (image, label, predicted, probability) in zip(places, mistakes, strict=False):
            show(axes, image)
            axes.set_title(f"{shortened(predicted, 14)} ({probability:.0%})\nis {shortened(label, 14)}", fontsize=8)
    _save(figure, path)


def show(axes: Any, image: np.ndarray) -> None:
    """An image (C, H, W) uint8, without axes."""
    axes.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()


def _save(figure: Any, path: Path) -> None:
    """Write a figure atomically. A letter that none of the fonts has is a box. Raises OSError."""
    from matplotlib import rcParams
    from matplotlib.font_manager import get_font_names
    from matplotlib.text import Text

    installed = set(get_font_names())
    families = [*rcParams["font.family"], *(font for font in FONTS if font in installed)]
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
    with replacing(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(part, format="png")


def of_kernels(weight: np.ndarray) -> np.ndarray:
    """Kernels (O, C, KH, KW) as pictures (O, KH, KW, 3 or 1) of values from 0 to 1, as in Krizhevsky 2012, figure 3.

    In colour if C is 3; if not, only the first channel. Grey, 0.5, is zero; each kernel has its own scale.
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


def draw_grid(path: Path, images: Sequence[tuple[np.ndarray, str, float]]) -> None:
    """A PNG of images (C, H, W) uint8, each with its predicted class and probability below. Raises OSError."""
    across = min(len(images), ACROSS)
    rows = ceil_div(len(images), across)
    figure = _figure(max(3.0, 2 * across), 2.6 * rows)
    places = figure.subplots(rows, across, squeeze=False).ravel()
    for axes in places[len(images) :]:
        axes.set_axis_off()
    for axes, (image, name, probability) in zip(places, images, strict=False):
        show(axes, image)
        axes.set_axis_on()  # only visible axes get room for the label; ticks and frame are hidden
        axes.set(xticks=[], yticks=[], frame_on=False)
        axes.set_xlabel(f"{shortened(name, 44, 24)}\n{probability:.0%}", fontsize=9)
    _save(figure, path)


def draw_explanation(
    path: Path, image: np.ndarray, title: str, gradient: np.ndarray, grad_cam: np.ndarray, occlusion: np.ndarray
) -> None:
    """A PNG of an image (C, H, W) uint8 and the three maps (H, W) of alexnet.explanation. Raises OSError."""
    figure = _figure(11, 3.3)
    figure.suptitle(shortened(title, 60))
    axes = figure.subplots(1, 4)
    for place, name in zip(axes, ("image", "gradient", "Grad-CAM at the last convolution", "occlusion"), strict=True):
        place.set_title(name, fontsize=9)
        place.set_axis_off()
    show(axes[0], image)
    # One pixel in a hundred is above the scale, so that a few large values do not make the rest invisible.
    axes[1].imshow(gradient, cmap="gray_r", vmin=0, vmax=max(np.percentile(gradient, 99), 1e-12), interpolation="nearest")
    grey = np.broadcast_to(image.mean(axis=0, keepdims=True).astype(np.uint8), image.shape)
    show(axes[2], grey)
    show(axes[3], grey)
    axes[2].imshow(grad_cam, cmap="inferno", vmin=0, vmax=1, alpha=0.6)
    largest = max(abs(occlusion).max(), 1e-6)
    shown = axes[3].imshow(occlusion, cmap="RdBu_r", vmin=-largest, vmax=largest, alpha=0.6)
    bar = figure.colorbar(shown, ax=axes[3], fraction=0.05, format=lambda value, _: f"{value:+.0%}")
    bar.ax.tick_params(labelsize=7)
    bar.set_label("fall of the probability", fontsize=7)
    _save(figure, path)
