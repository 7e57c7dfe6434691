"""Statistics of each layer: compared with a plain computation in float64, on any number of devices."""

import contextlib

import msgspec
import numpy as np
import pytest

from alexnet import statistics
from alexnet.statistics import LayerStatistics, Sample
from minidl import Tensor, nn, no_grad, random
from minidl import functional as F
from minidl.backend import to_device, to_numpy
from minidl.optim import SGD
from minidl.parallel import ALONE, DataParallel, launch
from minidl.partition import shard

IMAGES = np.random.default_rng(0).standard_normal((5, 2, 6, 6)).astype(np.float32)
LABELS = np.arange(5) % 3


class Scaled(nn.Module):
    """A layer with a parameter and with another layer inside."""

    def __init__(self):
        self.weight = nn.Parameter(np.full(3, 1.5, np.float32))
        self.inner = nn.ReLU()

    def forward(self, x):
        return self.inner(x * self.weight)


def network(device="numpy"):
    random.manual_seed(0)
    layers = {
        "conv": nn.Conv2d(2, 4, 3),
        "bn": nn.BatchNorm2d(4),
        "relu": nn.ReLU(),
        "flatten": nn.Flatten(),
        "drop": nn.Dropout(),
        "fc": nn.Linear(64, 3, bias=False),
        "scaled": Scaled(),
    }
    return nn.Sequential(layers).to(device)


def optimizer_of(net, **settings):
    """SGD with another rate and decay for biases."""
    groups = [
        {"params": [p], **({"lr": 0.3, "weight_decay": 0.0} if name.endswith("bias") else {})}
        for name, p in net.named_parameters()
    ]
    return SGD(groups, 0.1, **settings)


def step(net, optimizer, parallel, images, labels, total, number, first=0):
    with random.context(0, number, first):
        loss = F.cross_entropy(net(Tensor(images)), labels, reduction="sum") / total
    optimizer.zero_grad()
    loss.backward()
    parallel.synchronize()
    optimizer.step()


def run(communicators, stop, settings, device, steps, every=1, images=5):
    """The samples of some steps, and the network; every: None measures nothing."""
    net, rows = network(device), []
    optimizer = optimizer_of(net, **settings)
    parallel = DataParallel(net, optimizer, communicators)
    watched = every and LayerStatistics(net, optimizer, communicators, every, rows.append)
    mine = shard(images, communicators.rank, communicators.size)
    own_images, own_labels = to_device(IMAGES[mine], device), to_device(LABELS[mine], device)
    for number in range(1, steps + 1):
        with watched.watch(1, number) if watched else contextlib.nullcontext():
            step(net, optimizer, parallel, own_images, own_labels, images, number, mine.start)
    if watched:
        watched.flush()
    return rows, net


def samples(communicators, *arguments):
    rows, _ = run(communicators, *arguments)
    assert not rows or communicators.rank == 0
    return rows


SETTINGS = [
    {},
    {"weight_decay": 0.01},
    {"momentum": 0.9, "weight_decay": 0.01},
    {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_measured_values_are_right(device, settings):
    """Measured in the third step, because the first has no velocity; compared with a computation in float64."""
    outputs, number = {}, 3
    rows, after = run(ALONE, None, settings, device, number)
    _, before = run(ALONE, None, settings, device, number - 1)
    gradients = {name: to_numpy(p.grad).astype(np.float64) for name, p in after.named_parameters()}
    for name, module in before.named_modules():
        module.register_forward_hook(
            lambda module, args, y, name=name: outputs.update({name: to_numpy(y.data).astype("float64")})
        )
    with random.context(0, number, 0), no_grad():
        before(Tensor(to_device(IMAGES, device)))
    old, new = ({name: to_numpy(p.data).astype("float64") for name, p in net.named_parameters()} for net in (before, after))
    row = rows[-1]
    assert (row["epoch"], row["step"], row["lr"]) == (1, 3, 0.1)
    assert list(row["layers"]) == ["conv", "bn", "relu", "flatten", "drop", "fc", "scaled", "scaled.inner"]
    for layer, measured in row["layers"].items():
        expected = {"activation": outputs[layer].mean(), "zeros": (outputs[layer] == 0).mean()}
        names = [name for name in old if name.rpartition(".")[0] == layer]
        for name in names:
            what = name.rpartition(".")[2]
            expected[what], expected[f"{what}_update"] = abs(new[name]).mean(), abs(new[name] - old[name]).mean()
        if names:
            expected["gradient"] = np.sqrt(sum((gradients[name] ** 2).sum() for name in names))
        assert measured == pytest.approx(expected, rel=2e-5, abs=1e-7), layer


@pytest.mark.parametrize("images", [5, 1])
def test_devices_do_not_change_the_statistics(images):
    """If there is one image, the second device gets none."""
    alone, both = (launch(size, samples, SETTINGS[2], "numpy", 4, 2, images) for size in (1, 2))
    assert [row["step"] for row in alone] == [row["step"] for row in both] == [1, 3]
    for one, other in zip(alone, both, strict=True):
        for layer, measured in one["layers"].items():
            assert other["layers"][layer] == pytest.approx(measured, rel=1e-4, abs=1e-6), layer


def test_large_arrays_may_be_measured_in_pieces(monkeypatch):
    whole = samples(ALONE, None, SETTINGS[3], "numpy", 2)
    monkeypatch.setattr(statistics, "PIECE", 7)
    pieces = samples(ALONE, None, SETTINGS[3], "numpy", 2)
    for one, other in zip(whole, pieces, strict=True):
        for layer, measured in one["layers"].items():
            assert other["layers"][layer] == pytest.approx(measured, rel=1e-4, abs=1e-7), layer


def test_measuring_does_not_change_the_training():
    rows, watched = run(ALONE, None, SETTINGS[2], "numpy", 7, every=3)
    _, alone = run(ALONE, None, SETTINGS[2], "numpy", 7, every=None)
    assert [row["step"] for row in rows] == [1, 4, 7]
    for one, other in zip(watched.parameters(), alone.parameters(), strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def test_a_step_that_fails_leaves_no_hooks():
    net, rows = network(), []
    watched = LayerStatistics(net, optimizer_of(net), ALONE, 1, rows.append)
    with pytest.raises(ZeroDivisionError), watched.watch(1, 1):
        raise ZeroDivisionError
    watched.flush()
    assert not rows and not any(vars(module).get("_forward_hooks") for module in net.modules())


def test_frozen_parameters_have_no_update():
    net, rows = network(), []
    frozen = net.conv.weight.data.copy()
    net.conv.weight.requires_grad = False
    optimizer = SGD([p for p in net.parameters() if p.requires_grad], 0.1)
    with LayerStatistics(net, optimizer, ALONE, 1, rows.append).watch(1, 1):
        step(net, optimizer, DataParallel(net, optimizer, ALONE), IMAGES, LABELS, 5, 1)
    conv = rows[0]["layers"]["conv"]
    assert conv["weight"] == pytest.approx(abs(frozen).mean(), rel=1e-5)
    assert conv["weight_update"] == 0 and conv["bias_update"] > 0


def test_values_that_are_not_finite_are_left_out():
    net, rows = network(), []
    net.fc.weight.data[0, 0] = np.inf
    net.bn.weight.data[0] = np.nan
    optimizer = optimizer_of(net)
    parallel = DataParallel(net, optimizer, ALONE)
    with np.errstate(invalid="ignore"), LayerStatistics(net, optimizer, ALONE, 1, rows.append).watch(2, 1):
        step(net, optimizer, parallel, IMAGES, LABELS, 5, 1)
    layers = rows[0]["layers"]
    assert "weight" not in layers["fc"] and "activation" not in layers["bn"]
    assert "zeros" in layers["bn"] and "activation" in layers["conv"]


def test_a_line_is_read_as_it_was_written():
    rows = samples(ALONE, None, SETTINGS[1], "numpy", 1)
    assert msgspec.to_builtins(msgspec.json.decode(msgspec.json.encode(rows[0]), type=Sample)) == rows[0]


@pytest.mark.parametrize(
    "line",
    [
        '{"epoch": 1, "step": 1, "lr": 0.1}',
        '{"epoch": 1, "step": 1, "lr": 0.1, "layers": {}, "more": 1}',
        '{"epoch": 1, "step": 1, "lr": 0.1, "layers": {"a": {"more": 1}}}',
        '{"epoch": 0, "step": 1, "lr": 0.1, "layers": {}}',
        '{"epoch": 1, "step": 1.5, "lr": 0.1, "layers": {}}',
        '{"epoch": 1, "step": 1, "lr": -1, "layers": {}}',
        '{"epoch": 1, "step": 1, "lr": 0.1, "layers": {"a": {"zeros": 1.5}}}',
        '{"epoch": 1, "step": 1, "lr": 0.1, "layers": {"a": {"weight": -1}}}',
        '{"epoch": 1, "step": 1, "lr": 0.1, "layers": {"a": {"weight": NaN}}}',
        '{"epoch": 1, "step": 1, "lr": 0.1, "layers": {"a": {"weight": "1"}}}',
    ],
)
def test_an_invalid_line_is_refused(line):
    with pytest.raises((msgspec.DecodeError, msgspec.ValidationError)):
        msgspec.json.decode(line, type=Sample)
