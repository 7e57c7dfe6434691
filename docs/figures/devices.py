"""The figures of parallel.md: several devices."""

from functools import cache
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

import alexnet
from minidl.inspection import summary
from minidl.parallel.traffic import bytes_sent

from .sheet import BLUE, GREEN, GREY, RED, YELLOW, arrow, board, figure


@figure("data-parallel")
def data_parallel():
    """A step of two ranks, and the sums beside it. The gradients of the fully connected layers are ready first."""
    sheet, axes = board(27.4, 7.4)
    backward = [
        ("fc8", 0.8),
        ("fc7", 1.6),
        ("fc6", 1.6),
        ("conv5", 1.9),
        ("conv4", 2.1),
        ("conv3", 1.9),
        ("conv2", 2.6),
        ("conv1", 1.5),
    ]
    sums = [
        (2.4, 3.2, "fc8, fc7"),
        (5.7, 1.8, "fc6"),
        (8.0, 2.4, "conv5, conv4"),
        (12.5, 2.3, "conv3, conv2"),
        (14.9, 1.2, "conv1"),
    ]
    for rank, y in ((0, 0.4), (1, 5.4)):
        axes.text(0.2, y + 0.8, f"rank {rank}", va="center", fontsize=10)
        span(axes, 2.6, y, 6.0, "forward", BLUE)
        x = 8.6
        for name, width in backward:
            span(axes, x, y, width, name, GREEN)
            x += width
        span(axes, 8.6 + 16.1, y, 2.4, "update", YELLOW)
    axes.text(0.2, 3.7, "sums", va="center", fontsize=10)
    for start, width, name in sums:
        span(axes, 8.6 + start, 2.9, width, name, RED)
        for y in (2.0, 5.4):
            inward = 0.9 if y < 3 else -0.9
            arrow(axes, (8.6 + start + 0.15, y), (8.6 + start + 0.15, y + inward))
    return sheet


def span(axes: Axes, x: float, y: float, width: float, name: str, color: str) -> None:
    """A stretch of time, 1.6 high."""
    axes.add_patch(Rectangle((x, y), width, 1.6, facecolor=color, edgecolor="#666666"))
    axes.text(x + width / 2, y + 0.8, name, ha="center", va="center", fontsize=8)


WIDTH, HEIGHT = 3.0, 0.75  # of a layer in parallel-ways
ACTIVATIONS, SUMS = "#1f4e9c", "#c0392b"  # the colours of the data that ranks send each other
READ_BOTH = ("conv3", "fc6", "fc7", "fc8")  # the layers that read both halves of the one before, in towers


@cache
def paper_layers() -> dict[str, tuple[int, ...]]:
    """{name: shape of the output for one image} for the convolutions, poolings and fully connected layers of alexnet-2012."""
    rows = summary(alexnet.create("alexnet-2012"), (3, 224, 224))
    return {row.name: row.output_shape for row in rows if row.name.startswith(("conv", "pool", "fc"))}


def travel(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, style: str = "-|>") -> None:
    """An arrow from one rank to another."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=9, color=color, shrinkA=1, shrinkB=1))


def part(way: str, name: str, rank: int) -> tuple[float, float]:
    """(start, end) of the part of a layer that one of two ranks has; the whole layer goes from 0 to 1."""
    if way == "towers" and name in ("fc8", "loss"):
        return 0, 1 - rank
    halved = name.startswith("fc") if way == "hybrid" else way == "towers" and name != "images"
    return (rank / 2, (rank + 1) / 2) if halved else (0, 1)


def held(axes: Axes, x: float, y: float, start: float, end: float, colors: list[str], text: str) -> None:
    """A layer, as wide as WIDTH, of which a rank has the part from start to end; the rest is dotted."""
    axes.add_patch(Rectangle((x, y), WIDTH, HEIGHT, fill=False, edgecolor="#bbbbbb", linestyle=":"))
    if start == end:
        return
    for i, color in enumerate(colors):
        a, b = max(start, i / len(colors)), min(end, (i + 1) / len(colors))
        axes.add_patch(Rectangle((x + WIDTH * a, y), WIDTH * max(b - a, 0), HEIGHT, facecolor=color))
    axes.add_patch(Rectangle((x + WIDTH * start, y), WIDTH * (end - start), HEIGHT, fill=False, edgecolor="#666666"))
    axes.text(x + WIDTH * (start + end) / 2, y + HEIGHT / 2, text, ha="center", va="center", fontsize=8)


@figure("parallel-ways")
def parallel_ways():
    """The part of each layer that each of two ranks computes, images x outputs, and the data that they send each other."""
    outputs = {name: shape[0] for name, shape in paper_layers().items() if not name.startswith("pool")}
    names = ["images", *outputs, "loss"]
    y = {name: 14.3 - 1.36 * row for row, name in enumerate(names)}
    crossings = {"data": (), "hybrid": ("fc6", "fc7", "fc8", "loss"), "towers": READ_BOTH}
    sheet, axes = board(24.8, 16.4)
    for name in names:
        axes.text(1.6, y[name] + HEIGHT / 2, name, ha="right", va="center", fontsize=9)
    for panel, (way, crossed) in enumerate(crossings.items()):
        columns = 1.9 + 7.7 * panel, 5.8 + 7.7 * panel
        axes.text(columns[1] - 0.45, 0.6, way, ha="center", va="center", fontsize=12, weight="bold")
        for rank, x in enumerate(columns):
            axes.text(x + WIDTH / 2, 1.45, f"rank {rank}", ha="center", va="center", fontsize=9)
            for name in names:
                start, end = part(way, name, rank)
                images = "N" if way == "towers" or (way == "hybrid" and name.startswith("fc")) else "N/2"
                text = f"{images} × {outputs[name] * (end - start):.0f}" if name in outputs else images
                held(axes, x, y[name], start, end, {"images": [YELLOW], "loss": [GREY]}.get(name, [BLUE, GREEN]), text)
        for below, name in pairwise(names):
            for rank, x in enumerate(columns):
                own, upper, lower = part(way, name, rank), y[name] + HEIGHT, y[below]
                if own[0] < own[1]:
                    middle = x + WIDTH * sum(min(part(way, below, rank), own, key=lambda p: p[1] - p[0])) / 2
                    arrow(axes, (middle, lower), (middle, upper))
                    if name in crossed:
                        source = columns[1 - rank] + WIDTH * part(way, below, 1 - rank)[rank]
                        travel(axes, (source, lower), (x + WIDTH * own[1 - rank], upper), ACTIVATIONS)
            if part(way, name, 1) == (0, 1) and name in outputs:
                middle = y[name] + HEIGHT / 2
                travel(axes, (columns[0] + WIDTH, middle), (columns[1], middle), SUMS, "<|-|>")
    for x, color, style, text in (
        (3.2, ACTIVATIONS, "-|>", "activations (forward), their gradients (backward)"),
        (16.6, SUMS, "<|-|>", "sums of gradients"),
    ):
        travel(axes, (x, 15.8), (x + 1.1, 15.8), color, style)
        axes.text(x + 1.4, 15.8, text, va="center", fontsize=9)
    return sheet


@figure("towers")
def towers():
    """Krizhevsky 2012, figure 2: the output of each half of a layer for an image, and the bytes that the other rank reads."""
    kernels = {"conv1": 11, "conv2": 5, "conv3": 3, "conv4": 3, "conv5": 3}
    gap, middles = 1.5, (3.7, 8.5)
    sheet, axes = board(24.8, 12.2)
    for rank, y in enumerate((0.4, 11.8)):
        axes.text(0.2, y, f"rank {rank}", va="center", fontsize=10, weight="bold")
    x, before, values = 1.0, 0.0, 0  # the left edge of the layer; the height of the one before, and the number of its outputs
    for name, shape in {"image": (3, 224, 224), **paper_layers()}.items():
        maps = shape[0] if name in ("image", "fc8") else shape[0] // 2
        width, height = 0.1 + 0.05 * maps**0.4, 0.24 * (shape[1] if shape[1:] else 1) ** 0.5
        for rank, y in enumerate(middles[: 1 if name == "fc8" else 2]):
            color = YELLOW if name == "image" else (BLUE, GREEN)[rank]
            axes.add_patch(Rectangle((x, y - height / 2), width, height, facecolor=color, edgecolor="#666666"))
            inward = 1 - 2 * rank  # 1 if the other rank is below, -1 if above
            for distance, text, size in ((0.75, name, 9), (0.28, "×".join(map(str, (maps, *shape[1:]))), 8)):
                axes.text(x + width / 2, y - inward * (height / 2 + distance), text, ha="center", va="center", fontsize=size)
            if before:
                arrow(axes, (x - gap, y), (x, y))
            if name in kernels:
                axes.text(x - gap / 2, y - 0.3, f"{kernels[name]}×{kernels[name]}", ha="center", va="center", fontsize=8)
            if name in READ_BOTH:
                travel(axes, (x - gap, middles[1 - rank] - inward * before / 2), (x, y + inward * height / 2), ACTIVATIONS)
        if name in READ_BOTH:
            label = axes.text(x - gap / 2, sum(middles) / 2, f"{values * 4 / 1000:.1f} kB", ha="center", va="center", fontsize=8)
            label.set(color=ACTIVATIONS, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
        x, before, values = x + width + gap, height, maps * int(np.prod(shape[1:]))
    return sheet


@figure("scaling")
def scaling():
    """The model of parallel.md, for 128 images and steps of 0.1 s on each device."""
    network, step, latency, hidden = alexnet.create("alexnet-2012"), 0.1, 10e-6, 0.6
    convolutions = sum(p.data.nbytes for name, p in network.named_parameters() if name.startswith("conv"))
    networks = {"NVLink": (200e9, "-", 8), "PCIe 4.0 x16": (20e9, "--", 8), "100 Gb": (11e9, "-.", 64), "10 Gb": (1.1e9, ":", 64)}
    sheet = Figure(figsize=(8.4, 3.4), layout="constrained")
    for axes, way in zip(sheet.subplots(1, 2, sharey=True), ("data", "hybrid"), strict=True):
        for name, (bandwidth, line, most) in networks.items():
            devices = [n for n in (2, 4, 8, 16, 32, 64) if n <= most]
            speedups = []
            for n in devices:
                sent = bytes_sent(network, (3, 224, 224), way, 128 * n, n) / n
                sums = sent if way == "data" else 2 * (n - 1) / n * convolutions
                beside = sums / bandwidth + (60 if way == "data" else 4) * 2 * (n - 1) * latency
                between = (sent - sums) / bandwidth + (0 if way == "data" else 8) * (n - 1) * latency
                speedups.append(n * step / (step + max(0.0, beside - hidden * step) + between))
            axes.plot(devices, speedups, line, marker=".", label=name)
        axes.set(xscale="log", yscale="log", xlabel="n", title=way)
        axes.set_xticks(ticks := [2, 4, 8, 16, 32, 64], ticks)
        axes.set_yticks([1, *ticks], [1, *ticks])
        axes.minorticks_off()
        axes.grid(color="#dddddd")
    sheet.axes[0].set_ylabel("t(1) / t(n)")
    sheet.axes[0].legend(fontsize=8)
    return sheet
