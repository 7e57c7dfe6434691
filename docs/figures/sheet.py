"""Tools to draw figures, and the list of all figures."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from numpy.typing import ArrayLike

BLUE, GREEN, YELLOW, RED, GREY = "#cfe2f7", "#d5efd8", "#fff0bf", "#f9d5cd", "#e6e6e6"
FIGURES: dict[str, Callable] = {}


def figure(name: str):
    """A decorator: images/<name>.svg is made of the function's result, a matplotlib Figure or a pygraphviz.AGraph."""

    def register(draw):
        FIGURES[name] = draw
        return draw

    return register


def board(width: float, height: float, cell: float = 0.42) -> tuple[Figure, Axes]:
    """A figure of width x height units, and its axes. cell: the size of a unit in inches. y grows downwards."""
    sheet = Figure(figsize=(width * cell, height * cell))
    axes = sheet.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.set_axis_off()
    return sheet, axes


def matrix(axes: Axes, x: float, y: float, values, name: str, color: ArrayLike = BLUE, edge: ArrayLike = "#888888") -> None:
    """A matrix of numbers with its top left corner at (x, y), its name above. color, edge: one for all cells, or one each."""
    values = np.atleast_2d(values)
    fills, edges = (np.broadcast_to(colors, values.shape) for colors in (color, edge))
    for (i, j), value in np.ndenumerate(values):
        cell = Rectangle((x + j, y + i), 1, 1, facecolor=fills[i, j], edgecolor=edges[i, j])
        axes.add_patch(cell).set_linewidth(0.7 if edges[i, j] == "#888888" else 1.8)
        axes.text(x + j + 0.5, y + i + 0.52, f"{value:.4g}", ha="center", va="center", fontsize=9)
    axes.text(x + values.shape[1] / 2, y - 0.25, name, ha="center", va="bottom", fontsize=10)


def box(axes: Axes, x: float, y: float, width: float, height: float, name: str, left: str, below: str, color: str = BLUE) -> None:
    """A matrix as an empty box, with the names of its axes."""
    axes.add_patch(Rectangle((x, y), width, height, facecolor=color, edgecolor="#666666"))
    axes.text(x + width / 2, y + height / 2, name, ha="center", va="center", fontsize=12)
    axes.text(x - 0.15, y + height / 2, left, ha="right", va="center", fontsize=9, color="#444444")
    axes.text(x + width / 2, y + height + 0.15, below, ha="center", va="top", fontsize=9, color="#444444")


def sign(axes: Axes, x: float, y: float, text: str) -> None:
    axes.text(x, y, text, ha="center", va="center", fontsize=14)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color="#666666"))
