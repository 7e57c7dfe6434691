"""Modules: order, names, state, modes; and the layers' own settings."""

import numpy as np
import pytest

import minidl.functional as F
from minidl import Tensor, nn, random
from minidl.nn import format_summary, summary
from minidl.optim import SGD


class Net(nn.Module):
    def __init__(self):
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.drop = nn.Dropout()
        self.classifier = nn.Linear(4, 2)

    def forward(self, x):
        return self.classifier(self.drop(F.flatten(self.features(x))))


NAMES = ["features.0.weight", "features.0.bias", "features.1.weight", "features.1.bias", "classifier.weight", "classifier.bias"]


def test_parameters_come_in_order_of_definition():
    assert [name for name, _ in Net().named_parameters()] == NAMES
    assert [p.shape for p in Net().parameters()] == [(4, 3, 3, 3), (4,), (4,), (4,), (2, 4), (2,)]


def test_a_shared_parameter_counts_once():
    class Tied(nn.Module):
        def __init__(self):
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight

    assert [name for name, _ in Tied().named_parameters()] == ["a.weight", "a.bias", "b.bias"]


def test_the_state_has_pytorchs_names():
    state = Net().state_dict()
    running = [f"features.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")]
    assert list(state) == NAMES[:4] + running + NAMES[4:]


def test_a_state_is_loaded_in_place():
    one, two = Net(), Net()
    one(Tensor(np.random.default_rng(0).standard_normal((4, 3, 4, 4)).astype(np.float32)))
    before = [p.data for p in two.parameters()]
    two.load_state_dict(one.state_dict())
    assert all(p.data is array for p, array in zip(two.parameters(), before, strict=True))
    for name, array in one.state_dict().items():
        np.testing.assert_array_equal(two.state_dict()[name], array)


def test_a_state_that_does_not_fit_is_refused_whole():
    net = Net()
    state = {name: array + 1 for name, array in net.state_dict().items()}
    state["extra"] = state.pop("classifier.bias")
    state["classifier.weight"] = np.zeros((2, 5))
    before = {name: array.copy() for name, array in net.state_dict().items()}
    with pytest.raises(ValueError) as error:
        net.load_state_dict(state)
    for part in ("missing classifier.bias", "unexpected extra", "classifier.weight has shape (2, 5), not (2, 4)"):
        assert part in str(error.value)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_train_and_eval_reach_every_module():
    net = Net()
    net.eval()
    x = Tensor(np.ones((2, 3, 4, 4), np.float32))
    np.testing.assert_array_equal(net(x).data, net(x).data)
    assert not any(module.training for _, module in net.named_modules())
    assert net.features[1].num_batches_tracked == 0
    assert net.train() is net
    assert all(module.training for _, module in net.named_modules())


def test_to_changes_parameters_and_buffers():
    net = Net().to(dtype=np.float64)
    kinds = {name: array.dtype for name, array in net.state_dict().items()}
    assert kinds.pop("features.1.num_batches_tracked") == np.int64
    assert set(kinds.values()) == {np.dtype(np.float64)}
    assert net.to("numpy") is net
    with pytest.raises(ValueError, match='"numpy", "cupy" or "cupy:0"; got \'gpu\''):
        net.to("gpu")


def test_to_after_packing_is_refused():
    net = Net()
    SGD(net.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="features.0.weight is packed"):
        net.to(dtype=np.float64)


def test_sequential_by_place_and_by_name():
    layers = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    by_place, by_name = nn.Sequential(*layers), nn.Sequential({"a": layers[0], "b": layers[1], "c": layers[2]})
    assert [name for name, _ in by_name.named_parameters()] == ["a.weight", "a.bias", "c.weight", "c.bias"]
    assert len(by_place) == 3 and by_place[2] is layers[2] and by_name.c is layers[2]
    x = Tensor(np.ones((4, 2), np.float32))
    np.testing.assert_array_equal(by_place(x).data, by_name(x).data)
    with pytest.raises(TypeError, match="takes Modules; 1 is a function"):
        nn.Sequential(layers[0], F.relu)


def test_forward_hooks_see_and_leave():
    seen = []
    layer = nn.ReLU()
    remove = layer.register_forward_hook(lambda module, x, y: seen.append((module, x.shape, y.shape)))
    layer(Tensor(np.ones((2, 3))))
    remove()
    layer(Tensor(np.ones((2, 3))))
    assert seen == [(layer, (2, 3), (2, 3))]


def test_he_initialisation():
    random.manual_seed(0)
    conv, linear = nn.Conv2d(64, 64, 5, groups=2), nn.Linear(1000, 500)
    assert abs(conv.weight.data.std() / np.sqrt(2 / (32 * 25)) - 1) < 0.02
    assert abs(linear.weight.data.std() / np.sqrt(2 / 1000) - 1) < 0.02
    assert not conv.bias.data.any() and not linear.bias.data.any()
    random.manual_seed(0)
    nn.init.normal_(linear.weight, 1.0, 0.01)
    nn.init.constant_(linear.bias, 1.0)
    assert abs(linear.weight.data.mean() - 1) < 1e-3 and abs(linear.weight.data.std() - 0.01) < 1e-3
    assert (linear.bias.data == 1).all()


@pytest.mark.parametrize(
    "layer, output",
    [
        (lambda: nn.Conv2d(4, 6, (3, 5), (1, 2), (1, 2), groups=2, bias=False), (2, 6, 8, 4)),
        (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 4, 5, 5)),
        (lambda: nn.MaxPool2d((2, 3)), (2, 4, 4, 2)),
        (lambda: nn.AvgPool2d(3, 2, 1, True), (2, 4, 5, 5)),
        (lambda: nn.AdaptiveAvgPool2d((3, None)), (2, 4, 3, 8)),
        (lambda: nn.LocalResponseNorm(5), (2, 4, 8, 8)),
        (lambda: nn.BatchNorm2d(4), (2, 4, 8, 8)),
        (lambda: nn.Tanh(), (2, 4, 8, 8)),
        (lambda: nn.Sigmoid(), (2, 4, 8, 8)),
        (lambda: nn.Flatten(), (2, 256)),
    ],
)
def test_layers_pass_their_settings_on(layer, output):
    assert layer()(Tensor(np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32))).shape == output


def test_settings_reach_the_function_as_they_are():
    x = Tensor(np.random.default_rng(0).standard_normal((2, 4, 8, 8)))
    pairs = [
        (nn.AvgPool2d(3, 2, 1, True, False)(x), F.avg_pool2d(x, 3, 2, 1, True, False)),
        (nn.AvgPool2d(2, divisor_override=3)(x), F.avg_pool2d(x, 2, divisor_override=3)),
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True)(x), F.max_pool2d(x, 3, 2, 1, True)),
        (nn.LocalResponseNorm(3, 0.1, 0.6, 2.0, "paper")(x), F.local_response_norm(x, 3, 0.1, 0.6, 2.0, "paper")),
    ]
    for layer, function in pairs:
        np.testing.assert_array_equal(layer.data, function.data)


def test_layers_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="groups=2 does not divide 3 input and 4 output channels"):
        nn.Conv2d(3, 4, 3, groups=2)
    with pytest.raises(ValueError, match=r"BatchNorm2d takes x of shape \(N, C, H, W\); got \(2, 3\)"):
        nn.BatchNorm2d(3)(Tensor(np.ones((2, 3))))


def test_summary_counts_shapes_parameters_and_products():
    net = Net()
    net.drop.training = False
    rows = summary(net, (3, 4, 4))
    assert [(row.name, row.output_shape, row.parameters, row.macs) for row in rows] == [
        ("features.0", (4, 2, 2), 112, 4 * 2 * 2 * 27),
        ("features.1", (4, 2, 2), 8, 0),
        ("features.2", (4, 2, 2), 0, 0),
        ("features.3", (4, 1, 1), 0, 0),
        ("drop", (4,), 0, 0),
        ("classifier", (2,), 10, 8),
    ]
    assert net.training and not net.drop.training, "the modes are as before"
    assert net.features[1].num_batches_tracked == 0
    last = format_summary(rows).splitlines()[-1].split()
    assert last == ["total", "130", "440"]
