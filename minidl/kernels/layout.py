"""The memory layout of activations, for the fast kernels.

Shapes are (N, C, H, W) to the caller, but activations are stored *batch-last*, (C, H, W, N): the batch is the axis that varies
fastest. A convolution's columns are then long contiguous runs, its product is written in place without a transpose, and
pooling and normalisation process whole rows. Kernels use only the pair `to_batch_last` and `from_batch_last`;
data.Normalize writes its images in this layout.
"""

from ..backend import Array, get_array_module


def to_batch_last(x: Array) -> Array:
    """(N, C, H, W) -> (C, H, W, N), C-contiguous, for any number of axes. A view if x is stored so already, else a copy."""
    return get_array_module(x).ascontiguousarray(x.transpose(*range(1, x.ndim), 0)) if x.ndim else x


def from_batch_last(x: Array) -> Array:
    """(C, H, W, N) -> (N, C, H, W), the inverse of `to_batch_last`; always a view."""
    return x.transpose(-1, *range(x.ndim - 1)) if x.ndim else x
