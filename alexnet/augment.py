"""Augmentation: the paper's translations and reflections (section 4.1), on images (N, C, H, W) of any dtype.

What an image gets depends on (seed, epoch, its index in the data set) alone, not on the batch it comes in.
"""

import numpy as np

from minidl import random


class RandomCrop:
    """Pad with zeros on all four sides, and cut the old size out at a random place."""

    def __init__(self, padding: int, seed: int = 0):
        self.padding, self.seed = padding, seed

    def __call__(self, images, indices, epoch):
        p = self.padding
        _, _, H, W = images.shape
        padded = np.pad(images, ((0, 0), (0, 0), (p, p), (p, p)))
        top, left = random.words(2, random.AUGMENTATION, indices, epoch, self.seed) % np.uint64(2 * p + 1)
        rows = top.astype(np.intp)[:, None] + np.arange(H)
        columns = left.astype(np.intp)[:, None] + np.arange(W)
        image = np.arange(len(images))[:, None, None]
        return padded.transpose(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)


class RandomHorizontalFlip:
    """Reflect every other image, left to right."""

    def __init__(self, seed: int = 0):
        self.seed = seed

    def __call__(self, images, indices, epoch):
        reflect = random.words(1, random.AUGMENTATION + 1, indices, epoch, self.seed)[0] & np.uint64(1)
        return np.where(reflect.astype(bool)[:, None, None, None], images[..., ::-1], images)
