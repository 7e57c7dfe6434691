"""The device that a process computes on."""

from collections.abc import Sequence

from minidl import set_matmul_precision, set_num_threads
from minidl.backend import use_device
from minidl.parallel import Communicators, mpi
from minidl.parallel.communicator import timeout


def join(
    backend: str, devices: Sequence[int], precision: str, threads: int, communicators: Communicators
) -> tuple[str, Communicators]:
    """The device that this process is to use from now on, one of `devices`, and how it reaches the others'."""
    set_num_threads(threads)  # sums are added up in another order on another number
    if backend == "numpy":
        return "numpy", communicators
    place = mpi.local_rank()[0] if mpi.started() else communicators.rank
    device = f"cupy:{devices[place]}"
    use_device(device)
    set_matmul_precision(precision)
    if communicators.size > 1:
        from minidl.parallel import nccl

        communicators = nccl.communicators(communicators, timeout())
    return device, communicators
