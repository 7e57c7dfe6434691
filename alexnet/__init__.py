"""AlexNet, built on minidl: the networks, the data sets, and their training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models import create

__all__ = ["create"]


def __getattr__(name: str) -> Any:
    """Import the networks at their first use: `entry` runs before NumPy is imported, which takes a while."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import models

    return getattr(models, name)
