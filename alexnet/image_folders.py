"""Data sets in folders: each class has a folder, and its images are anywhere below that."""

import functools
import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minidl import get_num_threads
from minidl.errors import TrainingError, UserError
from minidl.parallel import mpi
from minidl.parallel.workers import Failure, Workers

from . import entry
from .datasets import Dataset, Split
from .image_files import class_folders, read_image
from .pixels import Pixels, moments
from .preparation import Preparation

TRAINING, TEST = "train", ("val", "valid", "validation", "test")  # names of folders; the first existing one has the test images
CACHE_BYTES, CACHE_SHARE = 2 << 30, 0.25  # limits of the cache of decoded images: bytes, share of the memory; the smaller counts
MOST_SKIPPED, MOST_SKIPPED_SHARE = 10, 0.01  # limits of unreadable files: number, share of all files; the larger counts
NAMED = 10  # files that a message names
BLOCK = 512  # images that the survey reads at a time
NICE = 5  # the readers' priority


class Readers:
    """Processes that read images (channels, side, side) for a data set. They start at the first image, and end when the data
    set's images are deleted.

    cache_bytes: the memory left for the cache of images. sharers: how many processes on this machine have such a cache.
    channels, draft: as in read_image.
    """

    def __init__(self, side: int, sharers: int, channels: int = 3, draft: bool = True):
        self.shape = channels, side, side
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.cache_bytes = int(min(CACHE_BYTES, CACHE_SHARE * memory)) // sharers
        read = functools.partial(_read, draft=draft)
        self.workers = Workers(get_num_threads(), read, self.shape, name="image reader", nice=NICE)

    def read(self, paths: Sequence[str], out: np.ndarray, measured: bool) -> list[Any]:
        """Fill out[i] with the image in paths[i]. Returns for each its moments if `measured`, else None; or a Failure."""
        return self.workers.map([(path, measured) for path in paths], out)

    def close(self) -> None:
        """End the processes."""
        self.workers.close()

    def __del__(self) -> None:
        self.close()


def _read(task: tuple[str, bool], row: np.ndarray, draft: bool) -> list[int] | None:
    """In a reader process: fill row with an image, and return its moments if they are wanted."""
    path, measured = task
    row[...] = read_image(path, row.shape[1], len(row), draft)
    return moments(row) if measured else None


class ImageFiles:
    """Images (N, C, side, side) uint8 that are read when they are indexed: images[0], images[:8], images[[7, 1]].

    They are kept in memory if there is room for all of them.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, root: Path, names: Sequence[str], readers: Readers):
        self.root, self.names, self.readers = root, names, readers
        self.shape = (len(names), *readers.shape)
        self._kept: np.ndarray | None = None
        self._has = np.zeros(len(names), bool)
        self._keeping = threading.Lock()  # for threads that read at the same time
        self._part: tuple[bytes, ImageFiles] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Raises TrainingError if an image, which was readable when the run began, can no longer be read."""
        indices = np.arange(len(self))[key]
        images, results = self.read(indices.reshape(-1))
        for i, result in zip(indices.reshape(-1), results, strict=True):
            if isinstance(result, Failure):
                raise TrainingError(
                    f"{self.root / self.names[i]} can no longer be read ({result.reason}); put it back, and --resume"
                )
        return images.reshape(indices.shape + images.shape[1:])

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def read(self, indices: np.ndarray, measured: bool = False) -> tuple[np.ndarray, list[Any]]:
        """(images (n, C, side, side), the results of Readers.read for them)."""
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        results: list[Any] = [None] * len(indices)
        has = self._has[indices]
        if self._kept is not None:
            images[has] = self._kept[indices[has]]
            if measured:
                for place in np.flatnonzero(has):
                    results[place] = moments(images[place])
        missing = np.flatnonzero(~has)
        if not len(missing):
            return images, results
        read = images if len(missing) == len(indices) else np.empty((len(missing), *self.shape[1:]), np.uint8)
        paths = [os.path.join(self.root, self.names[i]) for i in indices[missing]]
        for place, result in zip(missing, self.readers.read(paths, read, measured), strict=True):
            results[place] = result
        if read is not images:
            images[missing] = read
        good = missing[[not isinstance(results[place], Failure) for place in missing]]
        with self._keeping:
            if self._keeps():
                self._kept[indices[good]] = images[good]  # type: ignore[index]
                self._has[indices[good]] = True
        return images, results

    def _keeps(self) -> bool:
        """Whether there is room for all images. The first call allocates it."""
        size = int(np.prod(self.shape, dtype=np.int64))
        if self._kept is None and size <= self.readers.cache_bytes:
            self.readers.cache_bytes -= size
            self._kept = np.empty(self.shape, np.uint8)
        return self._kept is not None

    def chosen(self, indices: np.ndarray) -> "ImageFiles":
        """The images with these indices; they take over their part of the cache. The same indices return the same object."""
        key = np.asarray(indices, np.int64).tobytes()
        if self._part is None or self._part[0] != key:
            part = ImageFiles(self.root, [self.names[i] for i in indices], self.readers)
            if self._kept is not None and self._has[indices].any():
                part._kept, part._has = self._kept[indices], self._has[indices]
                self.readers.cache_bytes += self._kept.nbytes - part._kept.nbytes
                self._kept, self._has = None, np.zeros(len(self), bool)
            self._part = key, part
        return self._part[1]


# --- the images in a folder ---------------------------------------------------------------------------------------------


def load(root: Path, side: int, sharers: int = 1) -> Dataset:
    """FOLDER/train and FOLDER/val (or valid, validation, test), each with one folder per class, as in ImageNet.

    Without train, the classes are in FOLDER itself, and there are no images to test on. Raises UserError for a class without
    images, for only one class, and for classes that only one of the two folders has. side, sharers: as in Readers.
    """
    root = Path(os.path.abspath(root))
    readers = Readers(side, sharers)
    training = root / TRAINING if _has_folders(root / TRAINING) else root
    test = next((root / name for name in TEST if _has_folders(root / name)), None)
    if test and training is root:
        raise UserError(
            f"--data {root}: there is {test.name}, but no {TRAINING} beside it; give the folder of training images that name"
        )
    classes = _classes(training)
    train = _split(root, training, classes, readers)
    if test is None:
        return Dataset(str(root), tuple(classes), train, Split(ImageFiles(root, [], readers), np.zeros(0, np.int64)))
    tested = _classes(test)
    for one, of_one, other, of_other in ((training, classes, test, tested), (test, tested, training, classes)):
        if more := [name for name in of_one if name not in of_other]:
            raise UserError(f"--data {root}: {one.name} has classes that {other.name} does not have: {named(more)}")
    return Dataset(str(root), tuple(classes), train, _split(root, test, tested, readers))


def load_test(root: Path, preparation: Preparation, sharers: int = 1) -> Dataset:
    """A folder to test on: FOLDER/val (or valid, validation, test), or else the folder itself, with one folder per class.

    sharers: as in Readers.
    """
    root = Path(os.path.abspath(root))
    readers = Readers(preparation.resize, sharers, preparation.channels, preparation.draft)
    folder = next((root / name for name in TEST if _has_folders(root / name)), root)
    classes = _classes(folder)
    none = Split(ImageFiles(root, [], readers), np.zeros(0, np.int64))
    return Dataset(str(root), tuple(classes), none, _split(root, folder, classes, readers))


def _has_folders(folder: Path) -> bool:
    """Whether it is a folder with folders in it. A folder named train that has only images may be a class of trains."""
    return folder.is_dir() and any(file.is_dir() and not file.name.startswith(".") for file in folder.iterdir())


def _classes(folder: Path) -> dict[str, list[str]]:
    """Class -> its files. Raises UserError if there are no images, a class has none, or there is only one class."""
    try:
        classes = class_folders(folder)
    except OSError as error:
        raise UserError(f"--data: cannot read {error.filename or folder}: {error.strerror or error}") from None
    if not any(classes.values()):
        raise UserError(f"--data: there are no images in {folder}; it needs a folder for each class, with images in it")
    if empty := [name for name, files in classes.items() if not files]:
        raise UserError(f"--data: {folder} has no images of {named(empty)}; add some, or remove the folder")
    if len(classes) == 1:
        raise UserError(f"--data: {folder} has only one class, {named(classes)}; it needs several, each with a folder")
    return classes


def _split(root: Path, folder: Path, classes: Mapping[str, list[str]], readers: Readers) -> Split:
    prefix = "" if folder == root else f"{folder.name}/"
    names = [prefix + name for files in classes.values() for name in files]
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    return Split(ImageFiles(root, names, readers), labels)


def named(names: Sequence[str] | Mapping[str, Any]) -> str:
    """The first few names, as text."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(list(names)[:NAMED]) + more


def checksum(dataset: Dataset) -> str:
    """The checksum of the names, labels and sizes of all files of the data set, without skipped ones."""
    digest = hashlib.sha256(repr(dataset.classes).encode())
    for split in (dataset.train, dataset.test):
        digest.update(split.labels.astype("<i8").tobytes())
        for name in _files(split).names:
            size = os.stat(os.path.join(_files(split).root, name)).st_size
            digest.update(os.fsencode(f"{name}\0{size}\n"))
    return digest.hexdigest()


def _files(split: Split) -> ImageFiles:
    assert isinstance(split.images, ImageFiles)
    return split.images


# --- before a run begins --------------------------------------------------------------------------------------------------


def survey(dataset: Dataset, limit_train: int | None, limit_test: int | None, quiet: bool = False) -> tuple[Pixels, list[str]]:
    """Read every image that the run will use. Returns (pixel statistics of the training images, files that cannot be read).

    The latter are named in warnings, and left out of the data set. Raises UserError if there are too many, or if a class loses
    all its images. quiet: print no progress and no warnings, as on all ranks but one.
    """
    quiet = quiet or not mpi.first_on_machine()
    skipped: list[str] = []
    while True:
        train, test = dataset.train.first(limit_train, "--limit-train"), dataset.test.first(limit_test, "--limit-test")
        pixels = Pixels(dataset.image_shape[0])
        unreadable: dict[str, str] = {}
        with tqdm(desc="reading images", total=len(train) + len(test), unit="img", disable=quiet or None, leave=False) as bar:
            for files in (_files(train), _files(test)):
                for start in range(0, len(files), BLOCK):
                    indices = np.arange(start, min(start + BLOCK, len(files)))
                    images, results = files.read(indices, files is train.images)
                    bar.update(len(indices))
                    for i, result in zip(indices, results, strict=True):
                        if isinstance(result, Failure):
                            unreadable[files.names[int(i)]] = result.reason
                        elif result:
                            pixels.add(result, images[0, 0].size)
        if not unreadable:
            return pixels, skipped
        for name in list(unreadable)[: 0 if quiet else max(0, NAMED - len(skipped))]:
            entry.tell(f"warning: {_files(train).root / name} is left out: {unreadable[name]}")
        skipped += unreadable
        most = max(MOST_SKIPPED, int(MOST_SKIPPED_SHARE * (len(train) + len(test))))
        if len(skipped) > most:
            raise UserError(
                f"{len(skipped)} files cannot be read, and at most {most} are left out: {named(skipped)}; repair or remove them"
            )
        leave_out(dataset, unreadable)


def leave_out(dataset: Dataset, names: Sequence[str] | Mapping[str, str]) -> None:
    """Remove these files from the data set. Raises UserError if a class loses all its images."""
    names = set(names)
    for part in ("train", "test"):
        split = getattr(dataset, part)
        stays = np.array([name not in names for name in _files(split).names], bool)
        if stays.all():
            continue
        counts = np.bincount(split.labels[stays], minlength=len(dataset.classes))
        if not counts.all():
            name = dataset.classes[counts.argmin()]
            raise UserError(f"class {name!r} has no {part} image that can be read; add some, or remove the class")
        setattr(dataset, part, split.chosen(np.flatnonzero(stays)))
