"""Data parallelism: every device has the whole network and a shard of each batch, and the gradients are summed.

With the loss of a shard divided by the size of the whole batch, L = sum over ranks of L_r, so dL/dw is the plain sum of what
each rank's backward gives, whatever the sizes of the shards. All start from equal weights and add equal sums to them, so they
stay equal. The sums go out in buckets while backward is still at work on earlier layers.
"""

import dataclasses

from ..autodiff import Tensor
from ..backend import Array
from ..nn import Module
from ..optim import Optimizer
from .communicator import Communicators, Work
from .sync_batch_norm import synchronize_batch_norm

BUCKET_BYTES = 4 << 20


@dataclasses.dataclass
class Bucket:
    """Neighbours in the optimiser's flat buffer of gradients, which are sent together."""

    gradients: Array
    parameters: list[Tensor]
    missing: int = 0  # gradients that backward has not given yet


class DataParallel:
    """Keeps a network and its optimiser equal on all ranks:

        loss = F.cross_entropy(model(shard), labels, reduction="sum") / batch_size_of_all_ranks
        optimizer.zero_grad();  loss.backward();  parallel.synchronize();  optimizer.step()

    Weights, buffers and the optimiser's state become those of rank 0. Batch normalisation takes the statistics of the whole
    batch. There is one backward a step. A parameter without a gradient counts as zeros.

    bucket_bytes: gradients are sent once there are about so many of them.
    """

    def __init__(self, model: Module, optimizer: Optimizer, communicators: Communicators, bucket_bytes: int = BUCKET_BYTES):
        state = (array for of_one in optimizer.state_dict()["state"].values() for array in of_one.values())
        for array in (*model.state_dict().values(), *state):
            communicators.main.broadcast(array)
        if communicators.size > 1:
            synchronize_batch_norm(model, communicators.main)
        self.communicators = communicators
        # From the last layer to the first: the order in which backward comes to them.
        self._buckets = [bucket for pair in reversed(optimizer.flat_gradients) for bucket in _buckets(*pair, bucket_bytes)]
        self._bucket_of = {id(p): bucket for bucket in self._buckets for p in bucket.parameters}
        for bucket in self._buckets:
            for p in bucket.parameters:
                p.on_gradient_ready = self._ready
        self._begin()

    def _begin(self) -> None:
        self._sent: list[Work] = []
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)

    def _ready(self, parameter: Tensor) -> None:
        """A gradient is complete. Buckets go out in the same order on all ranks, each once it and those before are full."""
        bucket = self._bucket_of[id(parameter)]
        bucket.missing -= 1
        if bucket.missing < 0:
            raise RuntimeError("a second backward before synchronize(); DataParallel takes one backward a step")
        while len(self._sent) < len(self._buckets) and not self._buckets[len(self._sent)].missing:
            gradients = self._buckets[len(self._sent)].gradients
            self._sent.append(self.communicators.gradients.all_reduce(gradients, async_op=True))

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


def _buckets(gradients: Array, parameters: list[Tensor], bucket_bytes: int) -> list[Bucket]:
    """A flat buffer and the parameters in it, cut from its end into pieces of at least bucket_bytes."""
    buckets: list[Bucket] = []
    stop = start = gradients.size
    members: list[Tensor] = []
    for p in reversed(parameters):
        start -= p.data.size
        members.append(p)
        if (stop - start) * gradients.itemsize >= bucket_bytes or p is parameters[0]:
            buckets.append(Bucket(gradients[start:stop], members))
            stop, members = start, []
    return buckets
