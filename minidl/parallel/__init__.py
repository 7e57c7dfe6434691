"""Training on several devices: one process for each device. The processes share nothing but a communicator."""

from . import mpi
from .communicator import ALONE, Communicator, Communicators
from .data_parallel import DataParallel
from .hybrid_parallel import hybrid
from .input_batches import feed
from .processes import launch
from .tower_parallel import towers

__all__ = ["ALONE", "Communicator", "Communicators", "DataParallel", "feed", "hybrid", "launch", "mpi", "towers"]
