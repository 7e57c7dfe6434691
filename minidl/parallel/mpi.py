"""Collectives through mpi4py, for NumPy arrays, between processes that mpiexec has started on one machine or several."""

import os
import re
import stat
import warnings
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..errors import UserError
from .communicator import Communicator, Communicators, Work
from .watchdog import Watchdog

# The variables in which MPICH, Open MPI and Slurm tell a process the number of ranks, and its local rank on the machine.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
LOCAL_RANKS = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")


def started() -> bool:
    """Whether an MPI launcher has started this process and others. Only then is mpi4py imported."""
    return _told() != 1


def _told() -> int:
    """The number of ranks that the innermost launcher has set: Slurm may have started an MPI launcher."""
    for name in SIZES:
        text = os.environ.get(name, "")
        if text and not re.fullmatch("0*[1-9][0-9]{,5}", text):
            raise UserError(f"{name}={text} is not a number of processes: unset {name}, or start with mpiexec")
        if text:
            return int(text)
    return 1


def first_on_machine() -> bool:
    """Whether this process prints the messages that are the same for all processes of its machine.

    It does if it is alone, or has local rank 0. Variables that a shell has inherited from a launcher do not silence it.
    """
    try:
        alone = not started()
    except UserError:
        alone = True
    places = [os.environ.get(name, "0") for name in LOCAL_RANKS]
    return alone or all(not place.isdecimal() or not place.strip("0") for place in places)


def _mpi():
    number = os.environ.get("PMI_FD")  # MPICH's socket to its launcher; if it is invalid, MPICH ends the process
    try:
        if number is not None and not stat.S_ISSOCK(os.fstat(int(number)).st_mode):
            raise ValueError("it is not a socket")
    except (ValueError, OverflowError, OSError):
        raise UserError(
            f"PMI_FD={number} is not a connection to an MPI launcher: start with mpiexec, or unset PMI_FD and PMI_SIZE"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # world_size reports it
            import mpi4py

            mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(f"started by mpiexec, but mpi4py does not work ({error}): pip install -e '.[mpi]'") from None
    if not MPI.Is_initialized():
        if os.environ.get("OMPI_COMM_WORLD_SIZE") and MPI.get_vendor()[0] != "Open MPI":  # MPICH would end the process
            raise _other_launcher(1)
        MPI.Init_thread()
    return MPI


def world_size() -> int:
    """The number of ranks. Raises UserError if MPI and the launcher disagree on it: each process would train alone."""
    size = _mpi().COMM_WORLD.Get_size()
    if size != _told():
        raise _other_launcher(size)
    return size


def _other_launcher(size: int) -> UserError:
    return UserError(
        f"{_told()} processes were started, but MPI finds {size}: the launcher and mpi4py belong to different MPI "
        "libraries; start with the mpiexec of mpi4py's MPI, or with srun --mpi=pmi2 (MPICH) or --mpi=pmix (Open MPI); or start "
        f"without a launcher, and unset {', '.join(name for name in SIZES if os.environ.get(name))}"
    )


def local_rank() -> tuple[int, int]:
    """(local rank, local size): the rank of this process among those on its machine, and their number."""
    here = _mpi().COMM_WORLD.Split_type(_mpi().COMM_TYPE_SHARED)
    return here.Get_rank(), here.Get_size()


def from_rank_0(value: Any) -> Any:
    """Rank 0's value, which must be picklable, on all ranks."""
    return _mpi().COMM_WORLD.bcast(value)


def communicators(timeout: float) -> Communicators:
    """The communicators of this process with all others that the launcher has started."""
    world = _mpi().COMM_WORLD
    _unname_shared_memory()
    watchdog = Watchdog(world.Get_rank(), timeout)
    return Communicators(*(MPICommunicator(world.Dup(), watchdog) for _ in Communicators._fields))


def _unname_shared_memory() -> None:
    """Remove the names of MPICH's shared memory from /dev/shm, where it would stay if a rank were killed."""
    _mpi().COMM_WORLD.Barrier()  # all have opened it
    maps = Path("/proc/self/maps")
    for name in set(re.findall(r"/dev/shm/mpich_shm\S*", maps.read_text() if maps.exists() else "")):
        Path(name).unlink(missing_ok=True)


def abort(status: int) -> NoReturn:
    """End all ranks with this exit status."""
    _mpi().COMM_WORLD.Abort(status)
    raise SystemExit(status)


class Pending(Work):
    def __init__(self, request, watch):
        self.request, self.watch = request, watch

    def wait(self):
        with self.watch:
            self.request.Wait()


class MPICommunicator(Communicator):
    """A rank of an MPI communicator that is used for nothing else."""

    def __init__(self, comm, watchdog: Watchdog):
        self.comm, self.watchdog = comm, watchdog
        self.rank, self.size = comm.Get_rank(), comm.Get_size()

    def _watch(self, name: str, array):
        return self.watchdog.watch(f"{name} of {array.size} {array.dtype}")

    def _all_reduce(self, array, async_op):
        work = Pending(self.comm.Iallreduce(_mpi().IN_PLACE, array), self._watch("all_reduce", array))
        if not async_op:
            work.wait()
        return work

    def _broadcast(self, array, root):
        with self._watch("broadcast", array):
            self.comm.Bcast(array, root)

    def _all_gather(self, array):
        gathered = np.empty((self.size, *array.shape), array.dtype)
        with self._watch("all_gather", array):
            self.comm.Allgather(array, gathered)
        return gathered

    def _exchange(self, arrays, counts):
        received = [np.empty(size, arrays[0].dtype) for size in self._incoming(counts)]
        with self.watchdog.watch(f"exchange of {sum(map(sum, counts))} {arrays[0].dtype}"):
            others = [rank for rank in range(self.size) if rank != self.rank]
            requests = [self.comm.Irecv(received[rank], rank) for rank in others if received[rank].size]
            requests += [self.comm.Isend(arrays[rank], rank) for rank in others if arrays[rank].size]
            _mpi().Request.Waitall(requests)
        return received

    def barrier(self):
        with self.watchdog.watch("barrier"):
            self.comm.Barrier()
