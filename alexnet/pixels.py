"""The mean, the standard deviation and the principal components of the pixels of many images."""

from collections.abc import Sequence

import numpy as np

BLOCK = 1000  # small images at a time: they stay in the cache


def moments(images: np.ndarray) -> list[int]:
    """The sums over the pixels of images (C, H, W) or (N, C, H, W) uint8: of each channel, and of the products of each two.

    They are exact integers, so the sums over a data set do not depend on the order of the images.
    """
    pixels = images.swapaxes(0, -3).reshape(images.shape[-3], -1).astype(np.float64)
    return [round(total) for total in (*pixels.sum(axis=1), *(pixels @ pixels.T).ravel())]


class Pixels:
    """Sums over the pixels of images; mean and std (C,) are in units of a pixel, 0 to 255."""

    def __init__(self, channels: int):
        self.count, self.totals = 0, [0] * (channels + channels**2)
        self.channels = channels

    @classmethod
    def of(cls, images: np.ndarray) -> "Pixels":
        """The sums over an array of images (N, C, H, W)."""
        pixels = cls(images.shape[1])
        for i in range(0, len(images), BLOCK):
            block = images[i : i + BLOCK]
            pixels.add(moments(block), block.size // block.shape[1])
        return pixels

    def add(self, totals: Sequence[int], count: int) -> None:
        """Add the moments of images; count: the number of their pixels."""
        self.totals = [a + b for a, b in zip(self.totals, totals, strict=True)]
        self.count += count

    @property
    def mean(self) -> list[float]:
        return [round(total / self.count, 4) for total in self.totals[: self.channels]]

    @property
    def std(self) -> list[float]:
        return [round(float(variance) ** 0.5, 4) for variance in np.diag(self.covariance)]

    @property
    def covariance(self) -> np.ndarray:
        """(C, C): the covariance of the channels of a pixel."""
        mean = np.array(self.totals[: self.channels]) / self.count
        products = np.array(self.totals[self.channels :]).reshape(self.channels, -1) / self.count
        return products - np.outer(mean, mean)

    @property
    def color_vectors(self) -> list[list[float]]:
        """Rows: the principal components, the largest first; the length of each is the standard deviation along it."""
        variances, components = np.linalg.eigh(self.covariance)
        rows = (components * np.sqrt(np.maximum(variances, 0))).T[::-1]
        # The sign of an eigenvector is arbitrary: make its largest component positive.
        rows = rows * np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])[:, None]
        return [[round(float(value), 4) + 0.0 for value in row] for row in rows]
