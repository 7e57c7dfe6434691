"""Networks that differ from the CIFAR networks in one thing, to measure its effect (`python -m alexnet reproduce`)."""

from collections.abc import Callable
from functools import partial

from minidl.nn import (
    AvgPool2d,
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
    Tanh,
    init,
)

KERNELS, UNITS = (96, 256, 384, 384, 256), 4096  # of the CIFAR networks: of the five convolutions, and of fc6 and fc7


def cifar_variant(
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    *,
    width: float = 0.25,
    normalization: str = "lrn",
    pooling: str = "3/2",
    dropout: float = 0.5,
    towers: str = "one",
) -> Sequential:
    """The CIFAR network with `width` times its kernels and units (rounded to even numbers), and one thing changed.

    normalization: "lrn" (after conv1 and conv2; alpha is divided by the size, as in the AlexNet paper's code and PyTorch),
    "lrn-paper" (not divided, as printed in Krizhevsky 2012, section 3.3), "lrn-tensorflow" (TensorFlow's defaults), "bn" (after
    every convolution) or "none".
    pooling: "3/2", windows of 3 x 3 at stride 2, "2/2", or "3/2-ceil", which gives maps as large as those of "2/2".
    towers: "one"; "half", with half the kernels in conv1 to conv4 (Krizhevsky 2012, footnote 2); "two", whose
    halves meet at conv3 and in the fully connected layers (section 3.5); "apart", whose halves meet in fc8 only.
    """
    groups = 1 if towers in ("one", "half") else 2
    lone = groups if towers == "apart" else 1  # groups of the layers in which two towers meet
    c1, c2, c3, c4, c5, units = (2 * round(width * n / 2) for n in (*KERNELS, UNITS))
    if towers == "half":
        c1, c2, c3, c4 = c1 // 2, c2 // 2, c3 // 2, c4 // 2
    size = int(pooling[0])

    def pool() -> Module:
        return MaxPool2d(size, 2, ceil_mode=pooling == "3/2-ceil")

    def batch_norm(channels: int) -> Module | None:
        return BatchNorm2d(channels) if normalization == "bn" else None

    def response_norm() -> Module | None:
        if normalization == "lrn-tensorflow":
            return LocalResponseNorm(5, alpha=1.0, beta=0.5, k=1.0, convention="tensorflow", groups=groups)
        if normalization in ("lrn", "lrn-paper"):
            convention = "paper" if normalization == "lrn-paper" else "pytorch"
            return LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, convention=convention, groups=groups)
        return None

    side = image_size
    for _ in range(3):
        side = (side - size + (pooling == "3/2-ceil")) // 2 + 1
    layers = {
        "conv1": Conv2d(in_channels, c1, 5, padding=2),
        "bn1": batch_norm(c1),
        "relu1": ReLU(),
        "lrn1": response_norm(),
        "pool1": pool(),
        "conv2": Conv2d(c1, c2, 5, padding=2, groups=groups),
        "bn2": batch_norm(c2),
        "relu2": ReLU(),
        "lrn2": response_norm(),
        "pool2": pool(),
        "conv3": Conv2d(c2, c3, 3, padding=1, groups=lone),
        "bn3": batch_norm(c3),
        "relu3": ReLU(),
        "conv4": Conv2d(c3, c4, 3, padding=1, groups=groups),
        "bn4": batch_norm(c4),
        "relu4": ReLU(),
        "conv5": Conv2d(c4, c5, 3, padding=1, groups=groups),
        "bn5": batch_norm(c5),
        "relu5": ReLU(),
        "pool5": pool(),
        "fc6": Conv2d(c5, units, side, groups=lone),  # fully connected: the kernel is as large as the maps, the groups are towers
        "relu6": ReLU(),
        "drop6": Dropout(dropout),
        "fc7": Conv2d(units, units, 1, groups=lone),
        "relu7": ReLU(),
        "drop7": Dropout(dropout),
        "flatten": Flatten(),
        "fc8": Linear(units, num_classes),
    }
    network = Sequential({name: layer for name, layer in layers.items() if layer is not None})
    # fc6 and fc7 start from N(0, 2 / fan_in). The CIFAR networks' std of .01 is too small for narrow layers.
    init.normal_(network.fc8.weight, std=0.01)
    return network


def four_layers(
    num_classes: int = 10, in_channels: int = 3, image_size: int = 32, *, activation: type[Module] = ReLU
) -> Sequential:
    """A network of four layers with weights for CIFAR-10, as in Krizhevsky 2012, figure 1.

    The paper does not give its sizes; these are those of cuda-convnet's four-layer net. The initial weights keep the variance of
    the activations: N(0, 2 / fan_in) for ReLU (He et al. 2015), N(0, 1 / fan_in) for tanh (LeCun et al. 1998, section 4.6).
    """
    side = image_size
    for _ in range(3):
        side = side // 2
    network = Sequential(
        {
            "conv1": Conv2d(in_channels, 32, 5, padding=2),  # 32 x 32 x 32
            "act1": activation(),
            "pool1": MaxPool2d(3, 2, ceil_mode=True),  # 32 x 16 x 16
            "conv2": Conv2d(32, 32, 5, padding=2),  # 32 x 16 x 16
            "act2": activation(),
            "pool2": AvgPool2d(3, 2, ceil_mode=True),  # 32 x 8 x 8
            "conv3": Conv2d(32, 64, 5, padding=2),  # 64 x 8 x 8
            "act3": activation(),
            "pool3": AvgPool2d(3, 2, ceil_mode=True),  # 64 x 4 x 4
            "flatten": Flatten(),  # 1024
            "fc4": Linear(64 * side * side, num_classes),
        }
    )
    if activation is Tanh:
        for name in ("conv1", "conv2", "conv3", "fc4"):
            weight = getattr(network, name).weight
            init.normal_(weight, std=init.fan_in(weight) ** -0.5)
    return network


VARIANTS: dict[str, Callable[..., Sequential]] = {
    "small-lrn": cifar_variant,
    "small-lrn-paper": partial(cifar_variant, normalization="lrn-paper"),
    "small-lrn-tensorflow": partial(cifar_variant, normalization="lrn-tensorflow"),
    "small-bn": partial(cifar_variant, normalization="bn"),
    "small-none": partial(cifar_variant, normalization="none"),
    "small-pool-3-2": partial(cifar_variant, pooling="3/2-ceil"),
    "small-pool-2-2": partial(cifar_variant, pooling="2/2"),
    "small-no-dropout": partial(cifar_variant, dropout=0.0),
    "small-towers": partial(cifar_variant, towers="two"),
    "small-one-tower": partial(cifar_variant, towers="half"),
    "small-towers-apart": partial(cifar_variant, towers="apart"),
    "small-towers-apart-wider": partial(cifar_variant, towers="apart", width=0.345),
    "four-layers-relu": four_layers,
    "four-layers-tanh": partial(four_layers, activation=Tanh),
}
