"""Collectives through NCCL, for CuPy arrays, between GPUs. One process for each GPU."""

from typing import Any

import cupy as cp
import numpy as np

from ..errors import CommunicationError, UserError
from .communicator import Communicator, Communicators, Work
from .watchdog import Watchdog

try:
    from cupy.cuda import nccl
except ImportError:
    nccl: Any = None  # type: ignore[no-redef]

TYPES = {
    "float16": "NCCL_FLOAT16",
    "float32": "NCCL_FLOAT32",
    "float64": "NCCL_FLOAT64",
    "int32": "NCCL_INT32",
    "int64": "NCCL_INT64",
    "uint8": "NCCL_UINT8",
}


def communicators(others: Communicators, timeout: float) -> Communicators:
    """The communicators of this process's current GPU. `others`: those of the same processes for NumPy arrays."""
    if nccl is None or not nccl.available:
        raise UserError(
            "several GPUs need NCCL, which is not installed: pip install nvidia-nccl-cu12 (or -cu13, as CuPy's); "
            "or train on one with --devices 0"
        )
    device = cp.cuda.Device()
    watchdog = Watchdog(others.rank, timeout, device.use)
    return Communicators(*(NCCLCommunicator(others.main, watchdog) for _ in Communicators._fields))


class Pending(Work):
    """A collective on the communicator's stream. It keeps `array` alive until wait() has ordered the computation after it."""

    def __init__(self, array, event):
        self.array, self.event = array, event

    def wait(self):
        cp.cuda.get_current_stream().wait_event(self.event)
        self.array = None


class NCCLCommunicator(Communicator):
    """A rank of a new NCCL communicator. Only barrier waits for the GPU.

    An asynchronous sum runs on a separate stream, between two events; all other collectives run on the current stream.
    """

    def __init__(self, others: Communicator, watchdog: Watchdog):
        self.rank, self.size = others.rank, others.size
        self._others, self._watchdog = others, watchdog
        identity = np.frombuffer(nccl.get_unique_id() if self.rank == 0 else bytes(128), np.uint8).copy()
        others.broadcast(identity)
        try:
            with watchdog.watch("the start of NCCL"):
                self._comm = nccl.NcclCommunicator(self.size, identity.tobytes(), self.rank)
        except nccl.NcclError as error:
            raise CommunicationError(
                f"rank {self.rank} cannot start NCCL ({error}); NCCL_DEBUG=INFO shows why. In a container, give it more shared "
                "memory (--shm-size=1g); if GPUs cannot reach each other, set NCCL_P2P_DISABLE=1"
            ) from None
        self._stream = cp.cuda.Stream(non_blocking=True)

    @property
    def host(self):
        return self._others

    def _run(self, what: str, array, stream, call) -> Any:
        """Launch call(pointer, count, type, stream). Returns the event after it."""
        _require(array)

        def launch():
            if array.size:
                call(array.data.ptr, array.size, _kind(array), stream.ptr)

        return self._watched(f"{what} of {array.size} {array.dtype}", stream, launch)

    def _watched(self, what: str, stream, launch) -> Any:
        """Call launch(), which puts a collective into the stream. Returns the event after it."""
        try:
            self._comm.check_async_error()
            launch()
        except nccl.NcclError as error:
            raise CommunicationError(f"rank {self.rank}: {what} failed ({error}); NCCL_DEBUG=INFO shows more") from None
        event = cp.cuda.Event(disable_timing=True)
        event.record(stream)
        self._watchdog.add(what, lambda: event.done)
        return event

    def _all_reduce(self, array, async_op):
        stream = current = cp.cuda.get_current_stream()
        if async_op:
            stream = self._stream
            ready = cp.cuda.Event(disable_timing=True)
            ready.record(current)
            stream.wait_event(ready)

        def call(pointer, count, kind, stream):
            self._comm.allReduce(pointer, pointer, count, kind, nccl.NCCL_SUM, stream)

        return Pending(array, self._run("all_reduce", array, stream, call))

    def _broadcast(self, array, root):
        def call(pointer, count, kind, stream):
            self._comm.bcast(pointer, count, kind, root, stream)

        self._run("broadcast", array, cp.cuda.get_current_stream(), call)

    def _all_gather(self, array):
        gathered = cp.empty((self.size, *array.shape), array.dtype)

        def call(pointer, count, kind, stream):
            self._comm.allGather(pointer, gathered.data.ptr, count, kind, stream)

        self._run("all_gather", array, cp.cuda.get_current_stream(), call)
        return gathered

    def _exchange(self, arrays, counts):
        for array in arrays:
            _require(array)
        received = [cp.empty(size, arrays[0].dtype) for size in self._incoming(counts)]
        stream, kind = cp.cuda.get_current_stream(), _kind(arrays[0])

        def launch():
            nccl.groupStart()
            for rank in range(self.size):
                if rank != self.rank and arrays[rank].size:
                    self._comm.send(arrays[rank].data.ptr, arrays[rank].size, kind, rank, stream.ptr)
                if rank != self.rank and received[rank].size:
                    self._comm.recv(received[rank].data.ptr, received[rank].size, kind, rank, stream.ptr)
            nccl.groupEnd()

        self._watched(f"exchange of {sum(map(sum, counts))} {arrays[0].dtype}", stream, launch)
        return received

    def barrier(self):
        self._all_reduce(cp.zeros(1, np.float32), False)
        cp.cuda.get_current_stream().synchronize()


def _require(array) -> None:
    if array.device.id != cp.cuda.runtime.getDevice() or not array.flags.c_contiguous:
        raise ValueError(f"a collective takes C-contiguous arrays on the current device; this one of shape {array.shape} is not")


def _kind(array) -> int:
    return getattr(nccl, TYPES[array.dtype.name])
