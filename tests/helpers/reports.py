"""Invented runs for tests of reports; only the findings are real, of a small network on images of noise."""

import json
import re

import numpy as np

from alexnet import findings
from alexnet.training import Evaluation, evaluate
from minidl import nn, random
from minidl.data import DataLoader

HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"


def config(epochs=3, **settings):
    """The content of a config.json."""
    versions = {"minidl": "0.1.0", "numpy": "2.4.6", "python": "3.11.7"}
    common = {
        "model": "cifar-bn",
        "data": "digits",
        "data_dir": None,
        "recipe": "digits",
        "lr": 0.02,
        "seed": 0,
        "epochs": epochs,
    }
    where = {"dtype": "float32", "precision": "fp32", "backend": "numpy", "devices": [0], "world_size": 1, "threads": 2}
    return common | where | {"versions": versions} | settings


def metrics(epochs=3):
    return [
        {
            "epoch": epoch,
            "train_loss": 2 / epoch,
            "train_accuracy": 1 - 0.9 / epoch,
            "test_loss": 2.2 / epoch,
            "test_accuracy": 1 - 0.95 / epoch,
            "seconds": 10.5 + epoch,
            "images_per_second": 100.0 + epoch,
            "lr": 0.02 / epoch,
        }
        for epoch in range(1, epochs + 1)
    ]


def statistics(samples=6):
    def layers(step):
        weights = {"weight": 0.1, "weight_update": 0.001 / step, "bias": 0.0, "gradient": 1 / step}
        return {"conv1": weights | {"activation": -0.5, "zeros": 0.0}, "relu1": {"activation": 0.25, "zeros": 0.5}}

    return [{"epoch": 1 + step // 4, "step": step, "lr": 0.02, "layers": layers(step)} for step in range(1, samples + 1)]


def network(channels, classes):
    random.manual_seed(0)
    layers = {
        "conv1": nn.Conv2d(channels, 20, 3),
        "relu1": nn.ReLU(),
        "flatten": nn.Flatten(),
        "drop": nn.Dropout(),
        "fc2": nn.Linear(20 * 36, classes),
    }
    return nn.Sequential(layers)


def loader(images=40, channels=3, classes=4):
    """A loader of 8 x 8 images of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (images, channels, 8, 8), np.uint8)
    transform = lambda images, indices, epoch: (images / np.float32(255)).astype(np.float32)
    return DataLoader(noise, np.arange(images) % classes, 16, transform)


def found(images=40, channels=3, names=("bird", "cat", "dog", "frog"), right=False):
    """The findings of an untrained network; right: as if it had classified every image correctly."""
    net, test = network(channels, len(names)), loader(images, channels, len(names))
    evaluation, _ = evaluate(net, test)
    if right:
        evaluation = Evaluation(0.0, 1.0, 1.0, test.labels, np.ones(images), np.zeros(images))
    return findings.find(net, names, test, evaluation)


def embedded(page):
    """The JSON data of a page."""
    (content,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL
    )
    return json.loads(content)
