"""The fast versions: functions of arrays in the batch-last layout, without gradients. One module for each library."""

from types import ModuleType

import numpy as np

from ..backend import Array
from . import numpy_kernels


def kernels_for(array: Array) -> ModuleType:
    """The kernels that work on this array's library."""
    if isinstance(array, np.ndarray):
        return numpy_kernels
    from . import cupy_kernels

    return cupy_kernels
