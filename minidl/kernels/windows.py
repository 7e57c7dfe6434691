"""The windows that convolution and pooling slide over an image: their number, and views of their elements."""

from collections.abc import Iterator

from ..backend import Array
from ..partition import ceil_div


def output_size(size: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool = False) -> int:
    """The number of windows along an axis: (size + 2 padding - kernel_size) / stride, rounded down, + 1.

    ceil_mode: rounded up, but without a last window that would start in the padding after the image.
    """
    span = size + 2 * padding - kernel_size
    if not ceil_mode:
        return span // stride + 1
    windows = ceil_div(span, stride) + 1
    return windows - 1 if (windows - 1) * stride >= size + padding else windows


def views(phases: Array, kernel_size, stride, size) -> Iterator[tuple[int, int, Array]]:
    """reference.places for an image (C, H, W, N) that is padded already: (i, j, a view of element (i, j) of every window).

    phases: the image as numpy_kernels._phases returns it, (P, C, H, W / P, N), for P = 1 or P = the stride. With the stride, the
    elements (i, j) of neighbouring windows are contiguous.
    """
    (KH, KW), (SH, SW), (OH, OW), P = kernel_size, stride, size, len(phases)
    for i in range(KH):
        for j in range(KW):
            columns = slice(j // P, j // P + (OW - 1) * (SW // P) + 1, SW // P)
            yield i, j, phases[j % P][:, i : i + (OH - 1) * SH + 1 : SH, columns]
