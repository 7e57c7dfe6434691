"""The windows that convolution and pooling slide over an image: how many there are, and what is at each place in them."""

from collections.abc import Iterator

from ..backend import Array
from ..partition import ceil_div


def output_size(size: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool = False) -> int:
    """The number of windows along an axis: (size + 2 padding - kernel_size) / stride, rounded down, + 1.

    ceil_mode: rounded up, but without a last window that would start behind the image, in the padding.
    """
    span = size + 2 * padding - kernel_size
    if not ceil_mode:
        return span // stride + 1
    windows = ceil_div(span, stride) + 1
    return windows - 1 if (windows - 1) * stride >= size + padding else windows


def places(x: Array, kernel_size, stride, output_size, axis: int = 1) -> Iterator[tuple[int, int, Array]]:
    """(i, j, the view of x at place (i, j) of every window), for all places in the window; x is padded already.

    axis: that of x's rows; the columns are the next one.
    """
    (KH, KW), (SH, SW), (OH, OW) = kernel_size, stride, output_size
    for i in range(KH):
        for j in range(KW):
            rows, columns = slice(i, i + (OH - 1) * SH + 1, SH), slice(j, j + (OW - 1) * SW + 1, SW)
            yield i, j, x[(slice(None),) * axis + (rows, columns)]
