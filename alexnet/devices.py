"""The device that a process computes on."""

from collections.abc import Sequence

from minidl import set_matmul_precision, set_num_threads
from minidl.backend import use_device
from minidl.parallel import Communicators, mpi
from minidl.parallel.communicator import timeout


def join(
    backend: str, devices: Sequence[int], precision: str, threads: int, communicators: Communicators
) -> tuple[str, Communicators]:
    """Set the device that this process uses from now on, one of `devices`. Returns it, and communicators for such devices."""
    set_num_threads(threads)  # the number of threads affects the order, and so the rounding, of sums
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
