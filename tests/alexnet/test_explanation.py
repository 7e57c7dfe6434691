"""Explanations of an answer: three maps, each compared with its definition, and a network that uses only one corner."""

import itertools

import numpy as np
import pytest

import alexnet
from alexnet import explanation, models
from alexnet.explanation import explain, occlusion
from minidl import Tensor, no_grad
from minidl import functional as F
from minidl.backend import to_device, to_numpy
from minidl.nn import BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential


@pytest.fixture
def network():
    """A convolution, a batch norm, pooling, a second convolution and a last layer, for images of 2 x 12 x 12."""
    network = Sequential(
        Conv2d(2, 3, 3, padding=1),
        BatchNorm2d(3),
        ReLU(),
        MaxPool2d(2),
        Conv2d(3, 4, 3, padding=1),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear(36, 3),
    ).to(dtype="float64")
    draws = np.random.default_rng(3)
    for name, array in network.state_dict().items():
        if array.dtype.kind == "f":
            array[...] = draws.uniform(0.5 if name.endswith("var") else -0.5, 1, array.shape)
    return network


def image(seed=0, shape=(1, 2, 12, 12), dtype="float64"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def logits(network, x):
    with no_grad():
        return to_numpy(network.eval()(Tensor(x)).data)


def test_the_gradient_map_matches_finite_differences(network):
    x, label, eps = image(), 1, 1e-6
    differences = np.zeros((2, 12, 12))
    for place in np.ndindex(differences.shape):
        up, down = x.copy(), x.copy()
        up[(0, *place)] += eps
        down[(0, *place)] -= eps
        differences[place] = (logits(network, up) - logits(network, down))[0, label] / (2 * eps)
    np.testing.assert_allclose(explain(network, x, label).gradient, abs(differences).max(axis=0), atol=1e-6)


def test_grad_cam_matches_its_formula(network):
    """d logit / d A by finite differences; its mean over a map weights the map; the positive part of the sum."""
    x, label, eps = image(5), 2, 1e-6
    chain = [layer for _, layer in models.layers(network.eval())]
    with no_grad():
        maps = x
        for layer in chain[:6]:
            maps = layer(Tensor(maps)).data
        cam = np.zeros(maps.shape[2:])
        for k in range(maps.shape[1]):
            slope = 0.0
            for place in np.ndindex(maps.shape[2:]):
                ends = []
                for step in (eps, -eps):
                    changed = maps.copy()
                    changed[(0, k, *place)] += step
                    for layer in chain[6:]:
                        changed = layer(Tensor(changed)).data
                    ends.append(changed[0, label])
                slope += (ends[0] - ends[1]) / (2 * eps)
            cam += slope / cam.size * maps[0, k]
    cam = np.maximum(cam, 0) / max(cam.max(), 1e-12)
    found = explain(network, x, label).grad_cam
    assert found.shape == (12, 12) and found.min() >= 0 and found.max() <= 1
    # The map is enlarged twofold by linear interpolation: the mean of a block of four is near the value of the map.
    np.testing.assert_allclose(found.reshape(6, 2, 6, 2).mean(axis=(1, 3))[1:-1, 1:-1], smoothed(cam)[1:-1, 1:-1], atol=1e-5)


@pytest.mark.parametrize("name, last", [("small-bn", "relu5"), ("four-layers-tanh", "act3"), ("cifar-lrn", "relu5")])
def test_grad_cam_uses_the_last_maps_with_positions(name, last):
    """In the small networks the fully connected layers are convolutions, whose maps have one position."""
    network, x = models.create(name).eval(), image(shape=(1, 3, 32, 32), dtype="float32")
    _, maps, slopes = explanation._gradients(network, x, 0)
    expected = Tensor(x)
    for layer_name, layer in models.layers(network):
        expected = layer(expected)
        if layer_name == last:
            break
    np.testing.assert_array_equal(maps, expected.data[0])
    assert slopes.shape == maps.shape and slopes.any()


def smoothed(a):
    """A map after its pixels are doubled by linear interpolation and averaged in pairs: weights 1/8, 3/4, 1/8."""
    for axis in (0, 1):
        a = (np.roll(a, 1, axis) + 6 * a + np.roll(a, -1, axis)) / 8
    return a


def test_occlusion_matches_its_definition(network):
    network[-1].weight.data[...] *= 0.02  # otherwise the probability is almost 1, however the image is covered
    x, label = image(2), 0
    found = occlusion(network.eval(), x, label)
    window, step = 2, 1  # a fifth of 12, and a third of that, rounded
    softmax = lambda z: (np.exp(z - z.max()) / np.exp(z - z.max()).sum())[0, label]
    falls, counts = np.zeros((12, 12)), np.zeros((12, 12))
    for top in range(0, 12 - window + 1, step):
        for left in range(0, 12 - window + 1, step):
            covered = x.copy()
            covered[..., top : top + window, left : left + window] = 0
            falls[top : top + window, left : left + window] += softmax(logits(network, x)) - softmax(logits(network, covered))
            counts[top : top + window, left : left + window] += 1
    assert abs(falls / counts).max() > 0.01
    np.testing.assert_allclose(found, falls / counts, atol=1e-7)


def test_the_maps_show_the_only_corner_that_a_network_uses():
    """All three maps are positive in the lower right quarter only."""
    network = Sequential(Conv2d(1, 1, 3, padding=1), ReLU(), Flatten(), Linear(400, 2)).to(dtype="float64")
    state = network.state_dict()
    for array in state.values():
        array[...] = 0
    state["0.weight"][0, 0, 1, 1] = 1
    corner = np.zeros((20, 20))
    corner[10:, 10:] = 1
    state["3.weight"][0] = 0.05 * corner.ravel()
    x = np.ones((1, 1, 20, 20))
    found = explain(network, x, 0)
    assert (found.gradient[corner == 1] > 0).all() and (found.gradient[corner == 0] == 0).all()
    assert found.grad_cam.min() == found.grad_cam.max() == 1  # Grad-CAM weights all pixels of the only feature map equally
    far = np.zeros((20, 20), bool)
    far[:7, :7] = True
    assert found.occlusion[15, 15] > 0.005 and abs(found.occlusion[far]).max() < 1e-7
    x[0, 0, :, :10] = 0
    assert explain(network, x, 0).grad_cam[:, :9].max() == 0


def test_grad_cam_without_a_positive_part_is_0():
    """If all of the last feature maps count against the class, Grad-CAM is 0 everywhere."""
    network = Sequential(Conv2d(1, 1, 1), ReLU(), Flatten(), Linear(16, 2)).to(dtype="float64")
    for array in network.state_dict().values():
        array[...] = -1
    network.state_dict()["0.weight"][...] = 2
    found = explain(network, np.ones((1, 1, 4, 4)), 0)
    assert (found.grad_cam == 0).all() and np.isfinite(found.gradient).all()


def test_explain_does_not_change_the_network(network):
    before = {name: array.copy() for name, array in network.state_dict().items()}
    network[0].requires_grad_(False)
    network.train()
    explain(network, image(), 0)
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert [p.requires_grad for p in network.parameters()] == [False] * 2 + [True] * 6
    assert all(p.grad is None for p in network.parameters())


def test_squares_cover_the_image():
    for length in range(1, 40):
        for window in range(1, length + 1):
            for step in range(1, window + 1):
                places = explanation._places(length, window, step)
                assert places[0] == 0 and places[-1] == length - window
                assert all(0 < b - a <= step for a, b in itertools.pairwise(places))


@pytest.mark.parametrize(
    "model, size", [("cifar-bn", 32), ("cifar-lrn", 32), ("alexnet-2012", 64), ("net-145", 64), ("alexnet-torchvision", 63)]
)
def test_all_networks_can_be_explained(device, model, size, monkeypatch):
    monkeypatch.setattr(explanation, "STEP", 1.0)
    options = {} if model == "alexnet-torchvision" else {"image_size": size}
    network = alexnet.create(model, 5, **options).to(device)
    x = to_device(image(1, (1, 3, size, size), "float32"), device)
    found = explain(network, x, 3)
    for array in (found.gradient, found.grad_cam, found.occlusion):
        assert array.shape == (size, size) and np.isfinite(array).all()
    with no_grad():
        assert F.softmax(network(Tensor(x))).shape == (1, 5)
