"""Explain a prediction: three maps that show which parts of an image it depends on."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from minidl import Tensor, no_grad
from minidl import functional as F
from minidl.backend import Array, device_of, get_array_module, to_device, to_numpy
from minidl.nn import Conv2d, Module, ReLU, Tanh
from minidl.partition import ceil_div

from . import pictures
from .models import layers
from .prediction import Prediction, prepare
from .views import Views
from .weights import Weights

WINDOW = 1 / 5  # side of the square that covers a part / shorter side of the image
STEP = 1 / 3  # distance from one square to the next / side of the square
BATCH_SIZE = 32
LONGEST_NAME = 50  # characters of an image's name that its picture's name has: a file's name has at most 255 bytes


@dataclasses.dataclass
class Explanation:
    """Maps (H, W) float32 of an image, for one class.

    gradient: how much the class's logit changes with a pixel: |d logit / d pixel|, the largest of the channels (Simonyan,
    Vedaldi and Zisserman 2014). grad_cam: where the maps of the last convolution are evidence for the class, 0 to 1 (Selvaraju et
    al. 2017). occlusion: how much the class's probability falls if a square of the mean colour covers the pixel (Zeiler and
    Fergus 2014); below 0 if it rises.
    """

    gradient: np.ndarray
    grad_cam: np.ndarray
    occlusion: np.ndarray


def explain(network: Module, image: Array, label: int) -> Explanation:
    """Explain class `label` for one normalised image (1, C, H, W). Sets the network to evaluation mode; nothing else changes."""
    network.eval()
    gradient, activations, slopes = _gradients(network, image, label)
    # Grad-CAM: the weight of a map is the mean of the logit's gradient over it. Negative sums are evidence against the class.
    weights = slopes.mean(axis=(1, 2))
    cam = np.maximum(np.tensordot(weights, activations, 1), 0)
    size = image.shape[3], image.shape[2]
    cam = np.asarray(Image.fromarray((cam / max(cam.max(), 1e-12)).astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    return Explanation(abs(gradient).max(axis=0), cam, occlusion(network, image, label))


def _gradients(network: Module, image: Array, label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(d logit / d image (C, H, W), the last convolution's maps (K, h, w) after its ReLU or tanh, d logit / d these maps).

    A fully connected layer that is written as a convolution has maps of one position, and does not count.
    """
    x = maps = leaf = Tensor(image, requires_grad=True)
    chosen = False  # whether the convolution that the layers belong to has maps to show
    with _still(network):
        for _, layer in layers(network):
            x = layer(x)
            if isinstance(layer, Conv2d):
                chosen = maps is leaf or x.data[0, 0].size > 1
            if chosen and isinstance(layer, ReLU | Tanh):
                maps, chosen = x, False
                maps.retain_grad()
        one = get_array_module(x.data).zeros_like(x.data)
        one[0, label] = 1
        x.backward(one)
    return tuple(to_numpy(array)[0] for array in (leaf.grad, maps.data, maps.grad))


@contextlib.contextmanager
def _still(network: Module) -> Iterator[None]:
    """A context in which the parameters get no gradients."""
    before = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, value in before:
            parameter.requires_grad = value


def occlusion(network: Module, image: Array, label: int) -> np.ndarray:
    """(H, W): the fall of the class's probability; for each pixel, the mean over all squares that cover it."""
    _, _, H, W = image.shape
    window = max(1, round(WINDOW * min(H, W)))
    step = max(1, round(STEP * window))
    corners = [(top, left) for top in _places(H, window, step) for left in _places(W, window, step)]

    def probabilities(images: Array) -> np.ndarray:
        with no_grad():
            return to_numpy(F.softmax(network(Tensor(images))).data)[:, label]

    whole = probabilities(image)[0]
    falls, counts = np.zeros((H, W)), np.zeros((H, W))
    for start in range(0, len(corners), BATCH_SIZE):
        part = corners[start : start + BATCH_SIZE]
        covered = get_array_module(image).repeat(image, len(part), axis=0)
        for i, (top, left) in enumerate(part):
            covered[i, :, top : top + window, left : left + window] = 0  # the mean of normalised images
        for (top, left), probability in zip(part, probabilities(covered), strict=True):
            falls[top : top + window, left : left + window] += whole - probability
            counts[top : top + window, left : left + window] += 1
    return (falls / counts).astype(np.float32)


def _places(length: int, window: int, step: int) -> list[int]:
    """The first pixels of the squares along a side: about `step` apart, so that they cover the whole length."""
    count = ceil_div(length - window, step) + 1
    return [round(i * (length - window) / max(1, count - 1)) for i in range(count)]


def write(folder: Path, number: int, weights: Weights, prediction: Prediction) -> Path:
    """Draw the explanation of a prediction's most probable class into the folder. Returns the file. Raises OSError."""
    images = prediction.image[None]
    label = int(prediction.probabilities.argmax())
    device = device_of(next(weights.network.parameters()).data)
    maps = explain(weights.network, to_device(prepare(weights, images), device), label)
    path = folder / f"{number:03d}-{Path(prediction.file).stem[:LONGEST_NAME]}.png"
    seen = Views(weights.preparation.image_size)(images, None, 0)[0]
    title = f"{weights.classes[label]}, {prediction.probabilities[label]:.1%}"
    pictures.draw_explanation(path, seen, title, maps.gradient, maps.grad_cam, maps.occlusion)
    return path
