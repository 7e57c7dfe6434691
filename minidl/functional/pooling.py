"""Pooling."""

from ..autodiff import Function, Tensor
from ..backend import from_batch_last, to_batch_last
from ..kernels import kernels_for
from .arguments import pair, require_4d


class MaxPool2d(Function):
    """y[n, c, h, w] = max over i, j of x[n, c, h s + i, w s + j]

    The gradient of a maximum goes to the element that was it (to the first of equals), the others get none. Where windows
    overlap (s < k) an element can be the maximum of several, and gets the sum.
    """

    def __init__(self, kernel_size, stride, padding, output_size):
        self.window = kernel_size, stride, padding
        self.output_size = output_size

    def forward(self, x):
        self.shape = to_batch_last(x).shape
        y, self.argmax = kernels_for(x).max_pool2d(
            to_batch_last(x), *self.window, self.output_size, with_argmax=self.needs_grad[0]
        )
        return from_batch_last(y)

    def backward(self, grad):
        kernels = kernels_for(grad)
        return from_batch_last(kernels.max_pool2d_gradient(to_batch_last(grad), self.argmax, self.shape, *self.window))


def max_pool2d(x: Tensor, kernel_size, stride=None, padding=0, ceil_mode: bool = False) -> Tensor:
    """x (N, C, H, W) -> (N, C, OH, OW), OH = (H + 2 padding - kernel_size) // stride + 1.

    kernel_size, stride, padding: an integer, or a pair for H and W. stride None: kernel_size, windows that do not overlap;
    the paper's overlapping pooling is kernel_size 3, stride 2 (section 3.4). What is padded is never the maximum.
    ceil_mode: round OH up instead of down, but drop a window that would start in the padding behind the image.
    """
    require_4d(x, "max_pool2d")
    kernel_size = pair(kernel_size, "kernel_size")
    stride = kernel_size if stride is None else pair(stride, "stride")
    padding = pair(padding, "padding", at_least=0)
    if any(2 * p > k for p, k in zip(padding, kernel_size, strict=True)):
        raise ValueError(f"max_pool2d: padding {padding} is more than half the kernel_size {kernel_size}")
    sizes, around = [], []
    for axis, n, k, s, p in zip("HW", x.shape[2:], kernel_size, stride, padding, strict=True):
        if n + 2 * p < k:
            raise ValueError(f"max_pool2d: the window {k} is larger than {axis} = {n} with padding {p}; x is {x.shape}")
        windows = (n + 2 * p - k + (s - 1 if ceil_mode else 0)) // s + 1
        if (windows - 1) * s >= n + p:
            windows -= 1
        sizes.append(windows)
        around.append((p, max(p, (windows - 1) * s + k - n - p) if ceil_mode or p else 0))
    return MaxPool2d(kernel_size, stride, tuple(around), tuple(sizes))(x)
