"""Data parallelism for the convolutions and model parallelism for the fully connected layers: Krizhevsky 2014.

Convolutions have few weights and many activations; fully connected layers have many weights and few activations. So each rank
computes the convolutions for its shard of the batch, and their few gradients are summed as in DataParallel. A fully connected
layer is divided by its outputs: each rank has some of them, with their weights, and computes them for the whole batch.

    The first layer gathers the activations of all images;  the next ones gather the outputs of all ranks;
    the last one sends the logits back to the ranks that have the images.

No rank ever needs the gradient, the velocity or the weights of another rank's outputs.
"""

from .. import nn
from ..autodiff import Tensor
from .collectives import all_to_all, gather, sizes_of_all
from .communicator import Communicator
from .sharding import Sizes, Step, dropout_of_part, leaves, make_equal, rows_of, sharded, shards

ELEMENTWISE = nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Dropout, nn.Identity, nn.Flatten


class Images:
    """How the images of the current batch are divided among the ranks."""

    def __init__(self, communicator: Communicator, outputs: Sizes):
        self.communicator, self.outputs = communicator, outputs
        self.sizes: Sizes = []

    def gather(self, x: Tensor) -> Tensor:
        """The activations of all ranks' images, from those of this rank's images."""
        self.sizes = sizes_of_all(x, self.communicator, 0)
        return gather(x, self.communicator, 0, self.sizes)

    def give_back(self, logits: Tensor) -> Tensor:
        """All logits of this rank's images, from this rank's part of the logits of all images."""
        return all_to_all(logits, self.communicator, 1, self.outputs, 0, self.sizes)


def hybrid(network: nn.Module, communicator: Communicator) -> None:
    """Divide the fully connected layers of a network among the ranks, in place.

    The network still takes a shard of the batch and returns the logits of that shard. All ranks start with rank 0's weights.
    Call this before you make the optimiser and its DataParallel. Raises ValueError, and changes nothing, if the network cannot
    be divided in this way.
    """
    layers = list(leaves(network))
    linear = [i for i, (_, _, layer) in enumerate(layers) if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError("hybrid parallelism divides the fully connected layers, and this network has none")
    for _, name, layer in layers[linear[0] + 1 :]:
        if not isinstance(layer, (nn.Linear, *ELEMENTWISE)):
            raise ValueError(f"hybrid parallelism takes no {type(layer).__name__} after a fully connected layer, as {name} is")
    for i in linear:
        _, name, layer = layers[i]
        if layer.out_features < communicator.size:
            raise ValueError(f"{name} has {layer.out_features} outputs, fewer than the {communicator.size} devices")
    make_equal(network, communicator)
    images = Images(communicator, shards(layers[linear[-1]][2].out_features, communicator.size))
    sizes: Sizes = []
    for i, (parent, name, layer) in enumerate(layers):
        if i in linear:
            before = images.gather if i == linear[0] else _gathering(communicator, sizes)
            sizes = shards(layer.out_features, communicator.size)
            after = images.give_back if i == linear[-1] else None
            setattr(parent, name, sharded(layer, communicator, sizes, before, after))
        elif isinstance(layer, nn.Dropout) and linear[0] < i < linear[-1]:
            setattr(parent, name, dropout_of_part(layer, rows_of(sizes, communicator.rank)))


def _gathering(communicator: Communicator, sizes: Sizes) -> Step:
    """A step that gathers activations, (N, sizes[rank]) on each rank."""
    return lambda x: gather(x, communicator, 1, sizes)
