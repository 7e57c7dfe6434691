"""The networks: sizes, counts and state names compared with published figures, and their initial weights."""

import math
from pathlib import Path

import numpy as np
import pytest

import alexnet
from alexnet.models import IMAGE_SIZE, LEAST_IMAGE_SIZE, MODELS, NETWORKS, SameMapNorm
from minidl import Tensor, gradcheck, no_grad, random
from minidl.nn import summary

ROOT = Path(__file__).parents[2]
# (network, height and width): {layer: (output, parameters, multiply-adds of one image)}, from the papers and their code.
LAYERS = {
    ("alexnet-2012", 227): {
        "conv1": ((96, 55, 55), 34_944, 105_415_200),
        "pool1": ((96, 27, 27), 0, 0),
        "conv2": ((256, 27, 27), 307_456, 223_948_800),
        "pool2": ((256, 13, 13), 0, 0),
        "conv3": ((384, 13, 13), 885_120, 149_520_384),
        "conv4": ((384, 13, 13), 663_936, 112_140_288),
        "conv5": ((256, 13, 13), 442_624, 74_760_192),
        "pool5": ((256, 6, 6), 0, 0),
        "fc6": ((4096,), 37_752_832, 37_748_736),
        "fc7": ((4096,), 16_781_312, 16_777_216),
        "fc8": ((1000,), 4_097_000, 4_096_000),
    },
    ("alexnet-torchvision", 224): {
        "features.0": ((64, 55, 55), 23_296, 70_276_800),
        "features.2": ((64, 27, 27), 0, 0),
        "features.3": ((192, 27, 27), 307_392, 223_948_800),
        "features.5": ((192, 13, 13), 0, 0),
        "features.6": ((384, 13, 13), 663_936, 112_140_288),
        "features.8": ((256, 13, 13), 884_992, 149_520_384),
        "features.10": ((256, 13, 13), 590_080, 99_680_256),
        "features.12": ((256, 6, 6), 0, 0),
        "classifier.1": ((4096,), 37_752_832, 37_748_736),
        "classifier.4": ((4096,), 16_781_312, 16_777_216),
        "classifier.6": ((1000,), 4_097_000, 4_096_000),
    },
}
for other in (("alexnet-2012", 224), ("net-145", 224)):
    LAYERS[other] = LAYERS["alexnet-2012", 227]
TOTALS = {
    "alexnet-2012": (60_965_224, 724_406_816),
    "net-145": (60_965_224, 724_406_816),
    "alexnet-torchvision": (61_100_840, 714_188_480),
}


@pytest.mark.parametrize("name, size", LAYERS)
def test_shapes_parameters_and_products(name, size):
    rows = summary(alexnet.create(name), (3, size, size))
    found = {row.name: (row.output_shape, row.parameters, row.macs) for row in rows}
    for layer, expected in LAYERS[name, size].items():
        assert found[layer] == expected, layer
    assert (sum(row.parameters for row in rows), sum(row.macs for row in rows)) == TOTALS[name]


@pytest.mark.parametrize("name", MODELS)
def test_the_readme_has_these_figures(name):
    rows = summary(alexnet.create(name), (3, 32, 32) if name.startswith("cifar") else (3, 224, 224))
    line = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| `{name}` |"))
    parameters, macs = (f"{sum(getattr(row, column) for row in rows):,}" for column in ("parameters", "macs"))
    assert [cell.strip() for cell in line.split("|")[-3:-1]] == [parameters, macs]


def test_the_state_of_alexnet_torchvision_has_torchvisions_names():
    layers = [f"features.{i}" for i in (0, 3, 6, 8, 10)] + [f"classifier.{i}" for i in (1, 4, 6)]
    assert list(alexnet.create("alexnet-torchvision").state_dict()) == [f"{n}.{k}" for n in layers for k in ("weight", "bias")]


def test_alexnet_2012_pads_224_to_227():
    """In the paper's code conv1's last window extends beyond the image: the same as three rows and columns of zeros."""
    net = alexnet.create("alexnet-2012", 10).eval()
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    with no_grad():
        padded = net(Tensor(np.pad(image, ((0, 0), (0, 0), (0, 3), (0, 3)))))
        np.testing.assert_array_equal(net(Tensor(image)).data, padded.data)


@pytest.mark.parametrize("model", ["alexnet-2012", "net-145"])
def test_the_2012_networks_start_as_in_the_paper(model):
    """Krizhevsky 2012, section 5: N(0, .01²), and biases of 1 in conv2, conv4, conv5 and the hidden fully connected layers.

    The paper's code, which is net-145, has N(0, .03) in conv3, conv4 and conv5.
    """
    random.manual_seed(0)
    state = alexnet.create(model).state_dict()
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        spread = 5 / math.sqrt(2 * weight.size)
        std = 0.03 if model == "net-145" and name in ("conv3", "conv4", "conv5") else 0.01
        assert abs(weight.std() / std - 1) < spread and abs(weight.mean()) < std * spread * 1.5
        assert (bias == (1 if name in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0)).all(), name


@pytest.mark.parametrize("name", ["cifar-bn", "cifar-lrn", "alexnet-torchvision"])
def test_the_other_networks_start_from_he_and_small_linear_weights(name):
    random.manual_seed(0)
    for key, array in alexnet.create(name).state_dict().items():
        if key.endswith("weight") and array.ndim == 4:
            assert array.std() == pytest.approx(math.sqrt(2 / math.prod(array.shape[1:])), rel=0.03), key
        if key.endswith("weight") and array.ndim == 2:
            assert array.std() == pytest.approx(0.01, rel=0.03), key
        if key.endswith("bias"):
            assert not array.any(), key


@pytest.mark.parametrize("name", NETWORKS)
def test_the_smallest_image_size_is_right(name):
    """LEAST_IMAGE_SIZE is enough. One pixel less is refused, and the layers could not compute it."""
    least = LEAST_IMAGE_SIZE[name]
    net = alexnet.create(name, 3, in_channels=1, image_size=least).eval()
    with no_grad():
        assert net(Tensor(np.zeros((1, 1, least, least), np.float32))).shape == (1, 3)
        with pytest.raises(ValueError, match="window [23] is larger"):
            net(Tensor(np.zeros((1, 1, least - 1, least - 1), np.float32)))
    message = f"{name} takes images of at least {least} x {least}; got {least - 1} x {least - 1}"
    with pytest.raises(ValueError, match=message):
        alexnet.create(name, image_size=least - 1)


def test_every_network_has_image_sizes():
    assert IMAGE_SIZE.keys() == LEAST_IMAGE_SIZE.keys() == set(NETWORKS)


def test_alexnet_torchvision_takes_images_of_many_sizes():
    net = alexnet.create("alexnet-torchvision", 5).eval()
    with no_grad():
        for height, width in ((100, 180), (300, 227)):
            assert net(Tensor(np.zeros((2, 3, height, width), np.float32))).shape == (2, 5)


@pytest.mark.parametrize("model", ["alexnet-2012", "net-145"])
@pytest.mark.parametrize("tower", [0, 1])
def test_the_towers_meet_first_in_conv3(model, tower):
    """Without the conv1 maps of one tower, pool2 of the other does not change, and all of conv3 does."""
    net = alexnet.create(model, 10, image_size=64).eval()
    image = Tensor(np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32))

    def outputs():
        kept = {}
        handles = [
            getattr(net, name).register_forward_hook(lambda module, args, y, name=name: kept.update({name: y.data.copy()}))
            for name in ("pool2", "conv3")
        ]
        with no_grad():
            net(image)
        for handle in handles:
            handle.remove()
        return kept

    before = outputs()
    half = slice(48 * tower, 48 * tower + 48)
    net.conv1.weight.data[half] = 0
    after = outputs()
    own, other = (slice(128 * t, 128 * t + 128) for t in (tower, 1 - tower))
    assert (before["pool2"][:, own] != after["pool2"][:, own]).any()
    np.testing.assert_array_equal(before["pool2"][:, other], after["pool2"][:, other])
    assert (before["conv3"] != after["conv3"]).mean() > 0.9


def test_the_layers_of_net_145_are_in_its_order():
    """As in layers-145.cfg: ReLU after the pooling of conv1 and conv5, but before the two normalisations of conv2."""
    names = list(dict(alexnet.create("net-145", 10, image_size=64).named_children()))
    assert " ".join(names) == (
        "conv1 lrn1 pool1 relu1 conv2 relu2 lrn2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 pool5 relu5 flatten "
        "fc6 relu6 drop6 fc7 relu7 drop7 fc8"
    )


def test_normalisation_within_a_map_matches_its_definition():
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 7))
    expected = np.empty_like(x)
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    for n, c, h, w in np.ndindex(x.shape):
        squares = sum(padded[n, c, h + i, w + j] ** 2 for i, j in np.ndindex(5, 5))
        expected[n, c, h, w] = x[n, c, h, w] / (1 + 0.7 / 25 * squares) ** 0.75
    layer = SameMapNorm(5, alpha=0.7, beta=0.75)
    np.testing.assert_allclose(layer(Tensor(x)).data, expected, rtol=1e-12)
    gradcheck(layer, [Tensor(x, requires_grad=True)])


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no model 'alexnet'; there are cifar-bn, cifar-lrn, alexnet-2012, net-145, "):
        alexnet.create("alexnet")


@pytest.mark.parametrize("settings", [{"num_classes": 0}, {"in_channels": 0}, {"image_size": "64"}, {"image_size": 32.0}])
def test_invalid_sizes_are_refused(settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"{name} is an integer of at least 1; got {value!r}"):
        alexnet.create("cifar-bn", **settings)
