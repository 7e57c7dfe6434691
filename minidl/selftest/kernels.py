"""Calls of every kernel, whose results must be the same on every device. For each: call(kernels, make) gives the results,
where make(values, *shape) is an array on the device.
"""

import numpy as np

from ..backend import to_device, to_numpy
from ..kernels import kernels_for

C, H, W, N, O = 6, 7, 5, 3, 4
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}  # of the largest entry, or of 1


def image(rng, *shape):
    return rng.standard_normal(shape or (C, H, W, N))


def positive(rng, *shape):
    return 0.5 + rng.random(shape)


def _convolution(kernel, stride, padding, groups, tile=0, c=C, o=O, h=H, w=W):
    """A forward and both gradients."""

    def call(kernels, make):
        x, weight, bias = make(image, c, h, w, N), make(image, o, c // groups, *kernel), make(image, o)
        y = kernels.conv2d(x, weight, bias, stride, padding, groups, tile)
        grad = make(image, *y.shape)
        out = make(image, *weight.shape)
        both = kernels.conv2d_gradients(grad, x, weight, stride, padding, groups, tile, (True, True), out)
        one = kernels.conv2d_gradients(grad, x, weight, stride, padding, groups, tile, (True, False))
        other = kernels.conv2d_gradients(grad, x, weight, stride, padding, groups, tile, (False, True))
        assert both[1] is out and one[1] is None and other[0] is None
        without = kernels.conv2d(x, weight, None, stride, padding, groups, tile)
        return y, without, *both, one[0], other[1]

    return call


def _max_pool2d(kernel, stride, padding, output_size):
    def call(kernels, make):
        x = make(image)
        y, argmax = kernels.max_pool2d(x, kernel, stride, padding, output_size, True)
        same, none = kernels.max_pool2d(x, kernel, stride, padding, output_size, False)
        assert none is None
        return y, same, argmax, kernels.max_pool2d_gradient(make(image, *y.shape), argmax, x.shape, kernel, stride, padding)

    return call


def _linear(kernels, make):
    x, weight, bias, grad = make(image, 9, N), make(image, O, 9), make(image, O), make(image, O, N)
    out = make(image, O, 9)
    assert kernels.linear_weight_gradient(grad, x, out) is out
    return (
        kernels.linear(x, weight, bias),
        kernels.linear(x, weight, None),
        kernels.linear_input_gradient(grad, weight),
        kernels.linear_weight_gradient(grad, x),
        out,
    )


def _batch_norm(kernels, make):
    x, grad = make(image), make(image)
    mean, inverse_std, scale, a, b = (make(positive, C) for _ in range(5))
    return (
        *kernels.channel_statistics(x),
        kernels.scale_and_shift(x, scale, a),
        *kernels.batch_norm_sums(grad, x, mean, inverse_std),
        kernels.batch_norm_gradient(grad, x, mean, inverse_std, scale, a, b),
        kernels.channel_sums(x),
    )


def _statistics_of_a_large_mean(kernels, make):
    x = make(image) + 1000
    return kernels.channel_statistics(x)


def _statistics_of_nothing(kernels, make):
    return kernels.channel_statistics(make(image, C, H, W, 0))


def _local_response_norm(before, after, beta):
    def call(kernels, make):
        x, grad = make(image), make(image)
        y, s = kernels.local_response_norm(x, before, after, 0.3, beta, 2.0)
        return y, s, kernels.local_response_norm_gradient(grad, x, s, before, after, 0.3, beta)

    return call


def _relu(kernels, make):
    y = kernels.relu(make(image))
    return y, kernels.relu_gradient(make(image), y)


def _labels(kernels, make):
    rows = make(image, 5, N)
    labels = make(lambda rng, *shape: rng.integers(0, 5, shape), N)
    picked = kernels.at_labels(rows, labels)
    kernels.subtract_at_labels(rows, labels, 0.75)
    return picked, rows


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


def _windows(kernels, make):
    rows, columns = [range(3), range(2, 5), range(4, 7)], [range(2), range(1, 5)]
    return (
        kernels.window_sums(make(image), rows, columns),
        kernels.window_sums_gradient(make(image, C, 3, 2, N), rows, columns, (C, H, W, N)),
    )


CALLS = {
    "conv2d": _convolution((3, 3), (1, 1), (1, 1), 1),
    "conv2d with groups": _convolution((3, 2), (1, 1), (0, 1), 2),
    "conv2d with strides": _convolution((3, 3), (2, 3), (2, 0), 1),
    "conv2d of one pixel": _convolution((7, 5), (1, 1), (0, 0), 1),
    "winograd": _convolution((3, 3), (1, 1), (1, 1), 1, tile=2),
    "winograd with groups": _convolution((3, 3), (1, 1), (0, 1), 2, tile=4, h=11, w=9),
    "winograd of 5 x 5": _convolution((5, 5), (1, 1), (2, 2), 1, tile=5, h=12, w=11),
    "max_pool2d": _max_pool2d((3, 3), (2, 2), ((0, 0), (0, 0)), (3, 2)),
    "max_pool2d with padding": _max_pool2d((3, 2), (2, 1), ((1, 2), (1, 1)), (4, 6)),
    "linear": _linear,
    "batch_norm": _batch_norm,
    "statistics of a large mean": _statistics_of_a_large_mean,
    "statistics of nothing": _statistics_of_nothing,
    "local_response_norm": _local_response_norm(2, 2, 0.75),
    "local_response_norm, another power": _local_response_norm(1, 3, 0.6),
    "local_response_norm, a wide window": _local_response_norm(9, 9, 0.75),
    "relu": _relu,
    "labels": _labels,
    "sgd": _sgd(False),
    "nesterov": _sgd(True),
    "adam": _adam,
    "window sums": _windows,
}


def results(call, device: str, dtype: str) -> list[np.ndarray]:
    """What the kernels of a device give, on the host."""
    rng = np.random.default_rng(0)

    def make(values, *shape):
        array = values(rng, *shape)
        return to_device(array.astype(dtype) if array.dtype.kind == "f" else array, device)

    return [to_numpy(array) for array in call(kernels_for(to_device(np.zeros(1), device)), make)]


def difference(name: str, device: str, dtype: str) -> float:
    """How far a call's results on the device are from NumPy's in float64 at most, in units of the largest entry or of 1."""
    differences = []
    for got, expected in zip(results(CALLS[name], device, dtype), results(CALLS[name], "numpy", "float64"), strict=True):
        if got.shape != expected.shape:
            raise AssertionError(f"{name} gave the shape {got.shape} in place of {expected.shape}")
        scale = max(1.0, np.abs(expected).max(initial=0.0))
        differences.append(np.abs(got.astype(np.float64) - expected).max(initial=0.0) / scale)
    return float(np.max(differences))  # nan if any is: Python's max may pass it over


MASKS = [((5, 3), (0, 0, 0, 0)), ((2, 3, 5, 7), (2**40 + 7, 12345, 3, 1000)), ((9, 0), (1, 2, 3, 4)), ((1030, 33), (1, 2, 3, 4))]


def masks_are_equal(device: str) -> bool:
    """Whether dropout's masks are those of NumPy, to the last bit."""
    kernels, reference = (kernels_for(to_device(np.zeros(1), place)).dropout_mask for place in (device, "numpy"))
    masks = [(shape, p, draw, np.float32) for shape, draw in MASKS for p in (0.0, 0.3, 0.5, 1.0)]
    return all(np.array_equal(to_numpy(kernels(*mask)), reference(*mask)) for mask in masks)
