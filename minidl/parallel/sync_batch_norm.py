"""Batch normalisation over all devices: each device normalises its shard with the statistics of the whole batch."""

from .. import nn
from ..autodiff import Tensor
from ..backend import Array, get_array_module
from ..functional.normalization import BatchNorm, normalize_channels
from .communicator import Communicator


class BatchNormOverRanks(BatchNorm):
    """BatchNorm of a batch that is divided among ranks: mean, var, m, and the sums in dx are over all ranks.

    dgamma and dbeta are over the shard only: they are summed over the ranks with the other gradients.
    """

    def __init__(self, eps: float, communicator: Communicator):
        super().__init__(eps)
        self.communicator = communicator

    def statistics(self, x: Array) -> tuple:
        """The statistics of all ranks, merged: Chan et al. 1979. E[x^2] - E[x]^2 would lose digits if the mean is large."""
        xp, C = get_array_module(x), x.shape[1]
        mean, squares = self.kernels.channel_statistics(x)
        of_each = self.communicator.all_gather(xp.concatenate([xp.full(1, x.size // C, mean.dtype), mean, squares]))
        counts, means, squares = of_each[:, :1], of_each[:, 1 : C + 1], of_each[:, C + 1 :]
        count = counts.sum()
        mean = (counts * means).sum(axis=0) / count
        return count, mean, (squares + counts * (means - mean) ** 2).sum(axis=0)

    def over_batch(self, sums: Array) -> Array:
        self.communicator.all_reduce(sums)
        return sums


class Synchronized(nn.BatchNorm):
    """The base of the two layers: each replaces a batch normalisation and takes over its parameters and buffers."""

    def __init__(self, layer: nn.BatchNorm, communicator: Communicator):
        self.__dict__.update(layer.__dict__)
        self.communicator = communicator

    def normalize(self, x: Tensor, momentum: float) -> Tensor:
        function = BatchNormOverRanks(self.eps, self.communicator) if self.training else None
        state = self.running_mean, self.running_var, self.weight, self.bias
        return normalize_channels(function, x, *state, momentum, self.eps)


class SyncBatchNorm1d(Synchronized, nn.BatchNorm1d):
    """A BatchNorm1d over the batch of all ranks; the shard of a rank may be empty."""


class SyncBatchNorm2d(Synchronized, nn.BatchNorm2d):
    """A BatchNorm2d over the batch of all ranks; the shard of a rank may be empty."""


KINDS: dict[type, type[Synchronized]] = {nn.BatchNorm1d: SyncBatchNorm1d, nn.BatchNorm2d: SyncBatchNorm2d}


def synchronize_batch_norm(model: nn.Module, communicator: Communicator) -> None:
    """Replace every batch normalisation inside a network by one over all ranks, with the same parameters and buffers."""
    if isinstance(model, nn.BatchNorm):
        raise ValueError("a single batch normalisation cannot be replaced in place: put it into a Sequential")
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm):
                own = type(child)
                kind = KINDS.get(own) or type(f"Sync{own.__name__}", (Synchronized, own), {})  # keeps a subclass's forward
                setattr(module, name, kind(child, communicator))
