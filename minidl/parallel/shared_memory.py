"""Collectives for NumPy arrays between processes on one machine: data go through shared memory, signals through pipes.

An all-reduce processes one chunk of the array at a time, in three steps. First, each rank copies the other ranks' shards of its
chunk into its slot. When all ranks have done that, each one sums its shard of the chunk, in the order of ranks, into its array
and into the result slot. When all ranks have done that, each one copies the other shards from there. So each element is summed
once, by one rank, and all ranks get the same result.

Before the first synchronisation (_meet), a collective writes into the rank's own slot only, and no rank reads that after the
last synchronisation of the collective before. A slower rank may still read the result slot at that time.

Neither the memory nor the pipes have names. So nothing is left when a process is killed, and two runs cannot use the same ones.
A rank that ends closes its pipes, and the others notice that at once.
"""

import contextlib
import math
import mmap
import multiprocessing
import os
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from ..errors import CommunicationError
from ..partition import chunks, shard
from .communicator import Communicator, Patience, Work

SLOT_BYTES = 2 << 20
TICK = 0.5  # seconds between two checks of the timeout


class Memory:
    """`size` bytes of unnamed shared memory for spawned processes, which receive it as a buffer. Raises OSError.

    It does not use /dev/shm, which may be missing, read-only or too small in a container.
    """

    def __init__(self, size: int, copies: contextlib.ExitStack):
        self.size, self.file = size, copies.enter_context(open(os.memfd_create("minidl"), "r+b"))  # noqa: SIM115
        os.posix_fallocate(self.file.fileno(), 0, size)

    def __reduce__(self):
        return _map, (reduction.DupFd(self.file.fileno()), self.size)

    def buffer(self) -> mmap.mmap:
        """The memory as a buffer in this process."""
        return mmap.mmap(self.file.fileno(), self.size)


def _map(descriptor: Any, size: int) -> mmap.mmap:
    with open(descriptor.detach(), "r+b") as file:
        return mmap.mmap(file.fileno(), size)


def allocate(size: int, copies: contextlib.ExitStack) -> Any:
    """`size` bytes of shared memory for spawned processes, each of which receives it as a buffer. Raises OSError."""
    return Memory(size, copies) if hasattr(os, "memfd_create") else multiprocessing.get_context("spawn").RawArray("B", size)


class Endpoint(NamedTuple):
    """What a process needs to become a rank; made in the parent, and passed to the process when it is spawned."""

    rank: int
    peers: dict[int, Connection]
    memory: Any


def endpoints(size: int, copies: contextlib.ExitStack) -> list[Endpoint]:
    """An endpoint for each of `size` ranks. copies: closes the parent's copies when the processes have theirs.

    Raises OSError if the system has too little memory or too few pipes.
    """
    context = multiprocessing.get_context("spawn")
    memory = allocate((size + 1) * SLOT_BYTES, copies)
    peers: list[dict[int, Connection]] = [{} for _ in range(size)]
    for a in range(size):
        for b in range(a):
            peers[a][b], peers[b][a] = map(copies.enter_context, context.Pipe())
    return [Endpoint(rank, peers[rank], memory) for rank in range(size)]


class Pending(Work):
    """A collective that runs in a thread."""

    def __init__(self, future: Future):
        self.future = future

    def wait(self):
        self.future.result()


class SharedMemoryCommunicator(Communicator):
    """One of the ranks whose endpoints were made together. timeout: seconds to wait for the others in a collective."""

    def __init__(self, endpoint: Endpoint, timeout: float):
        self.rank, self.size = endpoint.rank, len(endpoint.peers) + 1
        self._peers, self._timeout = endpoint.peers, timeout
        self._slots = np.frombuffer(endpoint.memory, np.uint8).reshape(self.size + 1, SLOT_BYTES)
        self._count = 0
        self._thread = ThreadPoolExecutor(1, "all-reduce")  # runs all collectives, in the order of the calls

    def _all_reduce(self, array, async_op):
        work = Pending(self._thread.submit(self._sum, array))
        if not async_op:
            work.wait()
        return work

    def _broadcast(self, array, root):
        self._thread.submit(self._copy, array, root).result()

    def _all_gather(self, array):
        return self._thread.submit(self._gather, array).result()

    def _exchange(self, arrays, counts):
        return self._thread.submit(self._swap, arrays, counts).result()

    def barrier(self):
        self._thread.submit(self._meet, "barrier").result()

    def _sum(self, array):
        flat = _flat(array)
        for chunk in self._chunks(flat):
            size = flat[chunk].size
            slots = [self._slot(rank, flat.dtype, size) for rank in range(self.size + 1)]
            mine, own = flat[chunk], shard(size, self.rank, self.size)
            of_others = slice(own.start), slice(own.stop, None)
            for part in of_others:
                np.copyto(slots[self.rank][part], mine[part])
            self._meet(f"all_reduce of {array.size} {array.dtype}")
            first, second, *others = (mine[own] if rank == self.rank else slots[rank][own] for rank in range(self.size))
            total = np.add(first, second, out=slots[-1][own])
            for part in others:
                total += part
            np.copyto(mine[own], total)
            self._meet("the end of all_reduce")
            for part in of_others:
                np.copyto(mine[part], slots[-1][part])

    def _copy(self, array, root):
        flat = _flat(array)
        for chunk in self._chunks(flat):
            slot = self._slot(root, flat.dtype, flat[chunk].size)
            if self.rank == root:
                np.copyto(slot, flat[chunk])
            self._meet(f"broadcast of {array.size} {array.dtype} from rank {root}")
            if self.rank != root:
                np.copyto(flat[chunk], slot)
            self._meet("the end of broadcast")

    def _gather(self, array):
        flat = _flat(array)
        gathered = np.empty((self.size, flat.size), flat.dtype)
        for chunk in self._chunks(flat):
            np.copyto(self._slot(self.rank, flat.dtype, flat[chunk].size), flat[chunk])
            self._meet(f"all_gather of {array.size} {array.dtype}")
            for rank in range(self.size):
                np.copyto(gathered[rank, chunk], self._slot(rank, flat.dtype, flat[chunk].size))
            self._meet("the end of all_gather")
        return gathered.reshape(self.size, *array.shape)

    def _swap(self, arrays, counts):
        """An exchange, chunk by chunk. The slot of a rank is divided into one part for each other rank."""
        dtype, flat = arrays[0].dtype, [_flat(array) for array in arrays]
        others = [rank for rank in range(self.size) if rank != self.rank]
        place = SLOT_BYTES // (self.size - 1) // 64 * 64
        received = [np.empty(size, dtype) for size in self._incoming(counts)]
        most = max(counts[p][q] for p in range(self.size) for q in range(self.size) if p != q)

        def at(sender, receiver, size):
            start = place * (receiver - (receiver > sender))
            return self._slots[sender, start : start + size * dtype.itemsize].view(dtype)

        for chunk in chunks(most, place // dtype.itemsize) or [slice(0)]:
            for rank in others:
                piece = flat[rank][chunk]
                np.copyto(at(self.rank, rank, piece.size), piece)
            self._meet(f"exchange of {sum(map(sum, counts))} {dtype}")
            for rank in others:
                piece = received[rank][chunk]
                np.copyto(piece, at(rank, self.rank, piece.size))
            self._meet("the end of exchange")
        return received

    def _slot(self, rank, dtype, size):
        return self._slots[rank, : size * dtype.itemsize].view(dtype)

    @staticmethod
    def _chunks(flat):
        """The chunks of an array; at least one, so that the ranks synchronise for an empty array too."""
        return chunks(flat.size, SLOT_BYTES // flat.itemsize) or [slice(0)]

    def _meet(self, what: str) -> None:
        """Synchronise: send `what` to the other ranks, and wait until all are in the same collective."""
        self._count += 1
        own = f"{what}, collective number {self._count}"
        patience = Patience(self._timeout)
        rank = None
        try:
            for connection in self._peers.values():
                connection.send_bytes(own.encode())
            for rank, connection in self._peers.items():
                while not connection.poll(TICK):
                    if patience.ended():
                        raise CommunicationError(
                            f"rank {rank} did not reach {own}, within {self._timeout:g} s (set by MINIDL_TIMEOUT): it hangs"
                        )
                other = connection.recv_bytes().decode()
                if other != own:
                    raise CommunicationError(f"rank {self.rank} is in {own}, but rank {rank} is in {other}")
        except (EOFError, OSError):
            gone = "another rank" if rank is None else f"rank {rank}"
            raise CommunicationError(f"{gone} has ended while rank {self.rank} was in {own}") from None


def _flat(array: np.ndarray) -> np.ndarray:
    """A flat view of an array. It is never a copy, as results that are written into a copy would be lost."""
    if not array.flags.c_contiguous:
        raise ValueError(f"a collective takes C-contiguous arrays; this one of shape {array.shape} has strides {array.strides}")
    return array.reshape(math.prod(array.shape))
