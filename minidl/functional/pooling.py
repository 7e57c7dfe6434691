"""Pooling: each window of a channel is replaced by its maximum or its mean."""

from typing import Any

from ..autodiff import Function, Tensor
from ..kernels import kernels_for
from ..kernels.windows import output_size
from ..partition import ceil_div
from .arguments import floating, is_integer, pair, require_only, require_pixels


class MaxPool2d(Function):
    """y[n, c, h, w] = max over i, j of x[n, c, h s + i, w s + j]

    The gradient of a window goes to its maximum (to the first of equal maxima), and the other elements get 0. If windows
    overlap (s < k), an element can be the maximum of several windows, and gets the sum of their gradients.
    """

    def __init__(self, kernel_size, stride, padding, output_size):
        self.window = kernel_size, stride, padding
        self.output_size = output_size

    def forward(self, x):
        self.shape, self.kernels = x.shape, kernels_for(x)
        y, self.argmax = self.kernels.max_pool2d(x, *self.window, self.output_size, self.needs_grad[0])
        return y

    def backward(self, grad):
        return self.kernels.max_pool2d_backward(grad, self.argmax, self.shape, *self.window)


class AvgPool2d(Function):
    """y[n, c, h, w] = 1 / m_hw  sum over i in R_h, j in C_w of x[n, c, i, j]

    R_h and C_w (windows) are the rows and columns of the window of output (h, w), and m_hw (divisors) divides their sum. An
    element gets a gradient from every window that contains it:
    dx[n, c, i, j] = sum over h, w with i in R_h and j in C_w of dy[n, c, h, w] / m_hw.
    """

    def __init__(self, windows: list[list[range]], divisors: list[list[int]]):
        self.windows, self.divisors = windows, divisors

    def forward(self, x):
        self.shape, self.kernels = x.shape, kernels_for(x)
        return self.kernels.avg_pool2d(x, self.windows, self.divisors)

    def backward(self, grad):
        return self.kernels.avg_pool2d_backward(grad, self.windows, self.divisors, self.shape)


@floating("x")
def max_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    *,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """x (N, C, H, W) -> (N, C, OH, OW), OH = (H + 2 padding - kernel_size) // stride + 1.

    kernel_size, stride, padding: an integer, or a pair for H and W. stride None is kernel_size: windows do not overlap.
    The overlapping pooling of Krizhevsky 2012, section 3.4, is kernel_size 3, stride 2. Padding is never the maximum.
    ceil_mode: round OH up instead of down, but drop a window that would start in the padding after the image.
    """
    require_only("max_pool2d", dilation=(pair(dilation, "dilation"), (1, 1)), return_indices=(return_indices, False))
    kernel_size, stride, padding, sizes = _geometry("max_pool2d", x, kernel_size, stride, padding, ceil_mode)
    around = []
    for n, k, s, p, windows in zip(x.shape[2:], kernel_size, stride, padding, sizes, strict=True):
        around.append((p, max(p, (windows - 1) * s + k - n - p)))
    return MaxPool2d(kernel_size, stride, tuple(around), sizes)(x)


@floating("x")
def avg_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """x (N, C, H, W) -> (N, C, OH, OW), the mean of each window; sizes and arguments as in max_pool2d.

    count_include_pad: count the zeros of the padding as elements. With ceil_mode a window may reach beyond the padding; that
    part is never counted. divisor_override: divide the sum by this number instead.
    """
    kernel_size, stride, padding, sizes = _geometry("avg_pool2d", x, kernel_size, stride, padding, ceil_mode)
    if divisor_override is not None and not is_integer(divisor_override, 1):
        raise ValueError(f"avg_pool2d takes a divisor_override, an integer of at least 1; got {divisor_override!r}")
    windows, counts = [], []
    for n, k, s, p, count in zip(x.shape[2:], kernel_size, stride, padding, sizes, strict=True):
        starts = [i * s - p for i in range(count)]
        windows.append([range(max(0, start), min(n, start + k)) for start in starts])
        padded = [min(n + p, start + k) - start for start in starts]
        counts.append(padded if count_include_pad else list(map(len, windows[-1])))
    divisors = [[divisor_override or rows * columns for columns in counts[1]] for rows in counts[0]]
    return AvgPool2d(windows, divisors)(x)


@floating("x")
def adaptive_avg_pool2d(x: Tensor, output_size: Any) -> Tensor:
    """x (N, C, H, W) -> (N, C, OH, OW), the mean of each window, for any H and W.

    Along an axis of size n with m outputs, window i goes from floor(i n / m) to ceil((i + 1) n / m).
    output_size: an integer, or a pair for H and W; None in the pair keeps the size of that axis.
    """
    require_pixels(x, "adaptive_avg_pool2d")
    sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(sizes) == 2:
        sizes = [n if size is None else size for n, size in zip(x.shape[2:], sizes, strict=True)]
    windows = [
        [range(i * n // size, ceil_div((i + 1) * n, size)) for i in range(size)]
        for n, size in zip(x.shape[2:], pair(sizes, "output_size"), strict=True)
    ]
    return AvgPool2d(windows, [[len(r) * len(c) for c in windows[1]] for r in windows[0]])(x)


def _geometry(function: str, x: Tensor, kernel_size, stride, padding, ceil_mode: bool):
    """kernel_size, stride and padding as pairs, and the number of windows along H and W."""
    require_pixels(x, function)
    kernel_size = pair(kernel_size, "kernel_size")
    stride = kernel_size if stride is None else pair(stride, "stride")
    padding = pair(padding, "padding", at_least=0)
    if any(2 * p > k for p, k in zip(padding, kernel_size, strict=True)):
        raise ValueError(f"{function}: padding {padding} is more than half the kernel_size {kernel_size}")
    sizes = []
    for axis, n, k, s, p in zip("HW", x.shape[2:], kernel_size, stride, padding, strict=True):
        sizes.append(output_size(n, k, s, p, ceil_mode))
        if sizes[-1] < 1:
            raise ValueError(f"{function}: the window {k} is larger than {axis} = {n} with padding {p}; x is {x.shape}")
    return kernel_size, stride, padding, tuple(sizes)
