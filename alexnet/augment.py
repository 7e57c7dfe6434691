"""Augmentation: the paper's translations and reflections (section 4.1), on images (N, C, H, W) of any dtype.

What an image gets depends on (seed, epoch, its index in the data set) alone, not on the batch it comes in.
"""

import numpy as np

from minidl import random

from .views import PaddingMode


class RandomCrop:
    """Cut `size` out at a random place, after padding on all four sides. size: a number, or height and width.

    padding_mode: as torchvision's, "constant" for zeros, "reflect" for the image's reflection without its border pixels, which
    is larger than the padding.
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
    """Reflect every other image, left to right."""

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

    To each pixel of normalised images, add the sum over i of a_i vectors[i], with a_i from N(0, scale) drawn once an image. The
    vectors are the principal components of RGB, as long as the standard deviation along each: the square root of the
    eigenvalue. The paper prints the eigenvalue, and its code has the root. Then divide by 1 + scale, as its code does, so that
    images are about as large as test images, which have no noise.
    """

    def __init__(self, vectors, scale: float, seed: int = 0):
        self.vectors, self.scale, self.seed = np.asarray(vectors), scale, seed

    def __call__(self, images, indices, epoch):
        draws = self.scale * random.normal(len(self.vectors), random.AUGMENTATION + 2, indices, epoch, self.seed)
        noise, factor = (self.vectors.T @ draws).astype(images.dtype), images.dtype.type(1 / (1 + self.scale))
        for channel, change in zip(images.transpose(1, 2, 3, 0), noise, strict=True):  # batch-last, as they lie in memory
            for row in channel:
                row += change
                row *= factor
        return images
