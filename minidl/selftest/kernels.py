"""Calls of every kernel, whose results must equal those of the reference kernels.

Each is a function call(kernels, make) that returns the results, where make(values, *shape) is an array on the device.
"""

import numpy as np

from ..backend import to_device, to_numpy
from ..kernels import kernels_for, reference

N, C, H, W, O = 3, 6, 7, 5, 4
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}  # relative to the largest entry, or to 1 if that is larger


def image(rng, *shape):
    return rng.standard_normal(shape or (N, C, H, W))


def positive(rng, *shape):
    return 0.5 + rng.random(shape)


def special(rng, *shape):
    """An image with NaN and infinite values, and windows of nothing else."""
    x = rng.standard_normal(shape)
    x[rng.random(shape) < 0.1] = np.nan
    x[rng.random(shape) < 0.1] = np.inf
    x[rng.random(shape) < 0.6] = -np.inf
    x[0, :, :4] = -np.inf
    return x


def _convolution(kernel, stride, padding, groups, winograd_tile=None, h=H, w=W):
    """A call of convolution that returns the output and the gradients."""

    def call(kernels, make):
        x, weight, bias = make(image, N, C, h, w), make(image, O, C // groups, *kernel), make(image, O)
        y = kernels.conv2d(x, weight, bias, stride, padding, groups, winograd_tile)
        without = kernels.conv2d(x, weight, None, stride, padding, groups, winograd_tile)
        given = make(image, *y.shape), x, weight, stride, padding, groups, winograd_tile
        out = make(image, *weight.shape)
        gradients = list(kernels.conv2d_backward(*given, (True, True, True), out))
        if kernels is reference:
            return y, without, *gradients, *gradients
        assert gradients[1] is out
        alone = []
        for i in range(3):
            needs = [i == j for j in range(3)]
            alone.append(kernels.conv2d_backward(*given, needs)[i])
        return y, without, *gradients, *alone

    return call


def _max_pool2d(values, kernel, stride, padding, size):
    def call(kernels, make):
        x = make(values, N, C, H, W)
        y, argmax = kernels.max_pool2d(x, kernel, stride, padding, size, True)
        same = kernels.max_pool2d(x, kernel, stride, padding, size, False)[0]
        grad = make(image, *y.shape)
        grad[0, 0, 0, 0] = np.inf
        return y, same, argmax, kernels.max_pool2d_backward(grad, argmax, x.shape, kernel, stride, padding)

    return call


def _avg_pool2d(kernels, make):
    windows, divisors = [[range(3), range(2, 5), range(4, 7)], [range(2), range(1, 5)]], [[1, 2], [3, 4], [5, 6]]
    grad = make(image, N, C, 3, 2)
    return (
        kernels.avg_pool2d(make(image), windows, divisors),
        kernels.avg_pool2d_backward(grad, windows, divisors, (N, C, H, W)),
    )


def _pad2d(kernels, make):
    return (kernels.pad2d(make(image), 1, 0, 2, 3),)


def _linear(images, outputs):
    def call(kernels, make):
        x, weight, bias = make(image, images, 9), make(image, outputs, 9), make(image, outputs)
        grad = make(image, images, outputs)
        return (
            kernels.linear(x, weight, bias),
            kernels.linear(x, weight, None),
            *kernels.linear_backward(grad, x, weight, (True, True, True), make(image, outputs, 9)),
            *kernels.linear_backward(grad, x, weight),
        )

    return call


def _matmul(kernels, make):
    return kernels.matmul(make(image, 5, 1, 2, 3), make(image, 4, 3, 2)), kernels.matmul(make(image, 2, 3), make(image, 3, 4))


def _batch_norm(kernels, make):
    x, grad = make(image), make(image)
    mean, inverse_std, scale, a, b = (make(positive, C) for _ in range(5))
    return (
        *kernels.channel_statistics(x),
        kernels.scale_and_shift(x, scale, a),
        *kernels.batch_norm_sums(grad, x, mean, inverse_std),
        kernels.batch_norm_backward(grad, x, mean, inverse_std, scale, a, b),
    )


def _statistics_of_a_large_mean(kernels, make):
    x = make(image) + 1000
    return kernels.channel_statistics(x)


def _statistics_of_nothing(kernels, make):
    return kernels.channel_statistics(make(image, 0, C, H, W))


def _local_response_norm(before, after, beta, groups=1):
    def call(kernels, make):
        x, grad = make(image), make(image)
        y, s = kernels.local_response_norm(x, before, after, 0.3, beta, 2.0, groups)
        return y, s, kernels.local_response_norm_backward(grad, x, s, before, after, 0.3, beta, groups)

    return call


def _activation(name, values):
    def call(kernels, make):
        y, grad = getattr(kernels, name)(make(values, N, C, H, W)), make(image)
        grad[0, 0] = np.inf
        return y, getattr(kernels, f"{name}_backward")(grad, y)

    return call


def _cross_entropy(label_smoothing):
    def call(kernels, make):
        x, grad, labels = make(image, N, 5), make(image, N), make(lambda rng, *shape: rng.integers(0, 5, shape), N)
        losses, p = kernels.cross_entropy(x, labels, label_smoothing)
        return losses, p, kernels.cross_entropy_backward(grad, p, labels, label_smoothing), kernels.log_softmax(x, 0)

    return call


def _multiply(kernels, make):
    return (kernels.multiply(make(image), make(positive, N, C, H, W)),)


def _sgd(nesterov):
    def call(kernels, make):
        weight, grad, velocity = (make(image, 1000) for _ in range(3))
        kernels.sgd_update(weight, grad, velocity, 0.1, 0.9, 5e-4, nesterov)
        kernels.sgd_update(weight, grad, velocity, 0.1, 0.9, 5e-4, nesterov, make(image, 1).astype("float64"))
        kernels.sgd_update(weight, grad, velocity, 0.1, 0.9, 5e-4, nesterov, make(image, 1).astype("float64") * np.inf)
        return weight, velocity

    return call


def _adam(kernels, make):
    weight, grad, exp_avg, exp_avg_sq = make(image, 1000), make(image, 1000), make(image, 1000), make(positive, 1000)
    step, loss = (make(positive, 1).astype("float64") for _ in range(2))
    step[...] = 0
    for of_this_step in (None, loss, loss * np.inf):
        settings = 0.1, (0.9, 0.999), 1e-8, 5e-4
        kernels.adam_update(weight, grad, exp_avg, exp_avg_sq, step, *settings, of_this_step)
    return weight, exp_avg, exp_avg_sq, step


CALLS = {
    "conv2d": _convolution((3, 3), (1, 1), (1, 1), 1),
    "conv2d with groups": _convolution((3, 2), (1, 1), (0, 1), 2),
    "conv2d with strides": _convolution((3, 3), (2, 3), (2, 0), 1),
    "conv2d of one pixel": _convolution((7, 5), (1, 1), (0, 0), 1),
    "winograd": _convolution((3, 3), (1, 1), (1, 1), 1, winograd_tile=2),
    "winograd with groups": _convolution((3, 3), (1, 1), (0, 1), 2, winograd_tile=4, h=11, w=9),
    "winograd of 5 x 5": _convolution((5, 5), (1, 1), (2, 2), 1, winograd_tile=5, h=12, w=11),
    "max_pool2d": _max_pool2d(image, (3, 3), (2, 2), ((0, 0), (0, 0)), (3, 2)),
    "max_pool2d with padding": _max_pool2d(image, (3, 2), (2, 1), ((1, 2), (1, 1)), (4, 6)),
    "max_pool2d of special values": _max_pool2d(special, (3, 2), (2, 1), ((1, 2), (1, 1)), (4, 6)),
    "avg_pool2d": _avg_pool2d,
    "pad2d": _pad2d,
    "linear": _linear(N, O),
    "linear of nothing to nothing": _linear(0, 0),
    "matmul": _matmul,
    "batch_norm": _batch_norm,
    "statistics of a large mean": _statistics_of_a_large_mean,
    "statistics of nothing": _statistics_of_nothing,
    "local_response_norm": _local_response_norm(2, 2, 0.75),
    "local_response_norm, another power": _local_response_norm(1, 3, 0.6),
    "local_response_norm, a wide window": _local_response_norm(9, 9, 0.75),
    "local_response_norm in groups": _local_response_norm(2, 1, 0.75, groups=2),
    "relu": _activation("relu", image),
    "relu of special values": _activation("relu", special),
    "tanh": _activation("tanh", image),
    "sigmoid": _activation("sigmoid", image),
    "multiply": _multiply,
    "cross_entropy": _cross_entropy(0.0),
    "cross_entropy, smoothed": _cross_entropy(0.25),
    "sgd": _sgd(False),
    "nesterov": _sgd(True),
    "adam": _adam,
}


def results(call, kernels, device: str, dtype: str) -> list[np.ndarray]:
    """The results of these kernels on a device, copied to the host."""
    rng = np.random.default_rng(0)

    def make(values, *shape):
        array = values(rng, *shape)
        return to_device(array.astype(dtype) if array.dtype.kind == "f" else array, device)

    return [to_numpy(array) for array in call(kernels, make)]


def fast_kernels(device: str):
    return kernels_for(to_device(np.zeros(1), device))


def difference(name: str, device: str, dtype: str) -> float:
    """The largest difference between a call's results on the device and the reference's in float64, relative as for TOLERANCE.

    NaN and infinite values must be at the same positions; otherwise the difference is NaN.
    """
    differences = []
    expected_results = results(CALLS[name], reference, "numpy", "float64")
    for got, expected in zip(results(CALLS[name], fast_kernels(device), device, dtype), expected_results, strict=True):
        if got.shape != expected.shape:
            raise AssertionError(f"{name} gave the shape {got.shape} in place of {expected.shape}")
        got, finite = got.astype(np.float64), np.isfinite(expected)
        if not np.array_equal(got[~finite], expected[~finite], equal_nan=True):
            return np.nan
        scale = max(1.0, np.abs(expected[finite]).max(initial=0.0))
        differences.append(np.abs(got[finite] - expected[finite]).max(initial=0.0) / scale)
    return float(np.max(differences))  # NaN if any is NaN; Python's max may skip it


MASKS = [
    ((3, 5), (0, 0, 0, 0, 0)),
    ((7, 2, 3, 5), (2**40 + 7, 12345, 3, 1000, 0)),
    ((0, 9), (1, 2, 3, 4, 5)),
    ((33, 1030), (1, 2, 3, 4, 1365)),
]


def masks_are_equal(device: str) -> bool:
    """Whether dropout's masks equal those of the reference bit for bit."""
    masks = [(shape, p, draw, np.float32) for shape, draw in MASKS for p in (0.0, 0.3, 0.5, 1.0)]
    fast = fast_kernels(device)
    return all(np.array_equal(to_numpy(fast.dropout_mask(*mask)), reference.dropout_mask(*mask)) for mask in masks)
