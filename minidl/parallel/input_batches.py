"""The transfer of input batches to the device that computes."""

import dataclasses
import itertools
from collections.abc import Generator, Iterable
from typing import Any

import numpy as np

from ..data import Batch
from ..kernels.layout import from_batch_last, to_batch_last
from ..partition import ceil_div

SLOTS = 3


class Slot:
    """Memory for one batch in transfer: pinned on the host, and on the device, with events that guard both."""

    def __init__(self, cupy):
        self.cupy, self.size = cupy, 0
        self.pinned: Any = None
        self.device: Any = None
        self.copied, self.used = (cupy.cuda.Event(disable_timing=True) for _ in range(2))

    def copy(self, arrays: list[np.ndarray], stream) -> list[Any]:
        """Copy the arrays to the device, on this stream. Work that is launched after this call sees the copies."""
        sizes = [ceil_div(max(1, array.nbytes), 256) * 256 for array in arrays]  # not 0 bytes, even for an empty shard
        self.copied.synchronize()  # of the last batch in this slot: complete long ago, so this hardly waits
        if self.size < sum(sizes):
            self.size = sum(sizes)
            self.pinned = np.frombuffer(self.cupy.cuda.alloc_pinned_memory(self.size), np.uint8, self.size)
            self.device = self.cupy.empty(self.size, np.uint8)
            self.used.record()
        self.guard(stream)
        copies = []
        for array, end, size in zip(arrays, itertools.accumulate(sizes), sizes, strict=True):
            host, device = (
                memory[end - size : end - size + array.nbytes].view(array.dtype).reshape(array.shape)
                for memory in (self.pinned, self.device)
            )
            np.copyto(host, array)
            device.set(host, stream)
            copies.append(device)
        self.publish(stream)
        return copies

    def guard(self, stream) -> None:
        """Make the copy wait until the computation has finished with the last batch in this slot."""
        stream.wait_event(self.used)

    def publish(self, stream) -> None:
        """Make the computation wait until the copy is complete."""
        self.copied.record(stream)
        self.cupy.cuda.get_current_stream().wait_event(self.copied)


def feed(batches: Iterable[Batch], device: str) -> Generator[Batch, None, None]:
    """The batches, on a device. A batch is valid until the second batch after it is requested.

    Batches for a GPU are copied through a ring of slots, on a separate stream, so neither the host nor the computation waits.
    """
    if device == "numpy":
        yield from batches
        return
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    for batch, slot in zip(batches, itertools.cycle([Slot(cupy) for _ in range(SLOTS)])):
        images, labels = slot.copy([to_batch_last(batch.images), batch.labels], stream)
        yield dataclasses.replace(batch, images=from_batch_last(images), labels=labels)
        slot.used.record()
