"""AlexNet: the output of each layer for an image, its costs, and the receptive field of a unit."""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

import alexnet
from alexnet.models import IMAGE_SIZE
from minidl.functional.arguments import pair
from minidl.inspection import summary

from .sheet import BLUE, GREEN, GREY, RED, YELLOW, arrow, board, figure

STEP = 1.63  # from layer to layer
INK = {"parameters": "#d9b740", "multiply-adds": "#c9614c"}


@dataclass
class Layer:
    """A convolution, a pooling or a fully connected layer: the shape of its output, and its costs for one image.

    The costs include those of the layers between it and the next one.
    """

    name: str
    module: Any
    shape: tuple[int, ...]
    costs: dict[str, int]

    @property
    def groups(self) -> int:
        return getattr(self.module, "groups", 1)

    @property
    def window(self) -> tuple[int, int, int] | None:
        """Size, stride and padding, which are the same in both directions; None for a fully connected layer."""
        if not hasattr(self.module, "kernel_size"):
            return None
        return tuple(pair(getattr(self.module, what), what, at_least=0)[0] for what in ("kernel_size", "stride", "padding"))


@cache
def layers_of(name: str) -> list[Layer]:
    network, image = alexnet.create(name), (3, IMAGE_SIZE[name], IMAGE_SIZE[name])
    modules, found = dict(network.named_modules()), [Layer("image", None, image, {})]
    for row in summary(network, image):
        costs = {"parameters": row.parameters, "multiply-adds": row.macs}
        if row.name.startswith(("conv", "pool", "fc")):
            found.append(Layer(row.name, modules[row.name], row.output_shape, costs))
        else:
            found[-1].costs = {what: count + costs[what] for what, count in found[-1].costs.items()}
    return found


def short(count: int) -> str:
    """Three digits and a unit: 34.9 k, 4.10 M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:#.3g}".rstrip(".") + f" {unit}"
    return str(count)


def slab(axes: Axes, x: float, y: float, shape: tuple[float, ...], color: str) -> tuple[float, float]:
    """Draw maps as a box around (x, y), with their number as its thickness. Returns its left and right end."""
    if not shape[1:]:
        return slab(axes, x, y, (1, shape[0] / 40, 0), color)
    thick, side, depth = 0.1 + 0.0012 * shape[0], 0.175 * shape[1] ** 0.5, 0.04 * shape[2] ** 0.5
    left, top = x - (thick + depth) / 2, y - (side - depth) / 2
    right, bottom = left + thick, top + side
    faces = {
        "#ffffff": [(left, top), (left + depth, top - depth), (right + depth, top - depth), (right, top)],
        "#888888": [(right, top), (right + depth, top - depth), (right + depth, bottom - depth), (right, bottom)],
        color: [(left, top), (right, top), (right, bottom), (left, bottom)],
    }
    for light, corners in faces.items():
        axes.add_patch(Polygon(corners, facecolor=color, edgecolor="#666666", linewidth=0.7))
        axes.add_patch(Polygon(corners, facecolor=light, alpha=0.35, linewidth=0))
    return left, right + depth


def bars(axes: Axes, bottom: float, what: str, counts: list[int]) -> None:
    """A bar for each layer that has such costs, and their sum."""
    axes.text(0.15, bottom - 1.9, what, va="center", fontsize=9, weight="bold")
    axes.text(0.15, bottom - 1.4, f"Σ {short(sum(counts))}", va="center", fontsize=9)
    axes.plot([0.15, 0.15 + STEP * len(counts)], [bottom, bottom], color="#666666", linewidth=0.7)
    for i, count in enumerate(counts):
        if count:
            x, height = 0.15 + STEP * (i + 0.5), 1.9 * count / max(counts)
            axes.add_patch(Rectangle((x - 0.4, bottom - height), 0.8, height, facecolor=INK[what]))
            axes.text(x, bottom - height - 0.25, short(count), ha="center", va="center", fontsize=8)


def network(name: str) -> Figure:
    """Boxes for the maps, one above the other if groups divide them, then windows and costs, layer by layer."""
    layers = layers_of(name)
    towers = max(layer.groups for layer in layers)
    middle, distance = (2.7, 0.0) if towers == 1 else (4.1, 1.5)  # of the boxes
    below = middle + distance + 1.3
    sheet, axes = board(0.3 + STEP * len(layers), below + 6.1)
    write = partial(axes.text, ha="center", va="center", fontsize=8)
    before: list[tuple[float, float]] = []  # where the boxes of the layer before end
    for i, layer in enumerate(layers):
        x, parts = 0.15 + STEP * (i + 0.5), towers if layer.window else 1
        write(x, 0.4, layer.name, fontsize=9, weight="bold")
        channels, *sides = map(str, layer.shape)
        for line, text in enumerate([f"{channels} ×", "×".join(sides)] if sides else [channels]):
            write(x, 1.0 + 0.45 * line, text)
        ends = []
        for part in range(parts):
            y = middle + distance * (2 * part - parts + 1)
            color = (BLUE, GREEN)[part] if layer.window else GREY if layer.module else YELLOW
            left, right = slab(axes, x, y, (layer.shape[0] // parts, *layer.shape[1:]), color)
            ends.append((right, y))
            apart = len(before) == parts and (layer.groups == parts or layer.name.startswith("pool"))
            for end in before[part : part + 1] if apart else before:
                arrow(axes, end, (left, y))
        before = ends
        if layer.window:
            size, stride, _ = layer.window
            write(x, below, f"{size}×{size}" + (f" / {stride}" if stride > 1 else ""))
    for row, what in enumerate(INK):
        bars(axes, below + 3.1 + 2.8 * row, what, [layer.costs.get(what, 0) for layer in layers])
    return sheet


figure("alexnet-2012")(partial(network, "alexnet-2012"))
figure("cifar-bn")(partial(network, "cifar-bn"))


def fields(layers: list[Layer], unit: int) -> list[tuple[int, int]]:
    """(first, size) for each layer: the rows, or columns, of its input on which a unit of the last layer's output depends.

    They may be in the padding, so first may be negative.
    """
    first, size, found = unit, 1, []
    for layer in reversed(layers):
        kernel, stride, padding = layer.window
        first, size = first * stride - padding, (size - 1) * stride + kernel
        found.append((first, size))
    return found[::-1]


@figure("receptive-field")
def receptive_field() -> Figure:
    """The receptive fields of the units in the middle and in the corner of conv5, in each layer's maps and in the image."""
    layers = layers_of("alexnet-2012")
    layers = layers[: [layer.name for layer in layers].index("conv5") + 1]
    unit = layers[-1].shape[1] // 2
    sheet, axes = board(19.86, 6.4)
    write = partial(axes.text, ha="center", va="center", fontsize=8)
    x = 0.3
    for seen, corner, layer in zip([*fields(layers[1:], unit), (unit, 1)], [*fields(layers[1:], 0), (0, 1)], layers, strict=True):
        side, width = layer.shape[1], 4.6 if layer.module is None else 1.7
        cell, y = width / side, 3.5 - width / 2
        axes.add_patch(Rectangle((x, y), width, width, facecolor=YELLOW if layer.module is None else BLUE, edgecolor="#666666"))
        for (first, size), color in ((corner, RED), (seen, GREEN)):
            start, stop = max(first, 0), min(first + size, side)
            place = x + start * cell, y + start * cell
            axes.add_patch(Rectangle(place, (stop - start) * cell, (stop - start) * cell, facecolor=color, edgecolor="#555555"))
        write(x + width / 2, y - 0.8, layer.name, fontsize=9, weight="bold")
        write(x + width / 2, y - 0.3, f"{side}×{side}")
        write(x + width / 2, y + width + 0.3, f"{seen[1]}×{seen[1]}")
        x += width + 0.4
    return sheet
