"""Training on several devices: one process each, which share nothing but a communicator."""

from . import mpi as mpi
from .communicator import ALONE as ALONE
from .communicator import Communicator as Communicator
from .communicator import Communicators as Communicators
from .data_parallel import DataParallel as DataParallel
from .hybrid_parallel import hybrid as hybrid
from .input_batches import feed as feed
from .processes import launch as launch
from .tower_parallel import towers as towers
