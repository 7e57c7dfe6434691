"""The data sets: CIFAR-10, the handwritten digits that come with the package, and folders of images."""

import contextlib
import dataclasses
import functools
import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minidl import random
from minidl.errors import UserError
from minidl.files import replacing

from . import cifar10_files
from .pixels import Pixels

if TYPE_CHECKING:
    from .image_folders import ImageFiles

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_MD5, CIFAR10_BYTES = "c58f30108f718f92721af3b95e74349a", 170_498_071
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclasses.dataclass
class Split:
    """images (N, C, H, W) uint8, labels (N,) int64."""

    images: "np.ndarray | ImageFiles"
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, indices: np.ndarray) -> "Split":
        """The images with these indices."""
        images = self.images[indices] if isinstance(self.images, np.ndarray) else self.images.chosen(indices)
        return Split(images, self.labels[indices])

    def first(self, n: int | None, option: str) -> "Split":
        """The first n images of the fixed class-balanced order; for None, all images in their own order."""
        if n is None:
            return self
        if not 1 <= n <= len(self):
            raise UserError(f"{option} {n}: give a number from 1 to {len(self)}, the number of images")
        return self.chosen(class_balanced_order(self.labels)[:n])


@dataclasses.dataclass
class Dataset:
    """Training and test images of one size."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split

    @functools.cached_property
    def pixels(self) -> Pixels:
        """The mean, standard deviation and principal components of the training images' pixels."""
        return Pixels.of(self.train.images[:])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.train.images.shape[1:]

    def hold_out(self, validation: float, seed: int) -> None:
        """Test on a part of the training images, and train on the rest. The choice depends only on the seed.

        validation: their number, or, below 1, their share of each class. Raises UserError if a class would have no images to
        train on, or none to test on.
        """
        order = class_balanced_order(self.train.labels, seed)
        counts = np.bincount(self.train.labels, minlength=len(self.classes))
        if validation < 1:
            wanted = np.maximum(1, np.round(validation * counts)).astype(np.int64)
        else:
            wanted = np.bincount(self.train.labels[order[: int(validation)]], minlength=len(self.classes))
        if (out := np.flatnonzero((wanted < 1) | (wanted >= counts))).size:
            name, count = self.classes[out[0]], counts[out[0]]
            raise UserError(
                f"--validation {validation:g} holds out all or none of class {name!r}, which has {count} images; choose another "
                "value"
            )
        of_class = self.train.labels[order]
        rank = np.empty(len(order), np.int64)  # of an image in the order, among those of its class
        for label in range(len(counts)):
            rank[of_class == label] = np.arange(counts[label])
        held_out = rank < wanted[of_class]
        self.train, self.test = self.train.chosen(np.sort(order[~held_out])), self.train.chosen(np.sort(order[held_out]))

    def close(self) -> None:
        """Release the images, and end the processes that read them, if there are any."""
        for split in (self.train, self.test):
            if not isinstance(split.images, np.ndarray):
                split.images.readers.close()
        self.train = self.test = Split(np.zeros((0, 1, 1, 1), np.uint8), np.zeros(0, np.int64))


def load(name: str, data_dir: str | None = None, *, side: int = 224, sharers: int = 1) -> Dataset:
    """A data set by the name that --data takes. Raises UserError with one line that says what to do.

    side: the images of a folder are resized to this many pixels on the shorter side, and their centre is cut out. sharers: the
    number of processes on this machine that load them, and share the memory for images.
    """
    if name == "digits":
        return digits()
    if name == "cifar10":
        return cifar10(data_dir)
    if os.path.isdir(name):
        from . import image_folders

        return image_folders.load(Path(name), side, sharers)
    raise UserError(f"--data {name}: there is no such data set and no such folder; give cifar10, digits, or a folder of images")


def class_balanced_order(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Indices in a fixed random order: in every group of as many images as there are classes, each class that has images left
    occurs once.
    """
    shuffled = random.permutation(len(labels), random.SUBSET, 0, seed)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return by_class[np.argsort(rank, kind="stable")]


# --- the UCI handwritten digits ------------------------------------------------------------------------------------


def digits() -> Dataset:
    """1,797 handwritten digits, 1,437 to train on and 360 (36 of each) to test on; shipped in the package.

    Each of their 8 x 8 pixels is repeated as 2 x 2, as three overlapping poolings need images of at least 15 x 15.
    """
    with gzip.open(Path(__file__).parent / "digits" / "digits.csv.gz") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    images = (rows[:, :64].reshape(-1, 1, 8, 8) * 15).repeat(2, axis=2).repeat(2, axis=3)
    labels = rows[:, 64].astype(np.int64)
    order = class_balanced_order(labels)
    test, train = (Split(images[part], labels[part]) for part in (order[:360], order[360:]))
    return Dataset("digits", tuple("0123456789"), train, test)


# --- CIFAR-10 ------------------------------------------------------------------------------------------------------


def cifar10(data_dir: str | None = None) -> Dataset:
    """CIFAR-10: 50,000 and 10,000 colour images of 32 x 32, in ten classes. Krizhevsky 2009.

    Only one folder is searched: data_dir, else $MINIDL_DATA, else ~/.cache/minidl. It holds the folder cifar-10-batches-py or
    the archive cifar-10-python.tar.gz; if it has neither, the archive is downloaded into it.
    """
    place = cifar10_place(data_dir)
    folder, archive = place / cifar10_files.FOLDER, place / cifar10_files.ARCHIVE
    if os.path.lexists(folder):
        train, test = cifar10_files.read_folder(folder)
    else:
        if not os.path.lexists(archive):
            _download(place)
        train, test = cifar10_files.read_archive(archive)
    return Dataset("cifar10", CIFAR10_CLASSES, Split(*train), Split(*test))


def cifar10_place(data_dir: str | None) -> Path:
    """The folder in which CIFAR-10 is searched: data_dir, else $MINIDL_DATA, else ~/.cache/minidl."""
    place = os.path.expanduser(data_dir or os.environ.get("MINIDL_DATA") or "~/.cache/minidl")
    if place.startswith("~"):
        raise UserError(f"there is no home folder for {place}; give the folder for CIFAR-10 with --data-dir or MINIDL_DATA")
    return Path(os.path.abspath(place))


def _download(place: Path) -> None:
    """Download the archive, with a progress bar on a terminal. The file is written atomically, and only if its md5 is right."""
    import pooch
    import requests
    from tqdm import tqdm

    bar = tqdm(desc="CIFAR-10", total=CIFAR10_BYTES, unit="B", unit_scale=True, disable=None, leave=False, dynamic_ncols=True)
    try:
        with bar, _folder(place), replacing(place / cifar10_files.ARCHIVE) as part:
            pooch.HTTPDownloader(progressbar=bar, timeout=30)(CIFAR10_URL, str(part), None)
            if pooch.file_hash(part, "md5") != CIFAR10_MD5:
                raise UserError(
                    f"the file from {CIFAR10_URL} is not CIFAR-10 (wrong md5); try again, or run train.py --data digits"
                )
    except (requests.RequestException, ValueError):
        raise UserError(
            f"cannot download CIFAR-10: get {CIFAR10_URL} and put it into {place}, or run train.py --data digits"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write to {place}: {error.strerror or error}; choose another place with --data-dir") from None


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    """A context in which the folder exists. If it raises, the folder and its parents are removed if they were made here."""
    made = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # in use, or not made
                folder.rmdir()
        raise
