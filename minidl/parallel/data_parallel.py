"""Data parallelism: every device has the whole network and a shard of each batch, and the gradients are summed.

With the loss of a shard divided by the size of the whole batch, L = sum over ranks of L_r, so dL/dw is the plain sum of what
each rank's backward gives, whatever the sizes of the shards. All start from equal weights and add equal sums to them, so they
stay equal. The sums go out in buckets while backward is still at work on earlier layers.
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
    """Neighbours in the optimiser's flat buffer of gradients, which are sent once all of them are there, piece by piece."""

    pieces: list[Array]
    parameters: list[Tensor]
    missing: int = 0  # gradients that backward has not given yet


class DataParallel:
    """Keeps a network and its optimiser equal on all ranks:

        loss = F.cross_entropy(model(shard), labels, reduction="sum") / batch_size_of_all_ranks
        optimizer.zero_grad();  loss.backward();  parallel.synchronize();  optimizer.step()

    Weights, buffers and the optimiser's state become those of rank 0. Batch normalisation takes the statistics of the whole
    batch. There is one backward a step. A parameter without a gradient counts as zeros. What hybrid() or towers() has divided
    among the ranks stays with each as it is.

    bucket_bytes: gradients are sent once there are about so many of them, and no more than so many at once.
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
        # From the last layer to the first: the order in which backward comes to them.
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
        """A gradient is complete. Buckets go out in the same order on all ranks, each once it and those before are full."""
        bucket = self._bucket_of[id(parameter)]
        bucket.missing -= 1
        if bucket.missing < 0:
            raise RuntimeError("a second backward before synchronize(); DataParallel takes one backward a step")
        while self._waiting and not self._waiting[0].missing:
            for piece in self._waiting.pop(0).pieces:
                self._sent.append(self.communicators.gradients.all_reduce(piece, async_op=True))

    def synchronize(self) -> None:
        """After backward, before the update: the gradients of all ranks are in the place of this rank's."""
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
    """A flat buffer and the parameters in it, without this rank's own, cut from its end into buckets of at least bucket_bytes."""
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
