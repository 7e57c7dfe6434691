"""One training step, and one forward pass, of each workload in minidl, PyTorch and TensorFlow.

A contender is a tuple of functions: train and forward; minidl's also has layers. The networks, the batch and the update (SGD,
momentum .9, weight decay 5e-4) are the same in all, with two exceptions. TensorFlow's weight decay is not part of its momentum.
In W3, minidl has the paper's dropout, whose outputs are half of the others'.
"""

import time

import numpy as np

# name: (model, classes, image size, batch)
WORKLOADS = {
    "W1": ("cifar-bn", 10, 32, 128),
    "W2": ("cifar-lrn", 10, 32, 128),
    "W3": ("alexnet-2012", 1000, 227, 32),
}


def minidl(workload, batch):
    """(train, forward, layers). layers() does a training step and returns {layer: [seconds forward, seconds backward]}; in the
    names, m is the tile size of a convolution by Winograd's algorithm.
    """
    import alexnet
    import minidl.functional as F
    from minidl import Function, Tensor, no_grad, random
    from minidl.kernels.layout import from_batch_last
    from minidl.optim import SGD

    model, classes, size, _ = WORKLOADS[workload]
    net = alexnet.create(model, classes)
    optimizer = SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    rng = np.random.default_rng(0)
    images = from_batch_last(rng.standard_normal((3, size, size, batch)).astype(np.float32))
    labels = rng.integers(0, classes, batch)
    count = 0

    def train():
        nonlocal count
        count += 1
        net.train()
        with random.context(0, count):
            loss = F.cross_entropy(net(Tensor(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def forward():
        with no_grad():
            return float(net.eval()(Tensor(images)).data[0, 0])

    def layers():
        names = {id(module): name for name, module in net.named_modules() if name}
        call, input_gradients = Function.__call__, Function.input_gradients
        forward_seconds, seconds = {}, {}

        def timed_call(function, *inputs):
            start = time.perf_counter()
            y = call(function, *inputs)
            forward_seconds[id(function)] = time.perf_counter() - start
            return y

        def timed_gradients(function, grad):
            start = time.perf_counter()
            gradients = input_gradients(function, grad)
            both = forward_seconds.pop(id(function)), time.perf_counter() - start
            tile = getattr(function, "tile", 0)
            name = names.get(id(function.module), "loss") + (f", m = {tile}" if tile else "")
            seconds[name] = [old + new for old, new in zip(seconds.get(name, (0.0, 0.0)), both, strict=True)]
            return gradients

        Function.__call__, Function.input_gradients = timed_call, timed_gradients
        try:
            start = time.perf_counter()
            train()
            total = time.perf_counter() - start
        finally:
            Function.__call__, Function.input_gradients = call, input_gradients
        rest = {"update and the rest": [0.0, total - sum(map(sum, seconds.values()))]}
        return dict(reversed(seconds.items())) | rest

    return train, forward, layers


def torch(workload, batch, channels_last):
    """(train, forward)."""
    import torch
    from torch import nn

    _, classes, size, _ = WORKLOADS[workload]
    lrn = (5, 1e-4, 0.75, 2.0)

    class TowerNorm(nn.LocalResponseNorm):
        """Normalises the channels of each tower by themselves, through a view without a copy."""

        def forward(self, x):
            return super().forward(x.unflatten(1, (2, -1)).flatten(0, 1)).unflatten(0, (-1, 2)).flatten(1, 2)

    def block(inputs, outputs, kernel, stride=1, padding=0, groups=1, local=False):
        yield nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
        if workload == "W1":
            yield nn.BatchNorm2d(outputs)
        yield nn.ReLU()
        if workload != "W1" and local:
            yield (TowerNorm if workload == "W3" else nn.LocalResponseNorm)(*lrn)

    groups = 2 if workload == "W3" else 1
    net = nn.Sequential(
        *(block(3, 96, 11, 4, local=True) if workload == "W3" else block(3, 96, 5, padding=2, local=True)),
        nn.MaxPool2d(3, 2),
        *block(96, 256, 5, padding=2, groups=groups, local=True),
        nn.MaxPool2d(3, 2),
        *block(256, 384, 3, padding=1),
        *block(384, 384, 3, padding=1, groups=groups),
        *block(384, 256, 3, padding=1, groups=groups),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        *(nn.Linear(9216 if workload == "W3" else 2304, 4096), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(4096, classes),
    )
    images, labels = torch.randn(batch, 3, size, size), torch.randint(0, classes, (batch,))
    if channels_last:
        net, images = net.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def train():
        net.train()
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def forward():
        with torch.no_grad():
            return float(net.eval()(images)[0, 0])

    return train, forward


def tensorflow(workload, batch):
    """(train, forward), compiled to graphs, with TensorFlow's own layout: channels last."""
    import tensorflow as tf
    from tensorflow.keras import layers

    _, classes, size, _ = WORKLOADS[workload]
    groups = 2 if workload == "W3" else 1

    def local(x):
        """Normalises the channels of each tower by themselves."""
        towers = tf.split(x, groups, axis=-1)
        return tf.concat([tf.nn.local_response_normalization(tower, 2, 2.0, 1e-4 / 5, 0.75) for tower in towers], axis=-1)

    def block(outputs, kernel, stride=1, padding="same", groups=1, lrn=False):
        yield layers.Conv2D(outputs, kernel, stride, padding, groups=groups)
        if workload == "W1":
            yield layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
        yield layers.ReLU()
        if workload != "W1" and lrn:
            yield layers.Lambda(local)

    net = tf.keras.Sequential(
        [
            layers.Input((size, size, 3)),
            *(block(96, 11, 4, "valid", lrn=True) if workload == "W3" else block(96, 5, lrn=True)),
            layers.MaxPool2D(3, 2),
            *block(256, 5, groups=groups, lrn=True),
            layers.MaxPool2D(3, 2),
            *block(384, 3),
            *block(384, 3, groups=groups),
            *block(256, 3, groups=groups),
            layers.MaxPool2D(3, 2),
            layers.Flatten(),
            *(layers.Dense(4096, "relu"), layers.Dropout(0.5)),
            *(layers.Dense(4096, "relu"), layers.Dropout(0.5)),
            layers.Dense(classes),
        ]
    )
    optimizer = tf.keras.optimizers.SGD(0.01, 0.9, weight_decay=5e-4)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.standard_normal((batch, size, size, 3)), tf.float32)
    labels = tf.constant(rng.integers(0, classes, batch))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, net(images, training=True)))
        optimizer.apply_gradients(zip(tape.gradient(loss, net.trainable_variables), net.trainable_variables, strict=True))
        return loss

    infer = tf.function(lambda: net(images, training=False))
    return (lambda: float(step())), (lambda: float(infer()[0, 0]))
