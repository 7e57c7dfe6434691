"""The way of input batches to the device that computes."""

from collections.abc import Generator, Iterable

from ..data import Batch


def feed(batches: Iterable[Batch], device: str) -> Generator[Batch, None, None]:
    """The batches, on a device."""
    yield from batches
