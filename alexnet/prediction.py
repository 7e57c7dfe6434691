"""Predict the classes of images."""

import dataclasses
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from minidl import Tensor, no_grad
from minidl import functional as F
from minidl.backend import device_of, to_device, to_numpy
from minidl.data import Normalize
from minidl.errors import NotFiniteError, UserError
from minidl.files import read_regular

from .image_files import ImageError, images_below, read_image
from .training import average
from .views import Views
from .weights import Weights

MOST_CLASSES_BYTES = 1 << 26  # of a file with the names of the classes


@dataclasses.dataclass
class Prediction:
    """A file, its image (C, H, W) uint8, resized but before the centre is cut out, and the probability of each class."""

    file: str
    image: np.ndarray
    probabilities: np.ndarray

    def top(self, classes: Sequence[str], count: int) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(classes[i], float(self.probabilities[i])) for i in order]


def find_files(names: Sequence[str]) -> list[str]:
    """The files for each name: a folder's images, those that match a pattern such as *.jpg, or the file itself.

    Raises UserError for a folder or a pattern without images.
    """
    files: list[str] = []
    for name in names:
        if os.path.isdir(name):
            try:
                found = [os.path.join(name, image) for image in images_below(name)]
            except OSError as error:
                raise UserError(f"{error.filename or name}: {error.strerror or error}") from None
        elif not os.path.lexists(name) and glob.has_magic(name):
            found = sorted(glob.glob(name, recursive=True))
        else:
            found = [name]
        if not found:
            raise UserError(f"{name}: there are no images")
        files += found
    return files


def prepare(weights: Weights, images: np.ndarray, views: int = 1) -> np.ndarray:
    """The network's inputs (views N, C, H, W) for images (N, C, side, side) uint8, prepared as in training."""
    preparation = weights.preparation
    dtype = next(weights.network.parameters()).dtype
    cut = Views(preparation.image_size, views, weights.padding, weights.reflection, weights.padding_mode)(images, None, 0)
    return Normalize(preparation.mean, preparation.std, dtype)(cut, None, 0)


def predict(
    weights: Weights, files: Sequence[str], views: int = 1, batch_size: int = 32
) -> Iterator[Prediction | tuple[str, ImageError]]:
    """For each file in order its prediction, or the error if it cannot be read. views: number averaged for each image.

    Raises NotFiniteError if the probabilities for a file are NaN.
    """
    preparation = weights.preparation
    device = device_of(next(weights.network.parameters()).data)
    for start in range(0, len(files), batch_size):
        batch: list[tuple[str, np.ndarray | ImageError]] = []
        for file in files[start : start + batch_size]:
            try:
                batch.append((file, read_image(file, preparation.resize, preparation.channels, preparation.draft)))
            except ImageError as error:
                batch.append((file, error))
        images = [image for _, image in batch if isinstance(image, np.ndarray)]
        probabilities = iter(())
        if images:
            with no_grad():
                logits = weights.network(Tensor(to_device(prepare(weights, np.stack(images), views), device)))
                probabilities = iter(to_numpy(F.softmax(average(logits, len(images))).data))
        for file, image in batch:
            if not isinstance(image, np.ndarray):
                yield file, image
                continue
            of_classes = next(probabilities)
            if not np.isfinite(of_classes).all():
                raise NotFiniteError(f"the probabilities for {file} are NaN: the network's weights are damaged")
            yield Prediction(file, image, of_classes)


def read_classes(path: Path, count: int) -> list[str]:
    """Names of classes, one per line. Raises UserError if their number is not that of the network's classes."""
    try:
        names = read_regular(path, MOST_CLASSES_BYTES).decode().splitlines()
    except (OSError, UnicodeError) as error:
        raise UserError(f"--classes {path}: {getattr(error, 'strerror', None) or 'it is not text in UTF-8'}") from None
    names = [name.strip() for name in names if name.strip()]
    if len(names) != count:
        raise UserError(f"--classes {path}: it has {len(names)} lines, but the network has {count} classes")
    return names
