"""The figures of docs/backprop/, one for each function or layer."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import minidl.functional as F
from minidl import Tensor, nn, random
from minidl.kernels.columns import im2col
from minidl.optim import SGD

from .sheet import BLUE, GREEN, GREY, RED, YELLOW, arrow, board, box, figure, matrix, sign


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
    for axes, momentum, lr in zip(sheet.subplots(1, 2, sharey=True), (0.0, 0.8), (0.07, 0.03), strict=True):
        w = nn.Parameter(np.array([-10.0, 1.2]))
        optimizer, path = SGD([w], lr=lr, momentum=momentum), [w.data.copy()]
        for _ in range(25):
            optimizer.zero_grad()
            (w * w * Tensor(curvature)).sum().backward(0.5)
            optimizer.step()
            path.append(w.data.copy())
        axes.contour(w1, w2, 0.5 * (curvature[0] * w1**2 + curvature[1] * w2**2), levels=12, colors="#c8c8c8", linewidths=0.7)
        axes.plot(*np.array(path).T, ".-", color="#1a4f8b", linewidth=1)
        axes.plot(0, 0, "*", color="#a8321c", markersize=10)
        axes.set(title=f"momentum = {momentum:g}, lr = {lr:g}: {len(path) - 1} steps", xlabel="$w_1$")
    sheet.axes[0].set_ylabel("$w_2$")
    return sheet


@figure("convolution")
def convolution():
    x = np.array([[1, 2, 0], [0, 1, 3], [2, 1, 0]], np.float32)
    W = np.array([[1, 0], [-1, 2]], np.float32)
    P = im2col(x[None, :, :, None], (2, 2), (1, 1), (0, 2, 0, 2)).copy()
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
    sheet, axes = board(22.3, 6.5)
    matrix(axes, 0.7, 1.2, values, "x (H, W)", light.repeat(2, axis=0).repeat(2, axis=1))
    arrow(axes, (5.1, 3.2), (6.5, 3.2))
    matrix(axes, 6.9, 2.2, F.max_pool2d(x, 2).data[0, 0], "2 / 2", light)
    matrix(axes, 11.7, 1.2, values, "x (H, W)", "white")
    inside = Rectangle((11.7, 1.2), 4, 4, transform=axes.transData)
    for (i, j), color in np.ndenumerate(strong):  # dashed where the window extends beyond the map
        inset = 0.07 + 0.05 * i + 0.05 * j
        corner, size = (11.7 + 2 * j + inset, 1.2 + 2 * i + inset), 3 - 2 * inset
        for style, clip in (((0, (2, 2)), None), ("-", inside)):
            window = Rectangle(corner, size, size, facecolor="none", edgecolor=color, linewidth=1.8, linestyle=style)
            axes.add_patch(window).set_clip_path(clip)
    arrow(axes, (16.9, 3.2), (18.3, 3.2))
    matrix(axes, 18.7, 2.2, F.max_pool2d(x, 3, 2, ceil_mode=True).data[0, 0], "3 / 2", "white", strong)
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
    """The Hermann grid before and after local response normalisation with neighbours in space instead of channels."""
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
