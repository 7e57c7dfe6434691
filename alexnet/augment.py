"""Augmentation on images (N, C, H, W) of any dtype: translations, reflections and colour noise (Krizhevsky 2012, section 4.1).

The augmentation of an image depends only on the seed, the epoch and its index in the data set, not on its batch.
"""

import numpy as np

from minidl import random

from .views import PaddingMode


class RandomCrop:
    """Cut `size` out at a random place, after padding on all four sides. size: a number, or height and width.

    padding_mode: as in torchvision, "constant" for zeros, "reflect" for the image's reflection without its border pixels; the
    image must then be larger than the padding.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        padding: int = 0,
        seed: int = 0,
        padding_mode: PaddingMode = "constant",
    ):
        self.size, self.padding, self.seed, self.padding_mode = size, padding, seed, padding_mode

    def __call__(self, images, indices, epoch):
        p = self.padding
        h, w = (self.size, self.size) if isinstance(self.size, int) else self.size
        N, C, H, W = images.shape
        if p:
            images = np.pad(images, ((0, 0), (0, 0), (p, p), (p, p)), self.padding_mode)
        draws = random.words(2, random.AUGMENTATION, indices, epoch, self.seed)
        top, left = draws[0] % np.uint64(H + 2 * p - h + 1), draws[1] % np.uint64(W + 2 * p - w + 1)
        crops = np.empty((N, C, h, w), images.dtype)
        for crop, image, y, x in zip(crops, images, top.tolist(), left.tolist(), strict=True):
            crop[...] = image[:, y : y + h, x : x + w]
        return crops


class RandomHorizontalFlip:
    """Reflect each image left to right with probability 1/2."""

    def __init__(self, seed: int = 0):
        self.seed = seed

    def __call__(self, images, indices, epoch):
        reflect = random.words(1, random.AUGMENTATION + 1, indices, epoch, self.seed)[0] & np.uint64(1)
        reflected = images.copy()
        for i in np.flatnonzero(reflect):
            reflected[i] = images[i, :, :, ::-1]
        return reflected


class ColorNoise:
    """Change the colour and brightness of a whole image: Krizhevsky 2012, section 4.1.

    To each pixel of a normalised image, add the sum over i of a_i vectors[i]. The a_i are normal with standard deviation `scale`,
    drawn once per image. The vectors are the principal components of RGB; the length of each is the standard deviation along it,
    the square root of its eigenvalue. (The paper has the eigenvalue itself, its code the root.) Then divide by 1 + scale, as the
    code does, so that the pixels are about as large as those of test images, which have no noise.
    """

    def __init__(self, vectors, scale: float, seed: int = 0):
        self.vectors, self.scale, self.seed = np.asarray(vectors), scale, seed

    def __call__(self, images, indices, epoch):
        draws = self.scale * random.normal(len(self.vectors), random.AUGMENTATION + 2, indices, epoch, self.seed)
        noise, factor = (self.vectors.T @ draws).astype(images.dtype), images.dtype.type(1 / (1 + self.scale))
        for channel, change in zip(images.transpose(1, 2, 3, 0), noise, strict=True):  # the order of axes in memory
            for row in channel:
                row += change
                row *= factor
        return images
