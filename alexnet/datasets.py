"""The data sets: CIFAR-10, and the handwritten digits that come with the package."""

import contextlib
import dataclasses
import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minidl import random
from minidl.errors import UserError
from minidl.files import replacing

from . import cifar10_files

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_MD5, CIFAR10_BYTES = "c58f30108f718f92721af3b95e74349a", 170_498_071
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclasses.dataclass
class Split:
    """images (N, C, H, W) uint8, labels (N,) int64."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int | None, option: str) -> "Split":
        """The first n images of the fixed class-balanced order; all of them, as they lie, for None."""
        if n is None:
            return self
        if not 1 <= n <= len(self):
            raise UserError(f"{option} {n}: give a number from 1 to {len(self)}, the images that there are")
        chosen = class_balanced_order(self.labels)[:n]
        return Split(self.images[chosen], self.labels[chosen])


@dataclasses.dataclass
class Dataset:
    """Images to train on and images to test on, of one size; mean and std of a channel's pixels over the training images."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: list[float] = dataclasses.field(init=False)
    std: list[float] = dataclasses.field(init=False)

    def __post_init__(self):
        self.mean, self.std = [], []
        values = np.arange(256)
        for channel in self.train.images.swapaxes(0, 1):
            # A thousand images at a time stay in the cache.
            counts = sum(np.bincount(channel[i : i + 1000].ravel(), minlength=256) for i in range(0, len(channel), 1000))
            mean = np.average(values, weights=counts)
            self.mean.append(round(float(mean), 4))
            self.std.append(round(float(np.average((values - mean) ** 2, weights=counts) ** 0.5), 4))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.train.images.shape[1:]


def load(name: str, data_dir: str | None = None) -> Dataset:
    """A data set by the name that --data takes. Raises UserError with one line that says what to do."""
    if name == "digits":
        return digits()
    if name == "cifar10":
        return cifar10(data_dir)
    if os.path.isdir(name):
        raise UserError(f"--data {name}: folders of images cannot be read yet; use --data cifar10 or --data digits")
    raise UserError(f"--data {name}: no such data set; use --data cifar10 or --data digits")


def class_balanced_order(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """A fixed shuffle in which every run of as many images as there are classes has one of each, as long as they last."""
    shuffled = random.permutation(len(labels), random.SUBSET, 0, seed)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return by_class[np.argsort(rank, kind="stable")]


# --- the UCI handwritten digits ------------------------------------------------------------------------------------


def digits() -> Dataset:
    """1,797 handwritten digits, 1,437 to train on and 360 (36 of each) to test on; shipped in the package.

    Each of their 8 x 8 pixels is shown as 2 x 2, as three overlapping poolings need images of 15 x 15 at least.
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

    Only one place is searched: data_dir, else $MINIDL_DATA, else ~/.cache/minidl. It holds the folder cifar-10-batches-py or
    the archive cifar-10-python.tar.gz; if neither, the archive is downloaded there.
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
    """The one place that is searched: data_dir, else $MINIDL_DATA, else ~/.cache/minidl."""
    place = os.path.expanduser(data_dir or os.environ.get("MINIDL_DATA") or "~/.cache/minidl")
    if place.startswith("~"):
        raise UserError(f"there is no home folder for {place}; say with --data-dir or MINIDL_DATA where CIFAR-10 is to be")
    return Path(os.path.abspath(place))


def _download(place: Path) -> None:
    """Get the archive, with a progress bar on a terminal; it appears in its place whole and with the right md5, or not at all."""
    import pooch
    import requests
    from tqdm import tqdm

    bar = tqdm(desc="CIFAR-10", total=CIFAR10_BYTES, unit="B", unit_scale=True, disable=None, leave=False, dynamic_ncols=True)
    try:
        with bar, _folder(place), replacing(place / cifar10_files.ARCHIVE) as part:
            pooch.HTTPDownloader(progressbar=bar, timeout=30)(CIFAR10_URL, str(part), None)
            if pooch.file_hash(part, "md5") != CIFAR10_MD5:
                raise UserError(f"what {CIFAR10_URL} sent is not CIFAR-10 (its md5 is wrong); try again, or use --data digits")
    except (requests.RequestException, ValueError):
        raise UserError(f"cannot download CIFAR-10: get {CIFAR10_URL} and put it into {place}, or use --data digits") from None
    except OSError as error:
        raise UserError(f"cannot write to {place}: {error.strerror or error}; choose another place with --data-dir") from None


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    """The folder is there inside. If anything is raised, those of its parents and it that were made for this are removed."""
    made = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # it is in use, or was not made
                folder.rmdir()
        raise
