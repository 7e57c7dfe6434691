"""Batches of images for training and evaluation, prepared on the host by NumPy."""

from .loader import Batch, DataLoader
from .transforms import Compose, Normalize, Transform

__all__ = ["Batch", "Compose", "DataLoader", "Normalize", "Transform"]
