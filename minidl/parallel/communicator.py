"""How devices that compute together talk: the interface, and the communicator of a device that is alone."""

import os
import time
from typing import NamedTuple

import numpy as np

from ..backend import Array, get_array_module
from ..errors import UserError


class Work:
    """A collective that may still be under way."""

    def wait(self) -> None:
        """Return once what the collective writes may be read. On a GPU: once whatever is launched from here on may."""


class Communicator:
    """One of `size` devices, the one numbered `rank`; this class is the communicator of a device that is alone.

    All ranks call the same collectives in the same order, with arrays of the same shape and dtype, C-contiguous. Sums are
    added up alike for all ranks, so that they stay equal to the last bit. What goes wrong with the others raises
    CommunicationError. A communicator is for one thread.
    """

    rank: int = 0
    size: int = 1

    def all_reduce(self, array: Array, async_op: bool = False) -> Work:
        """Put the sum over all ranks in the place of `array`. With async_op it may come later, but before wait() returns."""
        return Work()

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Put root's array in the place of everyone's."""

    def all_gather(self, array: Array) -> Array:
        """(size, *array.shape): the arrays of all ranks."""
        return get_array_module(array).stack([array])

    def barrier(self) -> None:
        """Return once all ranks have come here."""

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
