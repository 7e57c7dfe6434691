"""Collectives for values on the host. They are copied to the device of each rank, communicated, and copied back."""

import numpy as np
import numpy.typing as npt

from minidl.backend import to_device, to_numpy
from minidl.parallel import Communicators


def sum_over_ranks(communicators: Communicators, device: str, values: npt.ArrayLike) -> np.ndarray:
    """The sum over all ranks of `values`, which have the same shape and dtype on each."""
    array = to_device(np.array(values), device)
    communicators.main.all_reduce(array)
    return to_numpy(array)


def from_rank_0(communicators: Communicators, device: str, content: bytes) -> bytes:
    """Rank 0's content, on all ranks."""
    length = to_device(np.array([len(content)]), device)
    communicators.main.broadcast(length)
    array = to_device(np.frombuffer(content.ljust(int(length[0]))[: int(length[0])], np.uint8).copy(), device)
    communicators.main.broadcast(array)
    return to_numpy(array).tobytes()
