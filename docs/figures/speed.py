"""The figures of speed.md: the layout in memory, and Winograd's tiles."""

from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import minidl.functional as F
from minidl import Tensor
from minidl.kernels.columns import im2col
from minidl.kernels.layout import to_batch_last
from minidl.kernels.winograd import cook_toom

from .sheet import BLUE, GREEN, GREY, YELLOW, arrow, board, figure, matrix, sign


@figure("batch-last")
def batch_last() -> Figure:
    """Two images of two channels, 2 x 3, and their order in memory in both layouts. The elements of a row of P have a frame."""
    numbers = np.arange(24).reshape(2, 2, 2, 3)  # (N, C, H, W)
    row = im2col(to_batch_last(numbers), (2, 2), (1, 1), (0, 1, 0, 2)).copy()[0]
    size = 0.78
    sheet, axes = board(19.86, 9.7)

    def cells(x: float, y: float, elements) -> None:
        for i, element in enumerate(elements):
            n, *place = map(int, np.unravel_index(element, numbers.shape))
            axes.add_patch(
                Rectangle((x + size * i, y), size, size, facecolor=(BLUE, GREEN)[n], edgecolor="#888888", linewidth=0.7)
            )
            axes.text(x + size * (i + 0.5), y + size * 0.53, "".join(map(str, place)), ha="center", va="center", fontsize=8)
        for framed, run in groupby(range(len(elements)), key=lambda i: elements[i] in row):
            first, *others = run
            if framed:
                frame = Rectangle((x + size * first, y), size * (1 + len(others)), size, fill=False)
                axes.add_patch(frame).set(edgecolor="#a8321c", linewidth=2.2)

    for n, image in enumerate(numbers):
        for c, channel in enumerate(image):
            x = 3.3 + 7.4 * n + 3.1 * c
            axes.text(x + 1.5 * size, 0.7, f"n = {n}, c = {c}", ha="center", va="center", fontsize=9)
            for h, elements in enumerate(channel):
                cells(x, 1.1 + size * h, elements)
    for y, order, elements in ((3.9, "N, C, H, W", numbers), (6.2, "C, H, W, N", to_batch_last(numbers))):
        axes.text(0.57, y - 0.4, f"({order})", va="center", fontsize=9)
        cells(0.57, y, elements.ravel())
    axes.text(0.57, 8.1, "P[0]  (OH OW N)", va="center", fontsize=9)
    cells(0.57, 8.5, row)
    return sheet


@figure("winograd")
def winograd() -> Figure:
    """A convolution of 6 x 6 by 3 x 3 in four tiles of 4 x 4, and the numbers of the first."""
    rows = "131023 020231 224013 104420 313102 023141"
    x, w = np.array([[float(digit) for digit in row] for row in rows.split()]), np.array([[1.0, -1, -1], [-1, 0, 1], [-1, 1, 0]])
    _, G, B = cook_toom(m=2, r=3)
    V, U = B @ x[:4, :4] @ B.T, G @ w @ G.T
    y = F.conv2d(Tensor(x[None, None]), Tensor(w[None, None])).data[0, 0]
    first_tile, first_outputs = np.full((6, 6), BLUE), np.full((4, 4), "#ffffff")
    first_tile[:4, :4], first_outputs[:2, :2] = YELLOW, GREEN
    sheet, axes = board(27.8, 13.3, cell=0.3)
    matrix(axes, 0.6, 1.8, x, "x (H, W)", first_tile)
    outlines(axes, 0.6, 1.8, size=4)
    matrix(axes, 2.1, 9.3, w, "w", GREY)
    matrix(axes, 10.2, 1.8, tidy(V), "V = B X $B^T$", YELLOW)
    matrix(axes, 10.2, 8.3, tidy(U), "U = G w $G^T$", GREY)
    matrix(axes, 16.4, 5.0, tidy(U * V), "M", YELLOW)
    matrix(axes, 23.2, 5.0, tidy(y), "y (OH, OW)", first_outputs)
    outlines(axes, 23.2, 5.0, size=2)
    arrow(axes, (6.8, 3.8), (9.9, 3.8))
    arrow(axes, (5.3, 10.8), (9.9, 10.8))
    arrow(axes, (20.6, 7.0), (22.9, 7.0))
    axes.text(21.7, 6.6, "$A^T$ M A", ha="center", va="bottom", fontsize=9)
    sign(axes, 12.2, 6.6, "·")
    sign(axes, 15.3, 6.9, "=")
    return sheet


def tidy(values: np.ndarray) -> np.ndarray:
    """The values without rounding errors, and without -0."""
    return values.round(9) + 0.0


def outlines(axes: Axes, x: float, y: float, size: int) -> None:
    """Frames of size x size around four tiles or their outputs, each two further than the one before."""
    for (i, j), color in np.ndenumerate(np.array([["#c79a12", "#3a74b8"], ["#3f9a4e", "#c5442b"]])):
        inset = 0.05 + 0.045 * (i + 2 * j) * (size > 2)  # tiles overlap
        corner, side = (x + 2 * j + inset, y + 2 * i + inset), size - 2 * inset
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=color, linewidth=1.8))
