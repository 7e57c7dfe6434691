"""Transforms from stored images to the input of a network, for one batch at a time."""

from collections.abc import Callable, Sequence

import numpy as np

from ..partition import chunks_of_bytes

BLOCK_BYTES = 256 << 10

# transform(images (N, C, H, W), their indices in the data set, epoch) -> images
Transform = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


class Compose:
    """Transforms one after the other."""

    def __init__(self, transforms: Sequence[Transform]):
        self.transforms = transforms

    def __call__(self, images, indices, epoch):
        for transform in self.transforms:
            images = transform(images, indices, epoch)
        return images


class Normalize:
    """(pixel - mean) / std for each channel: uint8 images to floating point, stored batch-last for the network.

    mean and std: (C,), in pixel units, 0 to 255.
    """

    def __init__(self, mean, std, dtype=np.float32):
        self.mean, self.std, self.dtype = np.asarray(mean), np.asarray(std), np.dtype(dtype)

    def __call__(self, images, indices, epoch):
        N, C, H, W = images.shape
        batch = np.empty((C, H, W, N), self.dtype)
        mean, factor = self.mean.astype(self.dtype), (1 / self.std).astype(self.dtype)
        for channel in range(C):
            for rows in chunks_of_bytes(H, batch[channel].nbytes, BLOCK_BYTES):  # small blocks stay in the cache
                block = batch[channel, rows]
                np.copyto(block, images[:, channel, rows].transpose(1, 2, 0))
                block -= mean[channel]
                block *= factor[channel]
        return batch.transpose(3, 0, 1, 2)
