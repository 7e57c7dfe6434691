"""Batches of images for training and evaluation. On the host, with NumPy."""

from .loader import Batch, DataLoader
from .transforms import Compose, Normalize, Transform

__all__ = ["Batch", "Compose", "DataLoader", "Normalize", "Transform"]
