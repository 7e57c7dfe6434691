"""The kernels: the array computations behind the forward and backward of functions, in three versions with the same names.

reference is plain NumPy, to read and to debug; numpy_kernels and cupy_kernels are fast. They take and return arrays of shape
(N, C, H, W); the memory layout is chosen inside. The array's library selects the fast version, and
`use_kernels("reference")` selects the plain one.
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
    """Compute with the plain kernels inside `with use_kernels("reference"):`, or with the fast ones, "fast".

    Outside, the environment variable MINIDL_KERNELS selects the version; the default is "fast". A backward uses the version
    of its forward.
    """
    if version not in VERSIONS:
        raise ValueError(f"use_kernels takes one of {', '.join(VERSIONS)}; got {version!r}")
    token = _version.set(version)
    try:
        yield
    finally:
        _version.reset(token)


def kernels_for(array: Array) -> ModuleType:
    """The kernels for this array's library."""
    version = _version.get() or os.environ.get("MINIDL_KERNELS", "fast")
    if version not in VERSIONS:
        raise UserError(f"MINIDL_KERNELS={version}: give one of {', '.join(VERSIONS)}")
    on_host = isinstance(array, np.ndarray)
    if version == "reference":
        if not on_host:
            raise UserError("the reference kernels compute on NumPy arrays; use the numpy back end")
        return reference
    if on_host:
        return numpy_kernels
    from . import cupy_kernels

    return cupy_kernels
