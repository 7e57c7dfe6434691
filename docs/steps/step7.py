"""Step 7: modules.

A layer holds parameters, a network holds layers, and an optimiser changes the parameters. A training loop needs nothing else.
"""

import numpy as np
from step6 import Function, Tensor, no_grad

from alexnet import datasets

# --- functions ----------------------------------------------------------------------------------------------------------------


class Linear(Function):
    """y = x W^T + b."""

    def forward(self, x, weight, bias):
        self.x, self.weight = x, weight
        return x @ weight.T + bias

    def backward(self, grad):
        return grad @ self.weight, grad.T @ self.x, grad.sum(axis=0)


class ReLU(Function):
    def forward(self, x):
        self.positive = x > 0
        return x * self.positive

    def backward(self, grad):
        return (grad * self.positive,)


class CrossEntropy(Function):
    """The mean over the images of -log softmax(x)[label]."""

    def __init__(self, labels):
        self.labels = labels

    def forward(self, x):
        shifted = np.exp(x - x.max(axis=1, keepdims=True))
        self.p = shifted / shifted.sum(axis=1, keepdims=True)
        return -np.log(self.p[np.arange(len(x)), self.labels]).mean()

    def backward(self, grad):
        dx = self.p.copy()
        dx[np.arange(len(dx)), self.labels] -= 1
        return (grad * dx / len(dx),)


# --- modules ------------------------------------------------------------------------------------------------------------------


class Module:
    def parameters(self):
        """The module's own parameters and those of the modules in it, in the order in which they were set."""
        for value in vars(self).values():
            for held in value if isinstance(value, list) else [value]:
                if isinstance(held, Module):
                    yield from held.parameters()
                elif isinstance(held, Tensor):
                    yield held


class LinearLayer(Module):
    def __init__(self, inputs, outputs, draws):
        self.weight = Tensor(draws.normal(0, (2 / inputs) ** 0.5, (outputs, inputs)), requires_grad=True)
        self.bias = Tensor(np.zeros(outputs), requires_grad=True)

    def __call__(self, x):
        return Linear()(x, self.weight, self.bias)


class ReLULayer(Module):
    def __call__(self, x):
        return ReLU()(x)


class Sequential(Module):
    def __init__(self, *layers):
        self.layers = list(layers)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class SGD:
    """v = momentum v + dw;  w = w - lr v."""

    def __init__(self, parameters, lr, momentum=0.9):
        self.parameters, self.lr, self.momentum = list(parameters), lr, momentum
        self.velocities = [np.zeros_like(parameter.data) for parameter in self.parameters]

    def step(self):
        for parameter, velocity in zip(self.parameters, self.velocities, strict=True):
            velocity *= self.momentum
            velocity += parameter.grad
            parameter.data -= self.lr * velocity
            parameter.grad = None


# --- training -----------------------------------------------------------------------------------------------------------------


def digits():
    """[training, test], each (images (N, 1, 8, 8) from 0 to 1, labels)."""
    data = datasets.digits()
    return [(part.images[:, :, ::2, ::2] / 240, part.labels) for part in (data.train, data.test)]


def train(network, training, epochs, lr, batch_size=32):
    """Train, and return the loss of the last batch."""
    images, labels = training
    optimizer, draws = SGD(network.parameters(), lr), np.random.default_rng(0)
    for _ in range(epochs):
        order = draws.permutation(len(images))
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            loss = CrossEntropy(labels[batch])(network(Tensor(images[batch])))
            loss.backward()
            optimizer.step()
    return float(loss.data)


def accuracy(network, test):
    images, labels = test
    with no_grad():
        return float((network(Tensor(images)).data.argmax(axis=1) == labels).mean())


class Flatten(Module):
    def __call__(self, x):
        return Tensor(x.data.reshape(len(x.data), -1))  # x is the images: they need no gradient


if __name__ == "__main__":
    training, test = digits()
    draws = np.random.default_rng(0)
    network = Sequential(Flatten(), LinearLayer(64, 32, draws), ReLULayer(), LinearLayer(32, 10, draws))
    train(network, training, epochs=10, lr=0.05)
    print(f"test accuracy {accuracy(network, test):.3f}")
