"""The data sets: CIFAR-10, and the handwritten digits that come with the package."""

import dataclasses
import gzip
import io
import os
import pickle
import tarfile
import zlib
from pathlib import Path

import numpy as np

from minidl import random
from minidl.errors import UserError

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"
CIFAR10_FOLDER, CIFAR10_ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
CIFAR10_TRAIN, CIFAR10_TEST = [f"data_batch_{i}" for i in range(1, 6)], "test_batch"
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
    folder, archive = place / CIFAR10_FOLDER, place / CIFAR10_ARCHIVE
    if os.path.isdir(folder):
        files = _read_folder(folder)
    else:
        if not os.path.exists(archive):
            _download(place)
        files = _read_archive(archive)
    parts = [_read_batch(name, files[name]) for name in [*CIFAR10_TRAIN, CIFAR10_TEST]]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True))
    return Dataset("cifar10", CIFAR10_CLASSES, Split(images, labels), Split(*parts[-1]))


def cifar10_place(data_dir: str | None) -> Path:
    """The one place that is searched: data_dir, else $MINIDL_DATA, else ~/.cache/minidl."""
    return Path(os.path.abspath(os.path.expanduser(data_dir or os.environ.get("MINIDL_DATA") or "~/.cache/minidl")))


def _read_folder(folder: Path) -> dict[str, tuple[Path, bytes]]:
    files = {}
    for name in [*CIFAR10_TRAIN, CIFAR10_TEST]:
        try:
            files[name] = folder / name, (folder / name).read_bytes()
        except FileNotFoundError:
            raise UserError(
                f"CIFAR-10 in {folder} is incomplete: {name} is missing; complete the folder, or remove it to download all"
            ) from None
        except OSError as error:
            raise UserError(f"cannot read {folder / name}: {error.strerror}") from None
    return files


def _read_archive(archive: Path) -> dict[str, tuple[Path, bytes]]:
    """The six batch files of the archive, read without unpacking it to the disk."""
    wanted = {f"{CIFAR10_FOLDER}/{name}": name for name in [*CIFAR10_TRAIN, CIFAR10_TEST]}
    files = {}
    try:
        with gzip.open(archive) as unzipped, tarfile.open(fileobj=unzipped, mode="r|") as tar:
            for member in tar:
                if member.name in wanted and member.isfile():
                    content = tar.extractfile(member)
                    files[wanted[member.name]] = archive / member.name, content.read() if content else b""
            while unzipped.read(1 << 20):  # to the end, where gzip checks its sum
                pass
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise UserError(f"{archive} is damaged ({error}); remove it to download it again") from None
    missing = sorted(set(wanted.values()) - set(files))
    if missing:
        raise UserError(f"{archive} is incomplete: {', '.join(missing)} missing; remove it to download it again")
    return files


class _ArraysOnly(pickle.Unpickler):
    """A pickle can call any function it names. CIFAR-10's need these three names, so no others are let in."""

    def find_class(self, module, name):
        if (module, name) in {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}:
            return _reconstruct
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which image data does not need")


# What the name numpy.core.multiarray._reconstruct stands for, wherever this NumPy keeps it.
_reconstruct = np.empty(0).__reduce__()[0]


def _read_batch(name: str, file: tuple[Path, bytes]) -> tuple[np.ndarray, np.ndarray]:
    """(images (10000, 3, 32, 32) uint8, labels (10000,) int64) of one batch file; checked, whoever made it."""
    path, content = file

    def damaged(why) -> UserError:
        return UserError(f"{path} is damaged ({why}); remove it and get CIFAR-10 again")

    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise damaged(str(error) or type(error).__name__) from None
    if not isinstance(batch, dict) or b"data" not in batch or b"labels" not in batch:
        raise damaged("it holds no data and labels")
    images, labels = batch[b"data"], batch[b"labels"]
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (10000, 3072):
        raise damaged("its data is not 10,000 images of 3 x 32 x 32 bytes")
    if not (isinstance(labels, list) and len(labels) == 10000 and all(type(n) is int and 0 <= n < 10 for n in labels)):
        raise damaged("its labels are not 10,000 numbers from 0 to 9")
    return images.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


def _download(place: Path) -> None:
    """Get the archive, with a progress bar; it appears in its place whole and with the right md5, or not at all."""
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    new = not os.path.exists(place)
    problem = None
    try:
        pooch.retrieve(
            CIFAR10_URL,
            known_hash=f"md5:{CIFAR10_MD5}",
            fname=CIFAR10_ARCHIVE,
            path=place,
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=30),
        )
    except requests.RequestException:
        problem = f"cannot download CIFAR-10: get {CIFAR10_URL} and put it into {place}, or use --data digits"
    except ValueError:
        problem = f"what {CIFAR10_URL} sent is not CIFAR-10 (its md5 is wrong); try again, or use --data digits"
    except OSError as error:
        problem = f"cannot write to {place}: {error.strerror or error}; choose another place with --data-dir"
    if problem:
        if new and os.path.isdir(place) and not any(place.iterdir()):
            place.rmdir()
        raise UserError(problem)
