"""Communication between devices: the interface, and the communicator of a single device."""

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..backend import Array, get_array_module
from ..errors import UserError
from ..partition import length, shard

Counts = Sequence[Sequence[int]]


class Work:
    """A collective that may still be running."""

    def wait(self) -> None:
        """Return when the result of the collective may be read. On a GPU: by work that is launched after this call."""


class Communicator:
    """One of `size` devices, with the number `rank`. This class itself is the communicator of a single device.

    All ranks call the same collectives in the same order, with C-contiguous arrays of the same shape and dtype. All ranks get
    the same sum, to the last bit. If another rank fails, a collective raises CommunicationError. A communicator must be used by
    one thread only.

    sent: the number of bytes of arrays that this rank has sent to the others. It is counted in the same way for shared memory,
    MPI and NCCL: for a sum, each rank adds up one shard and sends it to all others.
    """

    rank: int = 0
    size: int = 1
    sent: int = 0

    def all_reduce(self, array: Array, async_op: bool = False) -> Work:
        """Replace `array` by its sum over all ranks. With async_op, the sum may be read only after wait()."""
        own = length(shard(array.size, self.rank, self.size))
        self.sent += array.itemsize * (array.size - own + own * (self.size - 1))
        return self._all_reduce(array, async_op)

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Replace `array` on each rank by root's array."""
        if self.rank == root:
            self.sent += array.nbytes * (self.size - 1)
        self._broadcast(array, root)

    def all_gather(self, array: Array) -> Array:
        """The arrays of all ranks, stacked: (size, *array.shape)."""
        self.sent += array.nbytes * (self.size - 1)
        return self._all_gather(array)

    def exchange(self, arrays: Sequence[Array], counts: Counts) -> list[Array]:
        """Send arrays[q] to each rank q. Returns the arrays that each rank has sent to this one, flattened.

        counts: the same table on all ranks; p sends counts[p][q] elements to q, perhaps none. The array that a rank sends to
        itself is returned as it is.
        """
        sizes = [array.size for array in arrays]
        if sizes != list(counts[self.rank]):
            raise ValueError(f"rank {self.rank} must send {list(counts[self.rank])} elements, but was given {sizes}")
        own = arrays[self.rank].reshape(sizes[self.rank])
        self.sent += own.itemsize * (sum(sizes) - own.size)
        received = self._exchange([array.reshape(array.size) for array in arrays], counts)
        received[self.rank] = own
        return received

    def barrier(self) -> None:
        """Return when all ranks have called this."""

    @property
    def host(self) -> "Communicator":
        """A communicator of the same ranks for NumPy arrays: this one, unless it is for GPUs."""
        return self

    def _incoming(self, counts: Counts) -> list[int]:
        """The number of elements that each of the other ranks sends to this one."""
        return [0 if rank == self.rank else row[self.rank] for rank, row in enumerate(counts)]

    def _all_reduce(self, array: Array, async_op: bool) -> Work:
        return Work()

    def _broadcast(self, array: Array, root: int) -> None:
        pass

    def _all_gather(self, array: Array) -> Array:
        return get_array_module(array).stack([array])

    def _exchange(self, arrays: list[Array], counts: Counts) -> list[Array]:
        """exchange, but the result may have anything in the place of the array that a rank sends to itself."""
        return arrays

    def __deepcopy__(self, memo: dict) -> "Communicator":
        """A copy of a network keeps its communicator."""
        return self


class Communicators(NamedTuple):
    """Two communicators of the same ranks, whose collectives do not wait for each other.

    gradients: for the sums of gradients, which overlap with the computation; main: for all other collectives.
    """

    gradients: Communicator
    main: Communicator

    @property
    def rank(self) -> int:
        return self.main.rank

    @property
    def size(self) -> int:
        return self.main.size

    @property
    def sent(self) -> int:
        """The number of bytes that this rank has sent to the others."""
        return self.gradients.sent + self.main.sent


ALONE = Communicators(Communicator(), Communicator())


def timeout() -> float:
    """Seconds that a rank waits for the others in a collective before it fails: $MINIDL_TIMEOUT, or 120 if it is not set."""
    text = os.environ.get("MINIDL_TIMEOUT", "120")
    try:
        seconds = float(text)
    except ValueError:
        seconds = np.nan
    if not 0 < seconds < np.inf:
        raise UserError(f"MINIDL_TIMEOUT={text}: give a number of seconds above 0")
    return seconds


class Patience:
    """The time for which a process still waits for the others. It does not count the time in which the process is stopped.

    So all processes continue after Ctrl-Z and fg. Call ended() at least once a second: the time between two calls counts
    as at most two seconds, or as a quarter of the total if that is less.
    """

    def __init__(self, seconds: float):
        self.seconds, self.left, self.asked, self.most = seconds, seconds, time.monotonic(), min(2.0, seconds / 4)

    def ended(self) -> bool:
        now = time.monotonic()
        self.left -= min(now - self.asked, self.most)
        self.asked = now
        return self.left <= 0
