"""Winograd's convolution: compared with im2col and with the definition, forward and backward; and when it is chosen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import alexnet
import minidl.functional as F
from minidl import Tensor, get_num_threads, gradcheck, set_num_threads
from minidl.backend import to_device, to_numpy
from minidl.kernels import winograd

from ..helpers import naive

LAYERS = {  # inputs, outputs, kernel, size of the map, groups
    "W1 conv2": (96, 256, 5, 15, 1),
    "W1 conv3": (256, 384, 3, 7, 1),
    "W1 conv4": (384, 384, 3, 7, 1),
    "W1 conv5": (384, 256, 3, 7, 1),
    "W3 conv2": (96, 256, 5, 27, 2),
    "W3 conv3": (256, 384, 3, 13, 1),
    "W3 conv4": (384, 384, 3, 13, 2),
    "W3 conv5": (384, 256, 3, 13, 2),
}


TILES = [(m, r) for r in (3, 5) for m in range(2, 8) if m + r - 2 in winograd.POINTS]


@pytest.mark.parametrize("m, r", TILES)
def test_the_transforms_are_a_correlation(m, r):
    """y = A^T ((G w) * (B x)) for every tile x and kernel w."""
    A, G, B = winograd.transforms(m, r, np.float64)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((m + r - 1, m + r - 1)), rng.standard_normal((r, r))
    expected = [[(x[i : i + r, j : j + r] * w).sum() for j in range(m)] for i in range(m)]
    np.testing.assert_allclose((A.T @ ((G @ w.ravel()) * (B @ x.ravel()))).reshape(m, m), expected, rtol=1e-9)


@given(data=st.data())
def test_winograd_matches_the_definition(data):
    draw = data.draw
    (m, r), groups = draw(st.sampled_from(TILES)), draw(st.integers(1, 2))
    padding = (draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    H, W = (draw(st.integers(max(1, r - 2 * p), 11)) for p in padding)
    N, C, O = draw(st.integers(0, 5)), groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((N, C, H, W)), rng.standard_normal((O, C // groups, r, r)), rng.standard_normal(O)
    last = np.ascontiguousarray(x.transpose(1, 2, 3, 0))
    y = winograd.conv2d(last, weight, bias, padding, groups, m).transpose(3, 0, 1, 2)
    np.testing.assert_allclose(y, naive.conv2d(x, weight, bias, (1, 1), padding, groups), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("m, r", TILES)
@pytest.mark.parametrize("padding, groups", [((1, 1), 1), ((0, 2), 2)])
@pytest.mark.parametrize("tiles", [1, 512])
def test_the_gradients_are_right(monkeypatch, m, r, padding, groups, tiles):
    monkeypatch.setattr(winograd, "TILES", tiles)
    rng = np.random.default_rng(0)
    x, weight, bias = (
        Tensor(rng.standard_normal(shape), requires_grad=True) for shape in ((3, 4, 7, 6), (4, 4 // groups, r, r), (4,))
    )
    function = F.convolution.Conv2d

    def check(fn, *inputs):
        gradcheck(fn, inputs, mode="directions")

    check(lambda *inputs: function((1, 1), padding, groups, m)(*inputs), x, weight, bias)
    check(lambda w: function((1, 1), padding, groups, m)(Tensor(x.data), w, None), weight)
    check(lambda x: function((1, 1), padding, groups, m)(x, Tensor(weight.data), None), x)


@pytest.mark.parametrize("data", ["normal", "positive"])
@pytest.mark.parametrize("layer", LAYERS)
def test_float32_is_accurate_at_real_sizes(layer, data):
    """Values and both gradients agree with im2col in float64 to 1e-4 of the largest entry."""
    C, O, r, size, groups = LAYERS[layer]
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((8, C, size, size)), rng.standard_normal((O, C // groups, r, r)) / np.sqrt(C * r * r)
    if data == "positive":
        x = np.maximum(x, 0)
    grad = rng.standard_normal((8, O, size, size))
    results = []
    for dtype, algorithm in ((np.float32, "auto"), (np.float64, "im2col")):
        tensors = [Tensor(a.astype(dtype), requires_grad=True) for a in (x, weight)]
        with F.convolution_algorithm(algorithm):
            y = F.conv2d(*tensors, padding=r // 2, groups=groups)
        assert (y.creator.winograd_tile is not None) == (algorithm == "auto")
        y.backward(grad.astype(dtype))
        results.append([y.data, *(t.grad for t in tensors)])
    for fast, exact in zip(*results, strict=True):
        assert np.abs(fast - exact).max() <= 1e-4 * np.abs(exact).max()


def test_when_winograd_is_chosen():
    """By shapes alone. Not for three channels, strides, other kernel sizes, or feature maps of one pixel."""
    assert winograd.winograd_tile((15, 15), (256, 96, 5, 5), (1, 1), (2, 2), 1) == 5
    assert winograd.winograd_tile((7, 7), (384, 256, 3, 3), (1, 1), (1, 1), 1) == 7
    assert winograd.winograd_tile((13, 13), (384, 192, 3, 3), (1, 1), (1, 1), 2) == 7
    assert winograd.winograd_tile((27, 27), (256, 48, 5, 5), (1, 1), (2, 2), 2) == 4
    assert winograd.winograd_tile((3, 3), (384, 256, 3, 3), (1, 1), (1, 1), 1) == 3
    for image, weight, stride in [
        ((32, 32), (96, 3, 5, 5), (1, 1)),
        ((15, 15), (256, 96, 5, 5), (2, 2)),
        ((15, 15), (256, 96, 1, 1), (1, 1)),
        ((15, 15), (256, 96, 7, 7), (1, 1)),
        ((1, 1), (384, 256, 3, 3), (1, 1)),
    ]:
        assert winograd.winograd_tile(image, weight, stride, (1, 1), 1) is None


def test_float16_is_computed_in_float32():
    """The intermediate values of the transforms are large."""
    x, w = Tensor(np.ones((1, 64, 9, 9), np.float16)), Tensor(np.ones((64, 64, 3, 3), np.float16))
    assert winograd.winograd_tile((9, 9), w.shape, (1, 1), (0, 0), 1) == 7
    y = F.conv2d(x, w)
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y.data, np.full((1, 64, 7, 7), 576))


def test_the_number_of_threads_changes_rounding_only():
    before = get_num_threads()
    net, images = alexnet.create("cifar-lrn"), np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype(np.float32)
    try:
        logits = []
        for threads in (1, 2, 3):
            set_num_threads(threads)
            logits.append(net.eval()(Tensor(images)).data)
            assert get_num_threads() == threads
    finally:
        set_num_threads(before)
    for other in logits[1:]:
        np.testing.assert_allclose(other, logits[0], rtol=1e-4, atol=1e-5 * np.abs(logits[0]).max())


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(ValueError, match="got 'fft'"), F.convolution_algorithm("fft"):
        pass


@pytest.mark.parametrize("axes", [(3, 2, 1, 0), (1, 0, 2, 3), (0, 1, 3, 2)], ids=str)
def test_the_weight_may_have_any_memory_order(device, axes):
    """The result does not depend on its strides in memory."""
    rng = np.random.default_rng(0)
    images, values = rng.standard_normal((2, 64, 9, 9)), rng.standard_normal((64, 64, 3, 3)).transpose(axes)
    weights = values.copy().transpose(np.argsort(axes))
    gradients = []
    for data in (weights, np.ascontiguousarray(weights)):
        weight = Tensor(to_device(data, device), requires_grad=True)
        y = F.conv2d(Tensor(to_device(images, device)), weight, padding=1)
        assert y.creator.winograd_tile
        (y**2).sum().backward()
        gradients.append(to_numpy(weight.grad))
    np.testing.assert_allclose(*gradients, rtol=0, atol=1e-9)
