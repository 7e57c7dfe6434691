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
        """Return when the result may be read. On a GPU: when kernels launched from now on may read it."""


class Communicator:
    """Rank `rank` of `size` devices. This class itself is the communicator of a single device.

    All ranks call the same collectives in the same order, with C-contiguous arrays of the same shape and dtype. A sum is bit
    for bit equal on all ranks. A failure of another rank raises CommunicationError. A communicator is for one thread.

    sent: the bytes of arrays that this rank has sent to the others. All implementations send the same number: in an
    all-reduce, each rank sums its shard and sends it to all.
    """

    rank: int = 0
    size: int = 1
    sent: int = 0

    def all_reduce(self, array: Array, async_op: bool = False) -> Work:
        """Replace `array` by the sum over all ranks. With async_op this may happen later, but before wait() returns."""
        own = length(shard(array.size, self.rank, self.size))
        self.sent += array.itemsize * (array.size - own + own * (self.size - 1))
        return self._all_reduce(array, async_op)

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Replace the array of every rank by root's."""
        if self.rank == root:
            self.sent += array.nbytes * (self.size - 1)
        self._broadcast(array, root)

    def all_gather(self, array: Array) -> Array:
        """(size, *array.shape): the arrays of all ranks."""
        self.sent += array.nbytes * (self.size - 1)
        return self._all_gather(array)

    def exchange(self, arrays: Sequence[Array], counts: Counts) -> list[Array]:
        """Send arrays[q] to each rank q. Returns the arrays that the ranks have sent to this rank, each with one axis.

        counts: the same table on all ranks; counts[p][q] elements go from p to q, which may be 0. The array that a rank
        sends to itself is returned as it is.
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
        """Return when all ranks have called it."""

    @property
    def host(self) -> "Communicator":
        """A communicator of the same ranks for NumPy arrays: this one, unless it is one of GPUs."""
        return self

    def _incoming(self, counts: Counts) -> list[int]:
        """The number of elements that each other rank sends to this rank."""
        return [0 if rank == self.rank else row[self.rank] for rank, row in enumerate(counts)]

    def _all_reduce(self, array: Array, async_op: bool) -> Work:
        return Work()

    def _broadcast(self, array: Array, root: int) -> None:
        pass

    def _all_gather(self, array: Array) -> Array:
        return get_array_module(array).stack([array])

    def _exchange(self, arrays: list[Array], counts: Counts) -> list[Array]:
        """exchange between different ranks. The result for this rank itself is ignored, and may be anything."""
        return arrays

    def __deepcopy__(self, memo: dict) -> "Communicator":
        """The copy of a network uses the same communicator."""
        return self


class Communicators(NamedTuple):
    """Two communicators of the same ranks, each with its own order of collectives: one for the sums of gradients, which
    overlap with the computation, and one for everything else, which the computation waits for.
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
        """The bytes that this rank has sent to the other ranks."""
        return self.gradients.sent + self.main.sent


ALONE = Communicators(Communicator(), Communicator())


def timeout() -> float:
    """Seconds that a rank waits for the others in a collective before it reports that they hang: $MINIDL_TIMEOUT, else 120."""
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
        self.left, self.asked, self.most = seconds, time.monotonic(), min(2.0, seconds / 4)

    def ended(self) -> bool:
        now = time.monotonic()
        self.left -= min(now - self.asked, self.most)
        self.asked = now
        return self.left <= 0
