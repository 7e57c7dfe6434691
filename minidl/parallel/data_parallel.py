"""Data parallelism: each device has the whole network and a shard of each batch, and the gradients are summed.

Each rank divides the loss of its shard by the size of the whole batch. So L = sum over ranks of L_r, and dL/dw is the sum of the
gradients of all ranks, whatever the sizes of the shards. All ranks start with equal weights and update them with equal sums, so
the weights stay equal. Gradients are sent in buckets while backward still computes those of earlier layers.
"""

import dataclasses
from collections.abc import Iterator

from ..autodiff import Tensor
from ..backend import Array
from ..nn import Module
from ..optim import Optimizer
from ..partition import chunks
from .communicator import Communicators, Work
from .sharding import sharded_parameters
from .sync_batch_norm import synchronize_batch_norm

BUCKET_BYTES = 4 << 20


@dataclasses.dataclass
class Bucket:
    """Adjacent gradients in the optimiser's flat buffer. They are sent, piece by piece, when all of them are complete."""

    pieces: list[Array]
    parameters: list[Tensor]
    missing: int = 0  # the number of gradients that are not complete yet


class DataParallel:
    """Keeps a network and its optimiser equal on all ranks:

        loss = F.cross_entropy(model(shard), labels, reduction="sum") / batch_size_of_all_ranks
        optimizer.zero_grad();  loss.backward();  parallel.synchronize();  optimizer.step()

    All ranks start with the weights, buffers and optimiser state of rank 0. Batch normalisation uses the statistics of the
    whole batch. Call backward once for each step. A missing gradient counts as zeros. Parameters that hybrid() or towers() has
    divided among the ranks are neither copied nor summed.

    bucket_bytes: the least size of a bucket, and the most bytes that are sent at once.
    """

    def __init__(self, model: Module, optimizer: Optimizer, communicators: Communicators, bucket_bytes: int = BUCKET_BYTES):
        divided = sharded_parameters(model)
        own = {id(parameter) for name, parameter in model.named_parameters() if name in divided}
        for name, array in model.state_dict().items():
            if name not in divided:
                communicators.main.broadcast(array)
        for parameter, state in zip(optimizer.parameters, optimizer.state_dict()["state"].values(), strict=True):
            for array in state.values() if id(parameter) not in own else ():
                communicators.main.broadcast(array)
        if communicators.size > 1:
            synchronize_batch_norm(model, communicators.main)
        self.communicators = communicators
        # From the last layer to the first, the order in which backward computes them.
        self._buckets = [
            bucket
            for gradients, parameters in reversed(optimizer.flat_gradients)
            for bucket in _buckets(gradients, parameters, own, bucket_bytes)
        ]
        self._bucket_of = {id(p): bucket for bucket in self._buckets for p in bucket.parameters}
        for bucket in self._buckets:
            for p in bucket.parameters:
                p.on_gradient_ready = self._ready
        self._begin()

    def _begin(self) -> None:
        self._sent: list[Work] = []
        self._waiting = list(self._buckets)
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)

    def _ready(self, parameter: Tensor) -> None:
        """Count a complete gradient. A bucket is sent when it and all before it are full: in the same order on all ranks."""
        bucket = self._bucket_of[id(parameter)]
        bucket.missing -= 1
        if bucket.missing < 0:
            raise RuntimeError("backward was called twice before synchronize(); call it once for each step")
        while self._waiting and not self._waiting[0].missing:
            for piece in self._waiting.pop(0).pieces:
                self._sent.append(self.communicators.gradients.all_reduce(piece, async_op=True))

    def synchronize(self) -> None:
        """Replace each gradient by its sum over all ranks. Call this after backward and before the update."""
        for bucket in self._buckets:
            for p in bucket.parameters:
                if p.grad is None:
                    p.grad_buffer[...] = 0
                    p.grad = p.grad_buffer
                    self._ready(p)
        for work in self._sent:
            work.wait()
        self._begin()


def _buckets(gradients: Array, parameters: list[Tensor], own: set[int], bucket_bytes: int) -> Iterator[Bucket]:
    """Cut a flat buffer of gradients, from its end, into buckets of at least bucket_bytes. Parameters in `own` are left out."""
    stop = start = gradients.size
    members: list[Tensor] = []

    def bucket() -> Bucket:
        flat = gradients[start:stop]
        return Bucket([flat[piece] for piece in chunks(flat.size, max(1, bucket_bytes // flat.itemsize))], members)

    for p in reversed(parameters):
        if id(p) in own and members:
            yield bucket()
            members = []
        start -= p.data.size
        if id(p) not in own:
            members.append(p)
        if not members:
            stop = start
        elif (stop - start) * gradients.itemsize >= bucket_bytes:
            yield bucket()
            stop, members = start, []
    if members:
        yield bucket()
