"""The networks, one line a layer, with the shape (C x H x W) that each gives for its usual input."""

from collections.abc import Callable

from minidl.nn import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    Sequential,
    init,
)


def cifar_bn(num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> Sequential:
    """AlexNet for small images with batch normalisation after every convolution: variant 1 of the deck."""
    side = _side_after_pooling(image_size)
    return Sequential(
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


def cifar_lrn(num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> Sequential:
    """AlexNet for small images with local response normalisation after conv1 and conv2: variant 2 of the deck."""
    side = _side_after_pooling(image_size)
    return Sequential(
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


MODELS: dict[str, Callable[..., Sequential]] = {"cifar-bn": cifar_bn, "cifar-lrn": cifar_lrn}


def create(name: str, num_classes: int = 10, **shape: int) -> Sequential:
    """A network by name, freshly initialised from minidl.random's seed. shape: in_channels and image_size."""
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; there are {', '.join(MODELS)}")
    network = MODELS[name](num_classes, **shape)
    # The paper's N(0, .01) for the wide layers. He's would keep their 4,096 activations large, and dropout doubles their
    # squares: the logits start far apart, and a rate that suits the convolutions throws the last layers about.
    for layer in (network.fc6, network.fc7, network.fc8):
        init.normal_(layer.weight, std=0.01)
    return network


def _side_after_pooling(image_size: int) -> int:
    """Height and width after three poolings of size 3, stride 2."""
    side = image_size
    for _ in range(3):
        side = (side - 3) // 2 + 1
    if side < 1:
        raise ValueError(f"images of {image_size} x {image_size} are too small for three poolings; 15 x 15 is the least")
    return side
