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
    """Memory for the transfer of one batch: pinned memory on the host, memory on the device, and events that guard them."""

    def __init__(self, cupy):
        self.cupy, self.size = cupy, 0
        self.pinned: Any = None
        self.device: Any = None
        self.copied, self.used = (cupy.cuda.Event(disable_timing=True) for _ in range(2))

    def copy(self, arrays: list[np.ndarray], stream) -> list[Any]:
        """Copy arrays to the device on the given stream. Kernels that are launched from now on may read the copies."""
        sizes = [ceil_div(max(1, array.nbytes), 256) * 256 for array in arrays]  # not 0, for an empty shard
        self.copied.synchronize()  # wait for the copy of SLOTS batches ago, which finished long ago
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
        """Let the copy wait until the computation has finished with the slot's previous batch."""
        stream.wait_event(self.used)

    def publish(self, stream) -> None:
        """Let the computation wait for the copy."""
        self.copied.record(stream)
        self.cupy.cuda.get_current_stream().wait_event(self.copied)


def feed(batches: Iterable[Batch], device: str) -> Generator[Batch, None, None]:
    """The batches on a device. A batch is valid until the second batch after it is requested.

    They are copied to a GPU through a ring of slots, on a separate stream, so that neither the host nor the computation waits.
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
