"""What a report shows of a tested network: its confusion matrix, its kernels, its layers' outputs and its worst mistakes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import Tensor, no_grad
from minidl.backend import device_of, to_device, to_numpy
from minidl.data import DataLoader
from minidl.nn import Conv2d, Module

from . import pictures
from .training import Evaluation

MOST_MISTAKES = 18
MOST_MAPS = 16  # of a layer's outputs


@dataclasses.dataclass
class Mistake:
    """A misclassified image (C, H, W) uint8: its index among the test images, its class, the predicted class, the probabilities
    of the two, and the loss.
    """

    place: int
    image: np.ndarray
    label: int
    prediction: int
    label_probability: float
    probability: float
    loss: float


@dataclasses.dataclass
class Output:
    """The output of a layer for an image: its first maps (K, H, W), or all features (F,) if it has no maps. shape: of all."""

    layer: str
    kind: str
    shape: tuple[int, ...]
    values: np.ndarray


@dataclasses.dataclass
class Findings:
    """The results of a network on the test images.

    confusion (n, n): how many images of each class (rows) were predicted as each class (columns). kernels: those of the first
    convolution, as pictures.of_kernels returns them; None if there is none. image (C, H, W) uint8: the first test image; label,
    probabilities (n,) and outputs belong to it. mistakes: those with the highest loss, the worst first.
    """

    classes: Sequence[str]
    confusion: np.ndarray
    kernels: np.ndarray | None
    image: np.ndarray
    label: int
    probabilities: np.ndarray
    outputs: list[Output]
    mistakes: list[Mistake]


def find(model: Module, classes: Sequence[str], loader: DataLoader, evaluation: Evaluation) -> Findings:
    """Collect the findings after a network's evaluation on the first view of the loader's images.

    Computes on rank 0 only, in evaluation mode.
    """
    labels, n = loader.labels, len(classes)
    first = next((module for module in model.modules() if isinstance(module, Conv2d)), None)
    outputs, probabilities = _outputs(model, loader)
    return Findings(
        classes,
        np.bincount(labels * n + evaluation.predictions, minlength=n * n).reshape(n, n),
        None if first is None else pictures.of_kernels(to_numpy(first.weight.data)),
        loader.images[0],
        int(labels[0]),
        probabilities,
        outputs,
        _mistakes(model, loader, evaluation),
    )


def _outputs(model: Module, loader: DataLoader) -> tuple[list[Output], np.ndarray]:
    """Each layer's output for the first image, and the probabilities of the image's classes."""
    outputs: list[Output] = []

    def watch(name: str):
        def hook(module: Module, args: tuple, y: Any) -> None:
            if isinstance(y, Tensor) and y.ndim in (2, 4):
                values = to_numpy(y.data[0, :MOST_MAPS] if y.ndim == 4 else y.data[0])
                outputs.append(Output(name, type(module).__name__, y.shape[1:], np.array(values, np.float32)))

        return hook

    layers = [(name, module) for name, module in model.named_modules() if next(module.children(), None) is None]
    handles = [module.register_forward_hook(watch(name)) for name, module in layers]
    try:
        return outputs, _probabilities(model, loader, np.array([0]))[0]
    finally:
        for handle in handles:
            handle.remove()


def _mistakes(model: Module, loader: DataLoader, evaluation: Evaluation) -> list[Mistake]:
    wrong = np.flatnonzero(evaluation.predictions != loader.labels)
    worst = wrong[np.argsort(-evaluation.losses[wrong], kind="stable")][:MOST_MISTAKES]
    if not len(worst):
        return []
    mistakes = []
    for place, of_classes in zip(worst, _probabilities(model, loader, worst), strict=True):
        label, prediction = int(loader.labels[place]), int(evaluation.predictions[place])
        chances = float(of_classes[label]), float(of_classes[prediction])
        loss = float(evaluation.losses[place])
        mistakes.append(Mistake(int(place), loader.images[place], label, prediction, *chances, loss))
    return mistakes


def _probabilities(model: Module, loader: DataLoader, places: np.ndarray) -> np.ndarray:
    """(len(places), classes): the probabilities of these images' classes, from the first view, as in the evaluation."""
    images = loader.transform(loader.images[places], places, 0)[: len(places)]
    with no_grad():
        logits = model.eval()(Tensor(to_device(images, device_of(next(model.parameters()).data))))
    scores = to_numpy(logits.data).astype(np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
