"""The number of bytes that ranks send each other in a training step: docs/parallel.md derives it, communicators count it."""

import math
from collections.abc import Iterator
from typing import Any

from .. import nn
from ..inspection import summary
from .sharding import leaves, shards


def bytes_sent(network: nn.Module, input_shape: tuple[int, ...], way: str, batch_size: int, ranks: int) -> int:
    """The bytes that all ranks together send for one batch, from forward to the sums of gradients.

    network: undivided, with all parameters trained. way: "data", "hybrid" or "towers". input_shape: (C, H, W) of an image.
    """
    if ranks == 1:
        return 0
    layers = list(_layers(network, input_shape))
    linear = [i for i, (layer, _) in enumerate(layers) if isinstance(layer, nn.Linear)]
    total = 0
    for i, (layer, inputs) in enumerate(layers):
        parameters = [p for p in vars(layer).values() if isinstance(p, nn.Parameter)]
        itemsize = parameters[0].dtype.itemsize if parameters else 0
        activations = batch_size * math.prod(inputs) * itemsize  # the layer's input, of all images
        if way == "towers":
            meets = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1 and i > 0)
            # Each reader receives one half, and sends back the gradient of that half. The last layer has one reader.
            total += activations * (1 if i == linear[-1] else 2) if meets else 0
        elif way == "hybrid" and i in linear:
            # Each rank receives the activations of all others, and sends back their gradients.
            total += 2 * (ranks - 1) * activations
            total += ranks * (ranks - 1) * 8 if i == linear[0] else 0  # the number of images on each rank
            if i == linear[-1]:
                images, outputs = shards(batch_size, ranks), shards(layer.out_features, ranks)
                own = sum(a * b for a, b in zip(images, outputs, strict=True))
                total += 2 * (batch_size * layer.out_features - own) * itemsize
        else:
            # An all-reduce: each rank receives its shard from all others, and sends them the sum.
            total += 2 * (ranks - 1) * sum(p.data.nbytes for p in parameters)
            if isinstance(layer, nn.BatchNorm):
                channels = layer.num_features
                total += ranks * (ranks - 1) * (2 * channels + 1) * 8  # count, means and squares, in float64
                total += 2 * (ranks - 1) * 2 * channels * itemsize  # the two sums that dx needs
    return total


def _layers(network: nn.Module, input_shape: tuple[int, ...]) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """(layer, the shape of its input for one image), in the order of the forward pass."""
    rows = summary(network, input_shape)
    shapes = [input_shape, *(row.output_shape for row in rows)]
    for (_, _, layer), shape in zip(leaves(network), shapes, strict=False):
        yield layer, shape
