"""The figures of docs/. minidl computes their numbers; their words are letters and names, so that they serve any language."""

import io
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from numpy.typing import ArrayLike

import alexnet
import minidl
import minidl.functional as F
from minidl import Tensor, nn, random
from minidl.inspection import summary
from minidl.kernels.columns import im2col
from minidl.optim import SGD
from minidl.parallel.traffic import bytes_sent

BLUE, GREEN, YELLOW, RED, GREY = "#cfe2f7", "#d5efd8", "#fff0bf", "#f9d5cd", "#e6e6e6"
FIGURES: dict[str, Callable] = {}


def figure(name: str):
    """Makes images/<name>.svg of what the function returns: a matplotlib Figure, or a pygraphviz.AGraph."""

    def register(draw):
        FIGURES[name] = draw
        return draw

    return register


def board(width: float, height: float) -> tuple[Figure, Axes]:
    """A sheet on which a unit is a cell; y grows downwards."""
    sheet = Figure(figsize=(width * 0.42, height * 0.42))
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


@figure("graph-expression")
def graph_expression():
    a, b = Tensor(2.0, requires_grad=True), Tensor(-3.0, requires_grad=True)
    L = (a * b + a**2) * 2
    return minidl.graph(L, a=a, b=b, L=L)


@figure("graph-network")
def graph_network():
    random.manual_seed(0)
    layers = {"conv": nn.Conv2d(3, 8, 3, padding=1), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2), "flatten": nn.Flatten()}
    net = nn.Sequential({**layers, "fc": nn.Linear(2048, 10)})
    images = np.random.default_rng(0).random((4, 3, 32, 32), np.float32)
    return minidl.graph(F.cross_entropy(net(Tensor(images)), np.array([3, 1, 4, 1])), net)


@figure("linear")
def linear():
    O, F, N = ("O", 4.0), ("F", 2.5), ("N", 3.2)  # the axes, and how long they are drawn
    equations = [
        [("Y", N, O, GREEN), "=", ("X", N, F, BLUE), ("$W^T$", F, O, YELLOW), "+", ("b", ("", 0.5), O, GREY)],
        [("dX", N, F, BLUE), "=", ("dY", N, O, GREEN), ("W", O, F, YELLOW)],
        [("dW", O, F, YELLOW), "=", ("$dY^T$", O, N, GREEN), ("X", N, F, BLUE)],
    ]
    sheet, axes = board(21.6, 16.5)
    for row, equation in enumerate(equations):
        x, y = 1.0, 2.6 + row * 5.4
        for part in equation:
            if isinstance(part, str):
                sign(axes, x, y, part)
                x += 1.3
            else:
                name, (down, height), (across, width), color = part
                box(axes, x, y - height / 2, width, height, name, down, across, color)
                x += width + 1.1
    return sheet


@figure("activation")
def activation():
    sheet = Figure(figsize=(8.4, 4.4), layout="constrained")
    above, below = sheet.subplots(2, 3, sharex=True, sharey="row")
    x = np.linspace(-5, 5, 201)
    for column, function in enumerate((F.relu, F.tanh, F.sigmoid)):
        t = Tensor(x, requires_grad=True)
        y = function(t)
        y.sum().backward()
        above[column].plot(x, y.data, color="#1a4f8b")
        above[column].set(title=function.__name__, ylim=(-1.2, 2.2))
        below[column].plot(x, t.grad, color="#a8321c")
        below[column].set(xlabel="x", ylim=(-0.1, 1.15))
    above[0].set_ylabel("y")
    below[0].set_ylabel("dy/dx")
    for axes in (*above, *below):
        axes.grid(alpha=0.3)
        axes.axvline(0, color="#999999", linewidth=0.7)
    return sheet


@figure("cross_entropy")
def cross_entropy():
    logits, label = Tensor([[1.0, 3.0, 0.5, 2.0]], requires_grad=True), 3
    F.cross_entropy(logits, [label]).backward()
    p = F.softmax(logits).data[0]
    t = (np.arange(4) == label).astype(float)
    sheet = Figure(figsize=(9, 2.5), layout="constrained")
    for axes, values, name, color in zip(
        sheet.subplots(1, 4),
        (logits.data[0], p, t, logits.grad[0]),
        ("x", "p = softmax(x)", "t", "dx = p - t"),
        ("#5b8fc9", "#5fae6b", "#d9b740", "#c9614c"),
        strict=True,
    ):
        bars = axes.bar(range(4), values, color=color)
        axes.bar_label(bars, [f"{value:.2f}" for value in values], fontsize=8, padding=2)
        axes.set(title=name, xlabel="c", xticks=range(4))
        axes.margins(y=0.2)
        axes.axhline(0, color="#666666", linewidth=0.7)
    return sheet


@figure("optimiser")
def optimiser():
    curvature = np.array([1.0, 24.0])
    sheet = Figure(figsize=(8.4, 2.9), layout="constrained")
    w1, w2 = np.meshgrid(np.linspace(-11, 4, 151), np.linspace(-1.6, 1.6, 81))
    for axes, momentum in zip(sheet.subplots(1, 2, sharey=True), (0.0, 0.8), strict=True):
        w = nn.Parameter(np.array([-10.0, 1.2]))
        optimizer, path = SGD([w], lr=0.075 if momentum == 0 else 0.03, momentum=momentum), [w.data.copy()]
        for _ in range(25):
            optimizer.zero_grad()
            (w * w * Tensor(curvature)).sum().backward(0.5)
            optimizer.step()
            path.append(w.data.copy())
        axes.contour(w1, w2, 0.5 * (curvature[0] * w1**2 + curvature[1] * w2**2), levels=12, colors="#c8c8c8", linewidths=0.7)
        axes.plot(*np.array(path).T, ".-", color="#1a4f8b", linewidth=1)
        axes.plot(0, 0, "*", color="#a8321c", markersize=10)
        axes.set(title=f"m = {momentum:g}, lr = {optimizer.param_groups[0]['lr']:g}: {len(path) - 1} steps", xlabel="$w_1$")
    sheet.axes[0].set_ylabel("$w_2$")
    return sheet


@figure("convolution")
def convolution():
    x = np.array([[1, 2, 0], [0, 1, 3], [2, 1, 0]], np.float32)
    W = np.array([[1, 0], [-1, 2]], np.float32)
    P = im2col(x[None, None, :, :, None], (2, 2), (1, 1), (0, 2, 0, 2)).copy()
    first_patch, first_column = np.full((3, 3), BLUE), np.full((4, 4), BLUE)
    first_patch[:2, :2] = first_column[:, 0] = YELLOW
    sheet, axes = board(27, 7.2)
    matrix(axes, 0.7, 2, x, "x (H, W)", first_patch)
    arrow(axes, (4.0, 3.5), (5.6, 3.5))
    axes.text(4.8, 3.2, "im2col", ha="center", va="bottom", fontsize=9)
    matrix(axes, 9.2, 1.5, P, "P (C KH KW, OH OW N)", first_column)
    small = {"fontsize": 8, "color": "#444444"}
    axes.text(9.0, 5.65, "h, w =", ha="right", va="top", **small)
    for k in range(4):
        axes.text(9.0, 2.02 + k, f"i, j = {k // 2}, {k % 2}", ha="right", va="center", **small)
        axes.text(9.7 + k, 5.65, f"{k // 2}, {k % 2}", ha="center", va="top", **small)
    matrix(axes, 15.2, 3, W.reshape(1, 4), "W (O, C KH KW)", GREY)
    sign(axes, 20.2, 3.5, "P  =")
    matrix(axes, 21.7, 3, W.reshape(1, 4) @ P, "Y (O, OH OW N)", GREEN)
    return sheet


@figure("pooling")
def pooling():
    values = np.array([[1.0, 4, 2, 9], [3, 2, 7, 5], [5, 1, 6, 0], [0, 3, 2, 4]])
    light, strong = np.array([[BLUE, YELLOW], [GREEN, RED]]), np.array([["#3a74b8", "#c79a12"], ["#3f9a4e", "#c5442b"]])
    x = Tensor(values[None, None])
    sheet, axes = board(21.5, 6)
    matrix(axes, 0.7, 1.2, values, "x (H, W)", light.repeat(2, axis=0).repeat(2, axis=1))
    arrow(axes, (5.1, 3.2), (6.5, 3.2))
    matrix(axes, 6.9, 2.2, F.max_pool2d(x, 2).data[0, 0], "2 / 2", light)
    matrix(axes, 11.7, 1.2, values, "x (H, W)", "white")
    for (i, j), color in np.ndenumerate(strong):  # the second window of each axis hangs over the map, which cuts it to 2
        inset = 0.07 + 0.05 * i + 0.05 * j
        size = 3 - j - 2 * inset, 3 - i - 2 * inset
        corner = 11.7 + 2 * j + inset, 1.2 + 2 * i + inset
        axes.add_patch(Rectangle(corner, *size, facecolor="none", edgecolor=color, linewidth=1.8))
    arrow(axes, (16.1, 3.2), (17.5, 3.2))
    matrix(axes, 17.9, 2.2, F.max_pool2d(x, 3, 2, ceil_mode=True).data[0, 0], "3 / 2", "white", strong)
    return sheet


@figure("dropout")
def dropout():
    x = np.arange(1.0, 25).reshape(4, 6)
    with random.context(seed=0, step=0):
        y = F.dropout(Tensor(x), 0.5, key=3).data
    mask = y / x
    sheet, axes = board(24.5, 6)
    matrix(axes, 0.7, 1.3, x, "x (N, F)")
    sign(axes, 7.6, 3.3, "·")
    matrix(axes, 8.5, 1.3, mask, "m,  p = .5", np.where(mask == 0, GREY, YELLOW))
    sign(axes, 15.4, 3.3, "=")
    matrix(axes, 16.3, 1.3, y, "y", np.where(mask == 0, GREY, GREEN))
    return sheet


@figure("batch_norm")
def batch_norm():
    x = np.array([[0.0, 0, 4, 4, 2, 2], [10, 20, 20, 30, 10, 30]])
    gamma, beta = np.array([3.0, 1.0]), np.array([1.0, 0.0])
    y = F.batch_norm(Tensor(x.T), weight=Tensor(gamma), bias=Tensor(beta), training=True, eps=0.0).data.T
    mean, std = x.mean(axis=1, keepdims=True), x.std(axis=1, keepdims=True)
    sheet, axes = board(28, 4.6)
    matrix(axes, 1.2, 1.4, x, "x  (C, N H W)")
    matrix(axes, 8.3, 1.4, mean.round(2), "mean", GREY)
    matrix(axes, 10.1, 1.4, std.round(2), "s", GREY)
    arrow(axes, (11.4, 2.4), (12.6, 2.4))
    matrix(axes, 12.9, 1.4, ((x - mean) / std).round(2), "xhat", YELLOW)
    arrow(axes, (19.2, 2.4), (20.6, 2.4))
    axes.text(19.9, 3.3, "$\\gamma$ = 3, 1\n$\\beta$ = 1, 0", ha="center", va="top", fontsize=8)
    matrix(axes, 21.2, 1.4, y.round(2), "y", GREEN)
    return sheet


@figure("lateral-inhibition")
def lateral_inhibition():
    """The Hermann grid, and what the formula of local response normalisation makes of it with neighbours in space."""
    square, street, squares = 40, 12, 4
    size = squares * square + (squares + 1) * street
    image = np.ones((size, size))
    for i, j in np.ndindex(squares, squares):
        top, left = (street + n * (square + street) for n in (i, j))
        image[top : top + square, left : left + square] = 0
    around = F.avg_pool2d(Tensor(image[None, None] ** 2), 2 * street + 1, 1, street, count_include_pad=False).data[0, 0]
    response = image / (0.05 + around) ** 0.75
    sheet = Figure(figsize=(7, 3.4), layout="constrained")
    for axes, picture, name in zip(sheet.subplots(1, 2), (image, response), ("x", "x / (k + mean $x^2)^β$"), strict=True):
        margin = street // 2
        axes.imshow(picture[margin:-margin, margin:-margin], cmap="gray", interpolation="nearest", vmin=0)
        axes.set_title(name)
        axes.set_axis_off()
    return sheet


@figure("lrn")
def lrn():
    sheet = Figure(figsize=(8.4, 2.6), layout="constrained")
    for axes, middle in zip(sheet.subplots(1, 3, sharey=True), (1.0, 2.0, 4.0), strict=True):
        x = np.ones(9)
        x[4] = middle
        y = F.local_response_norm(Tensor(x.reshape(1, 9, 1, 1)), size=5, alpha=1.0, beta=0.75, k=1.0).data.ravel()
        axes.bar(range(9), x, color=GREY, edgecolor="#aaaaaa", label="x")
        axes.bar(range(9), y, color=["#5b8fc9" if c != 4 else "#c9614c" for c in range(9)], width=0.5, label="y")
        axes.set(xlabel="c", xticks=range(9), title=f"x[4] = {middle:g},  y[3] = {y[3]:.2f}")
    sheet.axes[0].legend(fontsize=8)
    return sheet


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
ACTIVATIONS, SUMS = "#1f4e9c", "#c0392b"  # what travels between ranks
READ_BOTH = ("conv3", "fc6", "fc7", "fc8")  # the layers that read both halves of the one before, in towers


@cache
def paper_layers() -> dict[str, tuple[int, ...]]:
    """The layers of alexnet-2012 that convolve, pool or multiply, and the shape of what each makes of an image."""
    rows = summary(alexnet.create("alexnet-2012"), (3, 224, 224))
    return {row.name: row.output_shape for row in rows if row.name.startswith(("conv", "pool", "fc"))}


def travel(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, style: str = "-|>") -> None:
    """An arrow from one rank to another."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=9, color=color, shrinkA=1, shrinkB=1))


def part(way: str, name: str, rank: int) -> tuple[float, float]:
    """From where to where one of two ranks has a layer, if all of it goes from 0 to 1."""
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
    """What two ranks work on, images x outputs, from the images at the bottom to the loss, and what travels between them."""
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
    """The paper's figure 2: what each half of a layer makes of an image, and the bytes of it that the other rank reads."""
    kernels = {"conv1": 11, "conv2": 5, "conv3": 3, "conv4": 3, "conv5": 3}
    gap, middles = 1.5, (3.7, 8.5)
    sheet, axes = board(24.8, 12.2)
    for rank, y in enumerate((0.4, 11.8)):
        axes.text(0.2, y, f"rank {rank}", va="center", fontsize=10, weight="bold")
    x, before, values = 1.0, 0.0, 0  # where the layer begins; the height of the one before, and how many numbers it makes
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


def svg(name: str) -> str:
    """The figure as SVG text, without the date."""
    drawing = FIGURES[name]()
    if not isinstance(drawing, Figure):
        return drawing.draw(format="svg").decode()
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "minidl", "svg.fonttype": "none"}):
        drawing.savefig(text, format="svg", metadata={"Date": None}, facecolor="white")
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"
