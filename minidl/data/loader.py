"""DataLoader: shuffled, transformed batches, prepared in advance by threads."""

import collections
import dataclasses
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from .. import random
from ..partition import ceil_div, shard
from .transforms import Transform


@dataclasses.dataclass
class Batch:
    """images (N, C, H, W), their labels (N,), and their indices (N,) in the data set.

    labels and indices are empty if another device has them. The images are a shard of the global batch: those from
    first_sample on, of global_size.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    first_sample: int
    global_size: int

    def __len__(self) -> int:
        return len(self.labels)


class DataLoader:
    """Batches of a data set; the last batch of an epoch is smaller if batch_size does not divide the data set.

    images: (N, C, H, W), an array or an object that returns one when it is indexed with an array of indices. labels: (N,).
    The order is that of the data set; with shuffle it is a pure function of (seed, epoch), so any batch of any epoch can be
    made again. prefetch: the number of batches that threads prepare in advance.

    Rank `rank` of `size` gets consecutive images of each batch of batch_size, about an equal share. If a batch has fewer
    images than there are ranks, some ranks get none.
    labelled: if False, batches have images only, because another device has their labels and indices.
    """

    def __init__(
        self,
        images: Any,
        labels: np.ndarray,
        batch_size: int,
        transform: Transform,
        *,
        shuffle: bool = False,
        seed: int = 0,
        prefetch: int = 2,
        threads: int = 1,
        rank: int = 0,
        size: int = 1,
        labelled: bool = True,
    ):
        if len(images) != len(labels) or not len(images):
            raise ValueError(f"DataLoader takes one image or more, and as many labels; got {len(images)} and {len(labels)}")
        if batch_size < 1:
            raise ValueError(f"DataLoader takes a batch_size of at least 1; got {batch_size}")
        self.images, self.labels, self.batch_size, self.transform = images, labels, batch_size, transform
        self.shuffle, self.seed, self.prefetch = shuffle, seed, prefetch
        self.threads, self.rank, self.size, self.labelled = threads, rank, size, labelled

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return ceil_div(len(self.labels), self.batch_size)

    def epoch(self, epoch: int, first_batch: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from first_batch on. An error in a thread is raised here."""
        order = np.arange(len(self.labels))
        if self.shuffle:
            order = random.permutation(len(order), random.SHUFFLE, epoch, self.seed)
        starts = range(first_batch * self.batch_size, len(order), self.batch_size)
        ahead: collections.deque[Future[Batch]] = collections.deque()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="loader") as threads:
            try:
                for start in starts:
                    ahead.append(threads.submit(self._load, order[start : start + self.batch_size], epoch))
                    if len(ahead) > self.prefetch:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _load(self, indices: np.ndarray, epoch: int) -> Batch:
        total = len(indices)
        mine = shard(total, self.rank, self.size)
        indices = indices[mine]
        images = self.transform(self.images[indices], indices, epoch)
        if not self.labelled:
            indices = indices[:0]
        return Batch(images, self.labels[indices], indices, mine.start, total)
