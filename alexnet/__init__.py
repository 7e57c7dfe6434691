"""AlexNet, built on minidl: the networks, the data sets, and their training."""

from .models import create

__all__ = ["create"]
