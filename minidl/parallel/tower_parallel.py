"""The two GPUs of Krizhevsky 2012, section 3.5 and figure 2: each has one half of every layer, for all images.

In a convolution with two groups, each device computes one group from its own maps. Before a convolution with one group, and
before each fully connected layer, the devices exchange their halves, so that each reads all activations. The last layer and the
loss are on the first device only. No weights and no gradients of weights are sent: each device updates its own weights.
"""

import copy

from .. import nn
from .collectives import gather
from .communicator import Communicator
from .sharding import Sizes, Step, dropout_of_part, leaves, make_equal, rows_of, sharded

WITHIN_A_MAP = nn.ReLU, nn.Tanh, nn.Sigmoid, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity


def towers(network: nn.Module, communicator: Communicator, within_a_map: tuple[type[nn.Module], ...] = ()) -> None:
    """Divide a network that was made for two towers between two ranks, in place.

    Both ranks then take all images of a batch. The first returns the logits; the second returns logits of no image,
    (0, classes), and its loss is that of an empty shard. Both start with rank 0's weights. Call this before you make the
    optimiser. within_a_map: classes of layers, besides the usual ones, in which each output depends on one map only.

    Raises ValueError, and changes nothing, for a network without two towers, and unless there are two ranks.
    """
    if communicator.size != 2:
        raise ValueError(f"towers take two devices, and there are {communicator.size}")
    layers = list(leaves(network))
    _check([layer for _, _, layer in layers], within_a_map)
    make_equal(network, communicator)
    last = max(i for i, (_, _, layer) in enumerate(layers) if isinstance(layer, nn.Linear))
    sizes: Sizes = []  # the channels of the current activations on each rank; empty for the image, which both ranks have whole
    for i, (parent, name, layer) in enumerate(layers):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            outputs = len(layer.weight.data)
            own_maps = isinstance(layer, nn.Conv2d) and layer.groups == 2
            before = None if own_maps or not sizes else _reading(communicator, [0] if i == last else [0, 1])
            sizes = [outputs, 0] if i == last else [outputs // 2] * 2
            after = _nothing(outputs) if i == last and communicator.rank else None
            layer = sharded(layer, communicator, sizes, before, after)
            if own_maps:
                layer.groups = 1
        elif isinstance(layer, nn.LocalResponseNorm):
            layer = copy.copy(layer)
            layer.groups = 1
        elif isinstance(layer, nn.Dropout):
            layer = dropout_of_part(layer, rows_of(sizes, communicator.rank))
        setattr(parent, name, layer)


def _reading(communicator: Communicator, readers: Sizes) -> Step:
    """A step that gathers the halves of both ranks on the readers."""
    return lambda x: gather(x, communicator, 1, [x.shape[1]] * 2, readers)


def _nothing(outputs: int) -> Step:
    """A step that makes logits of no image, (0, outputs), from the empty output of a last layer without weights."""
    return lambda x: x.reshape(0, outputs)


def _check(layers: list[nn.Module], within_a_map: tuple[type[nn.Module], ...]) -> None:
    """Raise ValueError unless these are the layers of two towers."""
    grouped = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.groups == 2]
    if not grouped or not any(isinstance(layer, nn.Linear) for layer in layers):
        raise ValueError("this network has no two towers: it has no convolution with two groups, or no fully connected layer")
    for layer in layers:
        alone = isinstance(layer, nn.LocalResponseNorm) and layer.groups == 2
        divisible = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups in (1, 2))
        if not (alone or divisible or isinstance(layer, (nn.Dropout, *WITHIN_A_MAP, *within_a_map))):
            raise ValueError(f"this network has no two towers: {layer!r} joins them")
