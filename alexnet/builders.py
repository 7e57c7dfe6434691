"""Build the parts of a run from its config: images, network, optimiser, learning-rate schedule."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minidl import random
from minidl.data import Compose, DataLoader, Normalize, Transform
from minidl.errors import UserError
from minidl.nn import Linear, Module
from minidl.optim import SGD, LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR

from . import cifar10_files, datasets, models, weights
from .augment import ColorNoise, RandomCrop, RandomHorizontalFlip
from .config import Config
from .datasets import Dataset
from .preparation import Preparation
from .views import Views

LOADER_THREADS = 2  # for image files: one batch is read while another is augmented


def load_dataset(config: Config) -> Dataset:
    """The data set of a run: with held-out images as test images if the config says so, without the files that it skips."""
    side = config.preparation.resize if config.preparation else 0
    dataset = datasets.load(config.data, config.data_dir, side=side, sharers=len(config.devices))
    if config.validation:
        dataset.hold_out(config.validation, config.seed)
    elif not len(dataset.test):
        raise UserError(
            f"--data {config.data}: there is no folder val or test beside train; --validation 0.2 tests on a fifth of the images"
        )
    if config.skipped:
        from . import image_folders

        image_folders.leave_out(dataset, config.skipped)
    return dataset


@contextlib.contextmanager
def opened(config: Config, download: bool = True) -> Iterator[tuple[Config, Dataset]]:
    """A context with (config completed from the data, data set); the data set is closed at its end.

    Raises UserError if the data set does not fit the settings, and with download=False also if CIFAR-10 is missing.
    """
    if config.data == "cifar10" and not download:
        place = datasets.cifar10_place(config.data_dir)
        if not any((place / part).exists() for part in (cifar10_files.FOLDER, cifar10_files.ARCHIVE)):
            raise UserError(f"CIFAR-10 is not in {place}; give its folder with --data-dir")
    dataset = load_dataset(config)
    try:
        check_fits(config, dataset)
        yield found(config, dataset), dataset
    finally:
        dataset.close()


def moved(config: Config, place: str) -> Config:
    """The config of a run whose data are now in the folder `place`."""
    if config.data == "cifar10":
        return dataclasses.replace(config, data_dir=str(datasets.cifar10_place(place)))
    if config.files is None:
        raise UserError("--data-dir is for CIFAR-10 and folders of images; the digits come with the program")
    return dataclasses.replace(config, data=os.path.abspath(place))


def found(config: Config, dataset: Dataset) -> Config:
    """The config completed from the data: classes, preparation of images, skipped files and a checksum of the others.

    For a new run on a folder, this reads every image that the run uses. Raises UserError if too many cannot be read, or if the
    data of a resumed run have changed.
    """
    in_files = not isinstance(dataset.train.images, np.ndarray)
    if in_files:
        from . import image_folders
    if config.classes is not None:
        if config.classes != list(dataset.classes) or (in_files and config.files != image_folders.checksum(dataset)):
            raise UserError(f"--data {dataset.name}: its files or classes are not those that the run began with; put them back")
        if input_shape(config) != (dataset.image_shape[0], _crop_size(config, dataset), _crop_size(config, dataset)):
            raise UserError(f"config.json has other image sizes than {dataset.name}; put it back, or start a new run")
        return config
    skipped: list[str] = []
    if in_files:
        pixels, skipped = image_folders.survey(dataset, config.limit_train, config.limit_test)
    else:
        pixels = dataset.pixels
    recipe = config.recipe
    mean, std = pixels.mean, pixels.std if recipe.divide_by_std else [1.0] * len(pixels.mean)
    channels, side, _ = dataset.image_shape
    if config.init and config.preparation:  # the weights were trained with these
        mean, std = config.preparation.mean, config.preparation.std
        if len(mean) != channels:
            raise UserError(f"--init {config.init}: its images have {len(mean)} channels, but those of {dataset.name} {channels}")
    std = [value or 1.0 for value in std]  # 0 where all pixels are the same
    preparation = Preparation(3 if channels == 3 else 1, side, _crop_size(config, dataset), mean, std)
    return dataclasses.replace(
        config,
        classes=list(dataset.classes),
        preparation=preparation,
        color_vectors=pixels.color_vectors if recipe.color_noise else None,
        skipped=skipped,
        files=image_folders.checksum(dataset) if in_files else None,
    )


def check_fits(config: Config, dataset: Dataset) -> None:
    """Raise UserError if the data set has too small or too few images for the settings."""
    least, size = models.LEAST_IMAGE_SIZE[config.model], _crop_size(config, dataset)
    if size < least:
        raise UserError(
            f"--model {config.model} takes images of at least {least} x {least}, but here they would be {size} x {size}; choose "
            "another model, recipe or image size"
        )
    dataset.train.first(config.limit_train, "--limit-train")
    dataset.test.first(config.limit_test, "--limit-test")


def _crop_size(config: Config, dataset: Dataset) -> int:
    """Height and width of the network's input."""
    return max(1, round(dataset.image_shape[1] * config.recipe.crop))


def input_shape(config: Config) -> tuple[int, int, int]:
    """(C, H, W) of the network's input."""
    preparation = prepared(config)
    return preparation.channels, preparation.image_size, preparation.image_size


def prepared(config: Config) -> Preparation:
    """How the run prepares images. Its config must have been completed by `found`."""
    assert config.preparation is not None and config.classes is not None, "call found() first"
    return config.preparation


def build_model(config: Config) -> Module:
    """The network of a run, initialised from its seed."""
    channels, size, _ = input_shape(config)
    random.manual_seed(config.seed)
    model = models.create(config.model, len(config.classes or ()), in_channels=channels, image_size=size)
    return model.to(dtype=config.dtype)


def build_optimizer(config: Config, model: Module) -> SGD:
    """SGD over the parameters that are not frozen, in their order, with the recipe's settings for biases."""
    recipe, groups = config.recipe, []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        group: dict[str, Any] = {"params": [parameter]}
        if name.endswith("bias"):
            group |= {"lr": recipe.lr * recipe.bias_lr, "weight_decay": recipe.weight_decay if recipe.bias_decay else 0.0}
        groups.append(group)
    return SGD(groups, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov)


def build_schedules(config: Config, optimizer: SGD, epoch_steps: int) -> tuple[LRScheduler | None, ReduceLROnPlateau | None]:
    """The learning-rate schedule of a run: one that is stepped after every batch, or one that gets every epoch's test error."""
    recipe = config.recipe
    rates = [group["lr"] for group in optimizer.param_groups]
    if recipe.schedule == "step":
        return StepLR(optimizer, recipe.step_epochs * epoch_steps), None
    if recipe.schedule == "one-cycle":
        return OneCycleLR(optimizer, rates, recipe.epochs * epoch_steps), None
    # Three divisions by ten, as in Krizhevsky 2012, section 5.
    return None, ReduceLROnPlateau(optimizer, patience=recipe.step_epochs - 1, min_lr=[rate * 1e-3 for rate in rates])


def build_loaders(config: Config, dataset: Dataset, rank: int, size: int, labelled: bool = True) -> tuple[DataLoader, DataLoader]:
    """Loaders of training images, shuffled and augmented, and of test images: the shards of rank `rank` of `size`."""
    train, test = dataset.train.first(config.limit_train, "--limit-train"), dataset.test.first(config.limit_test, "--limit-test")
    batch_size, in_files = config.recipe.batch_size, not isinstance(dataset.train.images, np.ndarray)
    shared: dict[str, Any] = {"rank": rank, "size": size, "threads": LOADER_THREADS if in_files else 1, "labelled": labelled}
    train_loader = DataLoader(
        train.images, train.labels, batch_size, training_transform(config), shuffle=True, seed=config.seed, **shared
    )
    test_batch = max(1, batch_size // config.recipe.test_views)
    return train_loader, DataLoader(test.images, test.labels, test_batch, evaluation_transform(config), **shared)


def training_transform(config: Config) -> Transform:
    """The recipe's augmentation, and (pixel - mean) / std."""
    recipe, seed, preparation = config.recipe, config.seed, prepared(config)
    steps: list[Transform] = []
    if recipe.crop_padding or recipe.crop < 1:
        steps.append(RandomCrop(preparation.image_size, recipe.crop_padding, seed, recipe.padding_mode))
    if recipe.reflection:
        steps.append(RandomHorizontalFlip(seed))
    steps.append(normalization(config))
    if recipe.color_noise:
        vectors = np.array(config.color_vectors) / np.array(preparation.std)
        steps.append(ColorNoise(vectors, recipe.color_noise, seed))
    return Compose(steps)


def evaluation_transform(config: Config) -> Transform:
    """The recipe's views of a test image, and (pixel - mean) / std."""
    recipe, size = config.recipe, prepared(config).image_size
    views = Views(size, recipe.test_views, recipe.crop_padding, recipe.reflection, recipe.padding_mode)
    return Compose([views, normalization(config)])


def normalization(config: Config) -> Transform:
    """(pixel - mean) / std, for training and test images."""
    preparation = prepared(config)
    return Normalize(preparation.mean, preparation.std, config.dtype)


def class_weights(config: Config, labels: np.ndarray) -> np.ndarray | None:
    """(classes,): the weight of an image's loss by its class. All classes count the same, and the mean over the images is 1."""
    if not config.balance:
        return None
    counts = np.bincount(labels, minlength=len(config.classes or ()))
    return (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(config.dtype)


def freeze(config: Config, model: Module) -> None:
    """Freeze the parameters whose names begin with one of the prefixes in config.freeze. A batch normalisation whose parameters
    are frozen also keeps its running statistics, see train_one_epoch.

    Raises UserError if a prefix fits no parameter, or if no parameter is left to train.
    """
    if not config.freeze:
        return
    prefixes = config.freeze.split(",")
    parameters = dict(model.named_parameters())
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in parameters):
            first = dict.fromkeys(name.partition(".")[0] for name in parameters)
            raise UserError(
                f"--freeze {prefix}: no parameter's name begins with it; those of {config.model} begin with {', '.join(first)}"
            )
    for name, parameter in parameters.items():
        parameter.requires_grad = not name.startswith(tuple(prefixes))
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise UserError(f"--freeze {config.freeze} leaves nothing to train")


def start_from(config: Config, model: Module) -> None:
    """Load the weights of config.init. For another number of classes, the last layer keeps its initial weights, and a note is
    printed.

    Raises UserError if the weights are those of another network, or for another size of images.
    """
    loaded = dict(weights.read(Path(config.init or "")).network.state_dict())
    own = model.state_dict()
    last = [name for name, layer in models.layers(model) if isinstance(layer, Linear)][-1]
    if f"{last}.weight" in loaded and (before := len(loaded[f"{last}.weight"])) != (now := len(own[f"{last}.weight"])):
        print(f"{last} keeps its initial weights: it has {now} classes, but in {config.init} {before}", flush=True)
        loaded = {name: array for name, array in loaded.items() if not name.startswith(f"{last}.")}
        loaded |= {name: array for name, array in own.items() if name.startswith(f"{last}.")}
    try:
        model.load_state_dict(loaded)
    except ValueError as error:
        raise UserError(
            f"--init {config.init}: {error}; give the weights' network and image size with --model and --image-size"
        ) from None
