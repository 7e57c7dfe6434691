"""The networks, one line for each layer, with the shape (C x H x W) of its output for an image of the usual size.

"The paper" is Krizhevsky 2012.
"""

from collections import ChainMap
from collections.abc import Callable

import minidl.functional as F
from minidl.functional.arguments import is_integer
from minidl.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    init,
)
from minidl.partition import ceil_div

from .variants import VARIANTS


def cifar_bn(num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> Sequential:
    """AlexNet for small images with batch normalisation after every convolution: variant 1 of the study deck."""
    side = _side_after_pooling(image_size)
    network = Sequential(
        {
            "conv1": Conv2d(in_channels, 96, 5, padding=2),  # 96 x 32 x 32
            "bn1": BatchNorm2d(96),
            "relu1": ReLU(),
            "pool1": MaxPool2d(3, 2),  # 96 x 15 x 15
            "conv2": Conv2d(96, 256, 5, padding=2),  # 256 x 15 x 15
            "bn2": BatchNorm2d(256),
            "relu2": ReLU(),
            "pool2": MaxPool2d(3, 2),  # 256 x 7 x 7
            "conv3": Conv2d(256, 384, 3, padding=1),  # 384 x 7 x 7
            "bn3": BatchNorm2d(384),
            "relu3": ReLU(),
            "conv4": Conv2d(384, 384, 3, padding=1),  # 384 x 7 x 7
            "bn4": BatchNorm2d(384),
            "relu4": ReLU(),
            "conv5": Conv2d(384, 256, 3, padding=1),  # 256 x 7 x 7
            "bn5": BatchNorm2d(256),
            "relu5": ReLU(),
            "pool5": MaxPool2d(3, 2),  # 256 x 3 x 3
            "flatten": Flatten(),  # 2304
            "fc6": Linear(256 * side * side, 4096),
            "relu6": ReLU(),
            "drop6": Dropout(0.5),
            "fc7": Linear(4096, 4096),
            "relu7": ReLU(),
            "drop7": Dropout(0.5),
            "fc8": Linear(4096, num_classes),
        }
    )
    _start_small(network)
    return network


def cifar_lrn(num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> Sequential:
    """AlexNet for small images with local response normalisation after conv1 and conv2: variant 2 of the study deck."""
    side = _side_after_pooling(image_size)
    network = Sequential(
        {
            "conv1": Conv2d(in_channels, 96, 5, padding=2),  # 96 x 32 x 32
            "relu1": ReLU(),
            "lrn1": LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0),
            "pool1": MaxPool2d(3, 2),  # 96 x 15 x 15
            "conv2": Conv2d(96, 256, 5, padding=2),  # 256 x 15 x 15
            "relu2": ReLU(),
            "lrn2": LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0),
            "pool2": MaxPool2d(3, 2),  # 256 x 7 x 7
            "conv3": Conv2d(256, 384, 3, padding=1),  # 384 x 7 x 7
            "relu3": ReLU(),
            "conv4": Conv2d(384, 384, 3, padding=1),  # 384 x 7 x 7
            "relu4": ReLU(),
            "conv5": Conv2d(384, 256, 3, padding=1),  # 256 x 7 x 7
            "relu5": ReLU(),
            "pool5": MaxPool2d(3, 2),  # 256 x 3 x 3
            "flatten": Flatten(),  # 2304
            "fc6": Linear(256 * side * side, 4096),
            "relu6": ReLU(),
            "drop6": Dropout(0.5),
            "fc7": Linear(4096, 4096),
            "relu7": ReLU(),
            "drop7": Dropout(0.5),
            "fc8": Linear(4096, num_classes),
        }
    )
    _start_small(network)
    return network


class CeilConv2d(Conv2d):
    """A convolution whose last window may extend beyond the image: OH = ceil((H - KH) / stride) + 1, as in cuda-convnet."""

    def forward(self, x):
        over = [-(n - k) % s for n, k, s in zip(x.shape[2:], self.weight.shape[2:], self.stride, strict=True)]
        return super().forward(F.pad(x, (0, over[1], 0, over[0])) if any(over) else x)


class SameMapNorm(Module):
    """Response normalisation within each map (cuda-convnet's rnorm), which net 145 has after lrn2:

    y = x / (1 + alpha mean of x^2 in the size x size window around x)^beta, with zeros beyond the map's borders.
    """

    def __init__(self, size: int, alpha: float, beta: float):
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, x):
        return x * (1 + self.alpha * F.avg_pool2d(x * x, self.size, 1, self.size // 2)) ** -self.beta

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}"


class HalvedDropout(Dropout):
    """Dropout as in the paper, section 4.2: kept activations are not scaled in training, and all are halved in evaluation.

    In both cases the output is half of Dropout's. With Dropout, the paper's initial weights would give logits four times as
    large, too large for the paper's learning rate.
    """

    def forward(self, x):
        return super().forward(x) * 0.5


def alexnet_2012(num_classes: int = 1000, in_channels: int = 3, image_size: int = 224) -> Sequential:
    """The paper's network (section 3.5, figure 2). The two GPUs' towers are the groups of conv2, conv4, conv5 and the LRNs.

    The paper gives the image size 224, but its map sizes need 227. Its code rounds the size of conv1's output up, so that both
    image sizes give 55.
    """
    side = _side_after_pooling(ceil_div(image_size - 11, 4) + 1)
    network = Sequential(
        {
            "conv1": CeilConv2d(in_channels, 96, 11, stride=4),  # 96 x 55 x 55
            "relu1": ReLU(),
            "lrn1": LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, groups=2),
            "pool1": MaxPool2d(3, 2),  # 96 x 27 x 27
            "conv2": Conv2d(96, 256, 5, padding=2, groups=2),  # 256 x 27 x 27
            "relu2": ReLU(),
            "lrn2": LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, groups=2),
            "pool2": MaxPool2d(3, 2),  # 256 x 13 x 13
            "conv3": Conv2d(256, 384, 3, padding=1),  # 384 x 13 x 13
            "relu3": ReLU(),
            "conv4": Conv2d(384, 384, 3, padding=1, groups=2),  # 384 x 13 x 13
            "relu4": ReLU(),
            "conv5": Conv2d(384, 256, 3, padding=1, groups=2),  # 256 x 13 x 13
            "relu5": ReLU(),
            "pool5": MaxPool2d(3, 2),  # 256 x 6 x 6
            "flatten": Flatten(),  # 9216
            "fc6": Linear(256 * side * side, 4096),
            "relu6": ReLU(),
            "drop6": HalvedDropout(0.5),
            "fc7": Linear(4096, 4096),
            "relu7": ReLU(),
            "drop7": HalvedDropout(0.5),
            "fc8": Linear(4096, num_classes),
        }
    )
    _start_as_in_2012(network)
    return network


def net_145(num_classes: int = 1000, in_channels: int = 3, image_size: int = 224) -> Sequential:
    """The paper's network as its code ran it (net 145, released in 2025), where that differs from the text.

    After conv1 and conv5 the ReLU follows the pooling; a second normalisation, within each map, follows lrn2; and conv3, conv4
    and conv5 start from N(0, .03).
    """
    side = _side_after_pooling(ceil_div(image_size - 11, 4) + 1)
    network = Sequential(
        {
            "conv1": CeilConv2d(in_channels, 96, 11, stride=4),  # 96 x 55 x 55
            "lrn1": LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, groups=2),
            "pool1": MaxPool2d(3, 2),  # 96 x 27 x 27
            "relu1": ReLU(),
            "conv2": Conv2d(96, 256, 5, padding=2, groups=2),  # 256 x 27 x 27
            "relu2": ReLU(),
            "lrn2": LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, groups=2),
            "norm2": SameMapNorm(5, alpha=1e-3, beta=0.75),
            "pool2": MaxPool2d(3, 2),  # 256 x 13 x 13
            "conv3": Conv2d(256, 384, 3, padding=1),  # 384 x 13 x 13
            "relu3": ReLU(),
            "conv4": Conv2d(384, 384, 3, padding=1, groups=2),  # 384 x 13 x 13
            "relu4": ReLU(),
            "conv5": Conv2d(384, 256, 3, padding=1, groups=2),  # 256 x 13 x 13
            "pool5": MaxPool2d(3, 2),  # 256 x 6 x 6
            "relu5": ReLU(),
            "flatten": Flatten(),  # 9216
            "fc6": Linear(256 * side * side, 4096),
            "relu6": ReLU(),
            "drop6": HalvedDropout(0.5),
            "fc7": Linear(4096, 4096),
            "relu7": ReLU(),
            "drop7": HalvedDropout(0.5),
            "fc8": Linear(4096, num_classes),
        }
    )
    _start_as_in_2012(network, {"conv3": 0.03, "conv4": 0.03, "conv5": 0.03})
    return network


def alexnet_torchvision(num_classes: int = 1000, in_channels: int = 3) -> Sequential:
    """torchvision's AlexNet, the network of one tower in Krizhevsky 2014 ("One weird trick"), with torchvision's names.

    Adaptive pooling allows images of any size from 63 x 63.
    """
    network = Sequential(
        {
            "features": Sequential(
                Conv2d(in_channels, 64, 11, stride=4, padding=2),  # 64 x 55 x 55
                ReLU(),
                MaxPool2d(3, 2),  # 64 x 27 x 27
                Conv2d(64, 192, 5, padding=2),  # 192 x 27 x 27
                ReLU(),
                MaxPool2d(3, 2),  # 192 x 13 x 13
                Conv2d(192, 384, 3, padding=1),  # 384 x 13 x 13
                ReLU(),
                Conv2d(384, 256, 3, padding=1),  # 256 x 13 x 13
                ReLU(),
                Conv2d(256, 256, 3, padding=1),  # 256 x 13 x 13
                ReLU(),
                MaxPool2d(3, 2),  # 256 x 6 x 6
            ),
            "avgpool": AdaptiveAvgPool2d(6),  # 256 x 6 x 6
            "flatten": Flatten(),  # 9216
            "classifier": Sequential(
                Dropout(0.5),
                Linear(256 * 6 * 6, 4096),
                ReLU(),
                Dropout(0.5),
                Linear(4096, 4096),
                ReLU(),
                Linear(4096, num_classes),
            ),
        }
    )
    _start_small(network)
    return network


MODELS: dict[str, Callable[..., Sequential]] = {
    "cifar-bn": cifar_bn,
    "cifar-lrn": cifar_lrn,
    "alexnet-2012": alexnet_2012,
    "net-145": net_145,
    "alexnet-torchvision": alexnet_torchvision,
}
NETWORKS = ChainMap(VARIANTS, MODELS)
# Height and width of the images that each network is made for.
IMAGE_SIZE = {"cifar-bn": 32, "cifar-lrn": 32, "alexnet-2012": 224, "net-145": 224, "alexnet-torchvision": 224}
IMAGE_SIZE |= dict.fromkeys(VARIANTS, 32)
# Height and width of the smallest images that have a pixel left after the last pooling.
LEAST_IMAGE_SIZE = {"cifar-bn": 15, "cifar-lrn": 15, "alexnet-2012": 64, "net-145": 64, "alexnet-torchvision": 63}
LEAST_IMAGE_SIZE |= dict.fromkeys(VARIANTS, 15)
LEAST_IMAGE_SIZE |= dict.fromkeys(("small-pool-3-2", "small-pool-2-2", "four-layers-relu", "four-layers-tanh"), 8)


def create(name: str, num_classes: int | None = None, in_channels: int = 3, image_size: int | None = None) -> Sequential:
    """A network by name, freshly initialised from minidl.random's seed.

    num_classes: by default 1000 for the AlexNets of ImageNet and 10 for the others. image_size: height and width of the images,
    by default 224 for the AlexNets of ImageNet and 32 for the others.
    """
    if name not in NETWORKS:
        raise ValueError(f"no model {name!r}; there are {', '.join(NETWORKS)}")
    for what, value in {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}.items():
        if value is not None and not is_integer(value, 1):
            raise ValueError(f"{what} is an integer of at least 1; got {value!r}")
    if image_size is not None and image_size < LEAST_IMAGE_SIZE[name]:
        least = LEAST_IMAGE_SIZE[name]
        raise ValueError(f"{name} takes images of at least {least} x {least}; got {image_size} x {image_size}")
    settings = {"num_classes": num_classes, "image_size": None if name == "alexnet-torchvision" else image_size}
    return NETWORKS[name](in_channels=in_channels, **{key: value for key, value in settings.items() if value is not None})


def layers(network: Module) -> list[tuple[str, Module]]:
    """(name, layer) in the order of the forward pass."""
    return [(name, module) for name, module in network.named_modules() if not list(module.named_children())]


def _start_as_in_2012(network: Module, wider: dict[str, float] | None = None) -> None:
    """Initialise as in section 5: weights from N(0, .01²); biases of 1 in the layers where these give ReLUs positive inputs.

    wider: layer -> another standard deviation.
    """
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        layer = getattr(network, name)
        init.normal_(layer.weight, std=(wider or {}).get(name, 0.01))
        init.constant_(layer.bias, 1.0 if name in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0)


def _start_small(network: Module) -> None:
    """Initialise the fully connected layers from N(0, .01²), as in the paper.

    He's initialisation would keep their 4,096 activations large, and dropout doubles the mean of their squares: the logits would
    start far apart, and a learning rate that suits the convolutions would be too large for the last layers.
    """
    for _, layer in network.named_modules():
        if isinstance(layer, Linear):
            init.normal_(layer.weight, std=0.01)


def _side_after_pooling(side: int) -> int:
    """Height and width of a map of side x side after three poolings of size 3, stride 2."""
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return side
