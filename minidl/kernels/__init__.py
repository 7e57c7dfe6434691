"""The kernels: what the forward and backward of functions compute on arrays, in three versions with the same names.

reference (plain NumPy, as on a board, to read and to debug), numpy_kernels and cupy_kernels (fast). They take and give arrays
of shape (N, C, H, W); how these lie in memory is their own affair. The array's library chooses the version, and
`use_kernels("reference")` the plain one.
"""

import contextlib
import contextvars
import os
from collections.abc import Iterator
from types import ModuleType

import numpy as np

from ..backend import Array
from ..errors import UserError
from . import numpy_kernels, reference

VERSIONS = ("fast", "reference")

_version: contextvars.ContextVar[str | None] = contextvars.ContextVar("version", default=None)


@contextlib.contextmanager
def use_kernels(version: str) -> Iterator[None]:
    """Inside `with use_kernels("reference"):` everything is computed by the plain kernels; "fast": by the fast ones.

    Outside, $MINIDL_KERNELS says which, and "fast" if it is not set. A backward is computed as its forward was.
    """
    if version not in VERSIONS:
        raise ValueError(f"use_kernels takes one of {', '.join(VERSIONS)}; got {version!r}")
    token = _version.set(version)
    try:
        yield
    finally:
        _version.reset(token)


def kernels_for(array: Array) -> ModuleType:
    """The kernels that work on this array's library."""
    version = _version.get() or os.environ.get("MINIDL_KERNELS", "fast")
    if version not in VERSIONS:
        raise UserError(f"MINIDL_KERNELS={version}: give one of {', '.join(VERSIONS)}")
    on_host = isinstance(array, np.ndarray)
    if version == "reference":
        if not on_host:
            raise UserError("the reference kernels compute on NumPy arrays; use the numpy backend")
        return reference
    if on_host:
        return numpy_kernels
    from . import cupy_kernels

    return cupy_kernels
