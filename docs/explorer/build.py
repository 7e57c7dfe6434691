"""The explorer's pages, of the trained network; docs/generate.py writes them.

A page is one file, which loads nothing from elsewhere: page.html with style.css and the scripts in it, the words of its language,
and the numbers of network.py.
"""

import json
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray

import minidl
import minidl.functional as F
from minidl import Tensor, nn, no_grad, random

from . import network

HERE = Path(__file__).parent
SCRIPTS = ("engine.js", "drawing.js", "explain.js", "view.js")
PAGES = {"en": HERE / "pages/explorer.html", "ko": HERE / "pages/ko/explorer.html"}


def layers(net: nn.Sequential) -> list[dict]:
    """The name, kind and settings of each layer, for engine.js."""
    found = []
    for name, layer in net.named_modules():
        match layer:
            case nn.Conv2d():
                found.append({"name": name, "kind": "conv", "padding": layer.padding[0]})
            case nn.ReLU():
                found.append({"name": name, "kind": "relu"})
            case nn.LocalResponseNorm():
                settings = {key: getattr(layer, key) for key in ("size", "alpha", "beta", "k")}
                found.append({"name": name, "kind": "lrn", **settings})
            case nn.MaxPool2d():
                found.append({"name": name, "kind": "pool", "kernel": layer.kernel_size, "stride": layer.stride})
            case nn.BatchNorm2d():
                found.append({"name": name, "kind": "batchNorm", "eps": layer.eps})
            case nn.Flatten():
                found.append({"name": name, "kind": "flatten"})
            case nn.Linear():
                found.append({"name": name, "kind": "linear"})
            case nn.Dropout():
                found.append({"name": name, "kind": "dropout", "p": layer.p})
    return found


def batch(net: nn.Sequential) -> tuple[NDArray, list[int]]:
    """(test images (10, 1, 8, 8), labels): of each digit the image of median loss, except one.

    For the digit of the image with the highest loss of all, it is that image.
    """
    _, test = network.images()
    with no_grad():
        losses = F.cross_entropy(net.eval()(Tensor(test.images)), test.labels, reduction="none").data
    hardest = int(losses.argmax())
    places = []
    for digit in range(10):
        own = np.flatnonzero(test.labels == digit)
        places.append(hardest if hardest in own else own[np.argsort(losses[own])[len(own) // 2]])
    return test.images[places], list(range(10))


def mask() -> NDArray:
    """A mask of dropout (10, 16): 1 if a unit is kept for an image, 0 if it is dropped."""
    random.manual_seed(1)
    return (F.dropout(Tensor(np.ones((10, 16))), 0.5).data > 0).astype(int)


def packed(values: NDArray) -> dict:
    """An array for JSON. Its values are rounded to seven digits, so that the page stays small."""
    return {"shape": list(values.shape), "values": [float(f"{value:.7g}") for value in values.ravel().tolist()]}


def weights(net: nn.Sequential) -> dict:
    return {name: packed(parameter.data) for name, parameter in net.named_parameters()}


def data() -> dict:
    """The data of the page."""
    random.manual_seed(0)
    untrained = weights(network.create())
    net = network.create()
    net.load_state_dict(minidl.load(network.WEIGHTS))
    images, labels = batch(net)
    return {
        "layers": layers(net),
        "weights": {"trained": weights(net), "untrained": untrained},
        "images": packed(images),
        "labels": labels,
        "classes": [str(digit) for digit in range(10)],
        "mask": mask().ravel().tolist(),
    }


def page(language: str) -> str:
    words = json.loads((HERE / f"words_{language}.json").read_text(encoding="utf-8"))
    shown = json.dumps({**data(), "words": words}, ensure_ascii=False).replace("</", "<\\/")
    scripts = "".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    style = (HERE / "style.css").read_text(encoding="utf-8")
    texts = {key: value for key, value in words.items() if isinstance(value, str)}
    return Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(texts, data=shown, script=scripts, style=style)
