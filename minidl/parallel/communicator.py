"""How devices that compute together talk: the interface, and the communicator of a device that is alone."""

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
    """A collective that may still be under way."""

    def wait(self) -> None:
        """Return once what the collective writes may be read. On a GPU: once whatever is launched from here on may."""


class Communicator:
    """One of `size` devices, the one numbered `rank`; this class is the communicator of a device that is alone.

    All ranks call the same collectives in the same order, with arrays of the same shape and dtype, C-contiguous. Sums are
    added up alike for all ranks, so that they stay equal to the last bit. What goes wrong with the others raises
    CommunicationError. A communicator is for one thread.

    sent: how many bytes this rank has sent to the others, of arrays. Each engine sends as many: of a sum, each rank adds up
    its shard and sends it to all.
    """

    rank: int = 0
    size: int = 1
    sent: int = 0

    def all_reduce(self, array: Array, async_op: bool = False) -> Work:
        """Put the sum over all ranks in the place of `array`. With async_op it may come later, but before wait() returns."""
        own = length(shard(array.size, self.rank, self.size))
        self.sent += array.itemsize * (array.size - own + own * (self.size - 1))
        return self._all_reduce(array, async_op)

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Put root's array in the place of everyone's."""
        if self.rank == root:
            self.sent += array.nbytes * (self.size - 1)
        self._broadcast(array, root)

    def all_gather(self, array: Array) -> Array:
        """(size, *array.shape): the arrays of all ranks."""
        self.sent += array.nbytes * (self.size - 1)
        return self._all_gather(array)

    def exchange(self, arrays: Sequence[Array], counts: Counts) -> list[Array]:
        """Send arrays[q] to each rank q. Returns what each rank has sent to this one, as arrays with one axis.

        counts: the same table on all ranks; counts[p][q] elements go from p to q, which may be none. What a rank sends to
        itself it gets back as it is.
        """
        sizes = [array.size for array in arrays]
        if sizes != list(counts[self.rank]):
            raise ValueError(f"rank {self.rank} is to send {list(counts[self.rank])} elements, and was given {sizes}")
        own = arrays[self.rank].reshape(sizes[self.rank])
        self.sent += own.itemsize * (sum(sizes) - own.size)
        received = self._exchange([array.reshape(array.size) for array in arrays], counts)
        received[self.rank] = own
        return received

    def barrier(self) -> None:
        """Return once all ranks have come here."""

    @property
    def host(self) -> "Communicator":
        """A communicator of the same ranks for NumPy arrays: this one, unless it is of GPUs."""
        return self

    def _incoming(self, counts: Counts) -> list[int]:
        """How many elements each of the others sends to this rank."""
        return [0 if rank == self.rank else row[self.rank] for rank, row in enumerate(counts)]

    def _all_reduce(self, array: Array, async_op: bool) -> Work:
        return Work()

    def _broadcast(self, array: Array, root: int) -> None:
        pass

    def _all_gather(self, array: Array) -> Array:
        return get_array_module(array).stack([array])

    def _exchange(self, arrays: list[Array], counts: Counts) -> list[Array]:
        """exchange, without what a rank sends to itself: anything may stand in its place."""
        return arrays

    def __deepcopy__(self, memo: dict) -> "Communicator":
        """A copy of a network goes on to talk to the same ranks."""
        return self


class Communicators(NamedTuple):
    """Two of the same ranks, each with an order of its own: sums of gradients that go on beside the computation, and all the
    rest, which the computation waits for.
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
        """The bytes that this rank has sent to the others."""
        return self.gradients.sent + self.main.sent


ALONE = Communicators(Communicator(), Communicator())


def timeout() -> float:
    """Seconds that a rank waits for the others in a collective before it takes them for hanging: $MINIDL_TIMEOUT, else 120."""
    text = os.environ.get("MINIDL_TIMEOUT", "120")
    try:
        seconds = float(text)
    except ValueError:
        seconds = np.nan
    if not 0 < seconds < np.inf:
        raise UserError(f"MINIDL_TIMEOUT={text}: give a number of seconds above 0")
    return seconds


class Patience:
    """How long a process still waits for the others. It counts only while the process runs: after Ctrl-Z and fg all go on.

    To be asked once a second at least; what lies between two questions counts as two seconds, or a quarter of all, at most.
    """

    def __init__(self, seconds: float):
        self.left, self.asked, self.most = seconds, time.monotonic(), min(2.0, seconds / 4)

    def ended(self) -> bool:
        now = time.monotonic()
        self.left -= min(now - self.asked, self.most)
        self.asked = now
        return self.left <= 0
