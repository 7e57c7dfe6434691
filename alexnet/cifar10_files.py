"""The files of CIFAR-10: six batches, in a folder or in the archive that is published.

A file may be damaged or malicious: it is read or refused in bounded time and memory.
"""

import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import numpy as np

from minidl.errors import UserError
from minidl.files import read_regular

from .cifar10_pickle import read_batch

FOLDER, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
BATCH = 10_000  # images

# The original has 31 MB in a batch, 170 MB in the archive, and 186 MB and 9 members when unpacked. Python 3 can write a batch
# twice as large.
MOST_BATCH_BYTES, MOST_ARCHIVE_BYTES, MOST_UNPACKED_BYTES, MOST_MEMBERS = 1 << 26, 1 << 28, 1 << 28, 1000

Arrays = tuple[np.ndarray, np.ndarray]  # images (N, 3, 32, 32) uint8, labels (N,) int64


def read_folder(folder: Path) -> tuple[Arrays, Arrays]:
    """The training and the test images and labels. Raises UserError with one line that says what to do."""
    batches = {}
    for name in NAMES:
        file = folder / name
        try:
            batches[name] = read_regular(file, MOST_BATCH_BYTES)
        except FileNotFoundError:
            raise UserError(
                f"CIFAR-10 in {folder} is incomplete: {name} is missing; complete the folder, or remove it to download all"
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot read {file}: {error.strerror}; make it readable, or remove {folder} to download CIFAR-10 again"
            ) from None
    return _arrays(folder, batches)


def read_archive(archive: Path) -> tuple[Arrays, Arrays]:
    """The training and the test images and labels; nothing is unpacked to the disk. Raises UserError as read_folder does."""
    try:
        batches = _batches_of_tar(_unzip(read_regular(archive, MOST_ARCHIVE_BYTES)))
    except OSError as error:
        raise UserError(
            f"cannot read {archive}: {error.strerror}; make it readable, or remove it to download CIFAR-10 again"
        ) from None
    except (ValueError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{archive} is damaged ({error}); remove it to download CIFAR-10 again") from None
    missing = [name for name in NAMES if name not in batches]
    if missing:
        raise UserError(f"{archive} is incomplete: {', '.join(missing)} missing; remove it to download CIFAR-10 again")
    return _arrays(archive, batches)


def _arrays(source: Path, batches: Mapping[str, bytes | memoryview]) -> tuple[Arrays, Arrays]:
    parts = []
    for name in NAMES:
        try:
            parts.append(read_batch(batches[name], BATCH))
        except UnpicklingError as error:
            raise UserError(f"{source / name} is damaged ({error}); remove {source} to download CIFAR-10 again") from None
    train, test = ([np.concatenate(arrays) for arrays in zip(*some, strict=True)] for some in (parts[:-1], parts[-1:]))
    return (train[0], train[1]), (test[0], test[1])


def _unzip(packed: bytes) -> memoryview:
    """The content of a gzip file, whose checksum is checked."""
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    unpacked = stream.decompress(packed, MOST_UNPACKED_BYTES)
    if not stream.eof:
        raise ValueError(f"it is cut off, or unpacks to more than {MOST_UNPACKED_BYTES:,} bytes")
    if stream.unused_data:
        raise ValueError("there is data after its end")
    return memoryview(unpacked)


def _batches_of_tar(tar: memoryview) -> dict[str, memoryview]:
    """The batches by their names. Other members are skipped, and so are headers that rename the next member.

    Only single headers are read with tarfile: many of its versions hang or use all memory on a malicious file.
    """
    batches: dict[str, memoryview] = {}
    at = 0
    for _ in range(MOST_MEMBERS):
        header = bytes(tar[at : at + tarfile.BLOCKSIZE])
        if not any(header):
            return batches
        member = tarfile.TarInfo.frombuf(header, "ascii", "replace")
        at += tarfile.BLOCKSIZE
        size = 0 if member.isdir() or member.islnk() or member.issym() or member.isdev() else member.size
        if not 0 <= size <= len(tar) - at:
            raise ValueError(f"it has a member of {size:,} bytes, but only {len(tar) - at:,} follow")
        folder, _, name = member.name.rpartition("/")
        if folder == FOLDER and name in NAMES:
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or size > MOST_BATCH_BYTES:
                raise ValueError(f"its {name} is not a regular file of {MOST_BATCH_BYTES:,} bytes at most")
            if name in batches:
                raise ValueError(f"it has {name} twice")
            batches[name] = tar[at : at + size]
        at += -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
