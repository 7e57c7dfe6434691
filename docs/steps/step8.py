"""Step 8: convolution.

A kernel is applied at every position of an image. Or, seen from the kernel: at each position in the kernel, its weights are
multiplied by a shifted view of the whole image. So a convolution is a few matrix products. Its backward adds to the same views.
"""

import numpy as np
from step6 import Function, Tensor
from step7 import LinearLayer, Module, ReLULayer, Sequential, accuracy, digits, train


def places(x, kernel, stride, height, width):
    """Yield i, j and, as a view (N, C, height, width), what every window of x (N, C, H, W) has at its position (i, j)."""
    for i in range(kernel):
        for j in range(kernel):
            yield i, j, x[:, :, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]


class Conv2d(Function):
    """y[n, o, h, w] = b[o] + sum over c, i, j of W[o, c, i, j] xpad[n, c, h + i, w + j]"""

    def __init__(self, padding):
        self.padding = padding

    def forward(self, x, weight, bias):
        p = self.padding
        self.xpad, self.weight = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p))), weight
        kernel = weight.shape[2]
        self.height, self.width = (n - kernel + 1 for n in self.xpad.shape[2:])
        y = np.zeros((len(x), len(weight), self.height, self.width)) + bias[:, None, None]
        for i, j, seen in places(self.xpad, kernel, 1, self.height, self.width):
            y += np.einsum("oc,nchw->nohw", weight[:, :, i, j], seen, optimize=True)
        return y

    def backward(self, grad):
        dxpad, dweight = np.zeros_like(self.xpad), np.zeros_like(self.weight)
        window = self.weight.shape[2], 1, self.height, self.width
        for (i, j, seen), (_, _, target) in zip(places(self.xpad, *window), places(dxpad, *window), strict=True):
            dweight[:, :, i, j] = np.einsum("nohw,nchw->oc", grad, seen, optimize=True)
            target += np.einsum("oc,nohw->nchw", self.weight[:, :, i, j], grad, optimize=True)
        p = self.padding
        dx = dxpad[:, :, p : dxpad.shape[2] - p, p : dxpad.shape[3] - p]
        return dx, dweight, grad.sum(axis=(0, 2, 3))


class MaxPool2d(Function):
    """The largest element of each window. An element that is the maximum of several windows gets the sum of their gradients."""

    def __init__(self, kernel, stride):
        self.kernel, self.stride = kernel, stride

    def forward(self, x):
        self.shape = x.shape
        height, width = ((n - self.kernel) // self.stride + 1 for n in x.shape[2:])
        seen = np.stack([view for _, _, view in places(x, self.kernel, self.stride, height, width)])
        self.which = seen.argmax(axis=0)
        return seen.max(axis=0)

    def backward(self, grad):
        dx = np.zeros(self.shape)
        for i, j, target in places(dx, self.kernel, self.stride, *grad.shape[2:]):
            target += np.where(self.which == i * self.kernel + j, grad, 0)
        return (dx,)


class Flatten(Function):
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, grad):
        return (grad.reshape(self.shape),)


class ConvLayer(Module):
    def __init__(self, inputs, outputs, kernel, padding, draws):
        size = (outputs, inputs, kernel, kernel)
        self.weight = Tensor(draws.normal(0, (2 / (inputs * kernel**2)) ** 0.5, size), requires_grad=True)
        self.bias = Tensor(np.zeros(outputs), requires_grad=True)
        self.padding = padding

    def __call__(self, x):
        return Conv2d(self.padding)(x, self.weight, self.bias)


class PoolLayer(Module):
    def __call__(self, x):
        return MaxPool2d(3, 2)(x)


class FlattenLayer(Module):
    def __call__(self, x):
        return Flatten()(x)


def small_alexnet(draws):
    """For images of 8 x 8."""
    return Sequential(
        ConvLayer(1, 8, 3, 1, draws),  # 8 x 8 x 8
        ReLULayer(),
        PoolLayer(),  # 8 x 3 x 3
        ConvLayer(8, 16, 3, 1, draws),  # 16 x 3 x 3
        ReLULayer(),
        FlattenLayer(),  # 144
        LinearLayer(144, 10, draws),
    )


if __name__ == "__main__":
    training, test = digits()
    network = small_alexnet(np.random.default_rng(0))
    train(network, training, epochs=8, lr=0.05)
    print(f"test accuracy {accuracy(network, test):.3f}")
