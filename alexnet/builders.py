"""What a run trains and with what, as its config says: network, optimiser, learning-rate schedule, batches of images."""

from typing import Any

from minidl import random
from minidl.data import Compose, DataLoader, Normalize, Transform
from minidl.errors import UserError
from minidl.nn import Module
from minidl.optim import SGD, LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR

from . import models
from .augment import RandomCrop, RandomHorizontalFlip
from .config import Config
from .datasets import Dataset


def check_fits(config: Config, dataset: Dataset) -> None:
    """Raise UserError if the data set has too small or too few images for the settings."""
    least, size = models.LEAST_IMAGE_SIZE[config.model], min(dataset.image_shape[1:])
    if size < least:
        raise UserError(
            f"--model {config.model} takes images of at least {least} x {least}, and {dataset.name} has {size} x {size}; "
            "choose a cifar model"
        )
    dataset.train.first(config.limit_train, "--limit-train")
    dataset.test.first(config.limit_test, "--limit-test")


def build_model(config: Config, dataset: Dataset) -> Module:
    """The network of a run, initialised from its seed."""
    channels, height, width = dataset.image_shape
    random.manual_seed(config.seed)
    model = models.create(config.model, len(dataset.classes), in_channels=channels, image_size=min(height, width))
    return model.to(dtype=config.dtype)


def build_optimizer(config: Config, model: Module) -> SGD:
    """SGD over the parameters in their order, with what the recipe says of biases."""
    recipe, groups = config.recipe, []
    for name, parameter in model.named_parameters():
        group: dict[str, Any] = {"params": [parameter]}
        if name.endswith("bias"):
            group |= {"lr": recipe.lr * recipe.bias_lr, "weight_decay": recipe.weight_decay if recipe.bias_decay else 0.0}
        groups.append(group)
    return SGD(groups, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)


def build_schedules(config: Config, optimizer: SGD, epoch_steps: int) -> tuple[LRScheduler | None, ReduceLROnPlateau | None]:
    """The learning-rate schedule of a run: one that is stepped after every batch, or one that is given every epoch's error."""
    recipe = config.recipe
    rates = [group["lr"] for group in optimizer.param_groups]
    if recipe.schedule == "step":
        return StepLR(optimizer, recipe.step_epochs * epoch_steps), None
    if recipe.schedule == "one-cycle":
        return OneCycleLR(optimizer, rates, recipe.epochs * epoch_steps), None
    # Three divisions by ten, as in the paper's section 5.
    return None, ReduceLROnPlateau(optimizer, patience=recipe.step_epochs - 1, min_lr=[rate * 1e-3 for rate in rates])


def build_loaders(config: Config, dataset: Dataset, rank: int, size: int) -> tuple[DataLoader, DataLoader]:
    """Training images, shuffled and augmented, and test images: the shards of the device numbered `rank` of `size`."""
    train, test = dataset.train.first(config.limit_train, "--limit-train"), dataset.test.first(config.limit_test, "--limit-test")
    train_loader = DataLoader(
        train.images,
        train.labels,
        config.recipe.batch_size,
        training_transform(config, dataset),
        shuffle=True,
        seed=config.seed,
        rank=rank,
        size=size,
    )
    return train_loader, DataLoader(
        test.images, test.labels, config.recipe.batch_size, normalization(config, dataset), rank=rank, size=size
    )


def normalization(config: Config, dataset: Dataset) -> Transform:
    """What every image goes through."""
    return Normalize(dataset.mean, dataset.std, config.dtype)


def training_transform(config: Config, dataset: Dataset) -> Transform:
    """The recipe's augmentation, then what every image goes through."""
    steps: list[Transform] = []
    if config.recipe.crop_padding:
        steps.append(RandomCrop(config.recipe.crop_padding, config.seed))
    if config.recipe.reflection:
        steps.append(RandomHorizontalFlip(config.seed))
    return Compose([*steps, normalization(config, dataset)])
