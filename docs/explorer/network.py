"""The small network that the explorer shows, trained on the bundled digits: `python docs/explorer/network.py` trains it again.

Its layers are AlexNet's, one of each kind, few and small enough for every number to be seen; its images are the digits' own
8 x 8 pixels. The weights are in network.safetensors.
"""

from pathlib import Path

import numpy as np

import minidl
import minidl.functional as F
from alexnet import datasets
from alexnet.datasets import Split
from minidl import Tensor, nn, no_grad, random
from minidl.data import DataLoader
from minidl.optim import SGD, OneCycleLR

WEIGHTS = Path(__file__).parent / "network.safetensors"
EPOCHS, BATCH, LR = 30, 32, 0.05


def create() -> nn.Sequential:
    """The network, in float64. Each line ends with the shape of the layer's output."""
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(1, 6, 3, padding=1),  # 6 x 8 x 8
            "relu1": nn.ReLU(),
            "lrn1": nn.LocalResponseNorm(3, alpha=1.0, beta=0.75, k=1.0),  # strong enough to be seen; the paper's alpha is 1e-4
            "pool1": nn.MaxPool2d(3, 2),  # 6 x 3 x 3
            "conv2": nn.Conv2d(6, 8, 3, padding=1),  # 8 x 3 x 3
            "bn2": nn.BatchNorm2d(8),
            "relu2": nn.ReLU(),
            "flatten": nn.Flatten(),  # 72
            "fc3": nn.Linear(72, 16),
            "relu3": nn.ReLU(),
            "drop3": nn.Dropout(0.5),
            "fc4": nn.Linear(16, 10),
        }
    ).to(dtype="float64")


def images() -> tuple[Split, Split]:
    """Training and test images, 8 x 8 pixels from 0 to 1."""
    digits = datasets.digits()
    return tuple(Split(part.images[:, :, ::2, ::2] / 240, part.labels) for part in (digits.train, digits.test))


def train() -> nn.Sequential:
    random.manual_seed(0)
    net, (training, _) = create(), images()
    optimizer = SGD(net.parameters(), LR, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(training.images, training.labels, BATCH, lambda images, indices, epoch: images, shuffle=True, seed=0)
    schedule = OneCycleLR(optimizer, LR, EPOCHS * len(loader))
    for epoch in range(EPOCHS):
        for batch in loader.epoch(epoch):
            loss = F.cross_entropy(net(Tensor(batch.images)), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net


def accuracy(net: nn.Sequential) -> float:
    """The accuracy on the test images, in evaluation mode."""
    _, test = images()
    with no_grad():
        answers = net.eval()(Tensor(test.images)).data.argmax(axis=1)
    return float(np.mean(answers == test.labels))


if __name__ == "__main__":
    trained = train()
    minidl.save(trained.state_dict(), WEIGHTS)
    print(f"test accuracy {accuracy(trained):.4f}; written to {WEIGHTS}")
