"""Modules: order, names, state and modes; and the settings of the layers."""

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


def test_a_shared_parameter_is_listed_once():
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


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing():
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


@pytest.mark.parametrize(
    "bad, problem",
    [
        (np.array(["a", "b"]), "classifier.bias is <U1, which does not convert to float32"),
        (np.ones(2, np.complex64), "classifier.bias is complex64, which does not convert to float32"),
        ([None, None], "classifier.bias is object, which does not convert to float32"),
        (np.ones(()), r"classifier.bias has shape \(\), not \(2,\)"),
    ],
)
def test_a_state_with_a_bad_last_entry_changes_nothing(bad, problem):
    net = Net()
    before = {name: array.copy() for name, array in net.state_dict().items()}
    with pytest.raises(ValueError, match=problem):
        net.load_state_dict({name: array + 1 for name, array in before.items()} | {"classifier.bias": bad})
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_state_may_hold_tensors_and_anything_that_converts_to_arrays():
    layer = nn.BatchNorm2d(2)
    state = layer.state_dict() | {
        "weight": Tensor(np.array([2.0, 3.0])),
        "bias": [4, 5],
        "running_mean": np.array([True, False]),
        "num_batches_tracked": np.int32(6),
    }
    assert layer.load_state_dict(state) == ([], [])
    loaded = {name: (array.dtype, array.tolist()) for name, array in layer.state_dict().items()}
    f, i = np.dtype(np.float32), np.dtype(np.int64)
    assert loaded["weight"] == (f, [2, 3]) and loaded["bias"] == (f, [4, 5])
    assert loaded["running_mean"] == (f, [1, 0]) and loaded["num_batches_tracked"] == (i, 6)
    with pytest.raises(ValueError, match="num_batches_tracked is float32, which does not convert to int64"):
        layer.load_state_dict(state | {"num_batches_tracked": 6.0})
    with pytest.raises(TypeError, match="takes names and arrays, such as state_dict.. returns; got a str"):
        layer.load_state_dict("net.safetensors")


def test_without_strict_the_matching_entries_are_loaded():
    net = Net()
    keys = net.load_state_dict({"classifier.bias": np.ones(2), "extra": np.ones(3)}, strict=False)
    assert keys.unexpected_keys == ["extra"] and keys.missing_keys == [name for name in net.state_dict() if name != NAMES[-1]]
    np.testing.assert_array_equal(net.classifier.bias.data, 1)
    with pytest.raises(ValueError, match=r"classifier.bias has shape \(3,\)"):
        net.load_state_dict({"classifier.bias": np.ones(3)}, strict=False)


def test_a_state_holds_the_arrays_themselves():
    net = Net()
    state = net.state_dict()
    net.classifier.bias.data[...] = 3
    assert (state["classifier.bias"] == 3).all()
    SGD(net.parameters(), lr=0.1)
    net.classifier.bias.data[...] = 4
    assert (state["classifier.bias"] == 3).all() and (net.state_dict()["classifier.bias"] == 4).all()


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
    with pytest.raises(TypeError, match="a network has a floating-point dtype; got int64"):
        net.to(dtype=np.int64)
    with pytest.raises(ValueError, match='"numpy", "cupy" or "cupy:0"; got \'gpu\''):
        net.to("gpu")


def test_to_after_packing_is_refused():
    net = Net()
    SGD(net.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="features.0.weight is packed"):
        net.to(dtype=np.float64)


def test_sequential_takes_layers_by_position_or_by_name():
    layers = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    by_place, by_name = nn.Sequential(*layers), nn.Sequential({"a": layers[0], "b": layers[1], "c": layers[2]})
    assert [name for name, _ in by_name.named_parameters()] == ["a.weight", "a.bias", "c.weight", "c.bias"]
    assert len(by_place) == 3 and by_place[2] is layers[2] and by_name.c is layers[2]
    x = Tensor(np.ones((4, 2), np.float32))
    np.testing.assert_array_equal(by_place(x).data, by_name(x).data)
    with pytest.raises(TypeError, match="takes Modules; 1 is a function"):
        nn.Sequential(layers[0], F.relu)


def test_a_sequential_can_be_indexed_sliced_and_extended():
    a, b, c, d = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1), nn.Tanh()
    net = nn.Sequential(a, b, c)
    assert net[-1] is c and list(net[1:]) == [b, c]
    assert [name for name, _ in net[1:].named_parameters()] == ["2.weight", "2.bias"], "a part keeps its names"
    assert net.append(d) is net and list(net) == [a, b, c, d] and net[3] is d
    assert list(net[2:].append(b)) == [c, d, b], "the name 2 is taken"
    net[-1] = b
    assert list(net) == [a, b, c, b]
    named = nn.Sequential({"first": a, "second": c})
    assert isinstance(named[:1], nn.Sequential) and named[:1].first is a
    assert list(named.append(d).named_children()) == [("first", a), ("second", c), ("2", d)]
    with pytest.raises(IndexError, match="this Sequential has 3 modules; there is none at index 3"):
        named[3]
    for name in ("forward", "a.b", ""):
        with pytest.raises(ValueError, match=f"a module of Sequential cannot have the name '{name}'"):
            nn.Sequential({name: a})


def test_a_module_list_registers_its_modules():
    class Tower(nn.Module):
        def __init__(self):
            self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    tower = Tower()
    assert [name for name, _ in tower.named_parameters()] == [f"layers.{i}.{part}" for i in (0, 1) for part in ("weight", "bias")]
    assert tower(Tensor(np.ones((1, 2), np.float32))).shape == (1, 2)
    a, b, c, d = (nn.Tanh() for _ in range(4))
    modules = nn.ModuleList([a]).append(c).extend([d])
    modules.insert(1, b)
    assert list(modules) == [a, b, c, d] and len(modules) == 4 and modules[-1] is d
    assert [name for name, _ in modules.named_children()] == ["0", "1", "2", "3"]
    assert isinstance(modules[1:3], nn.ModuleList) and [name for name, _ in modules[1:3].named_children()] == ["0", "1"]
    modules[0] = d
    assert modules[0] is d and len(modules) == 4
    with pytest.raises(TypeError, match="a ModuleList has no forward; call the modules in it"):
        modules(1)
    with pytest.raises(TypeError, match="ModuleList takes Modules; 4 is a int"):
        modules.append(3)


@pytest.mark.parametrize(
    "hidden", [[nn.ReLU()], (nn.ReLU(), 1), {"a": nn.ReLU()}, [nn.Parameter(np.ones(2))], [[nn.ReLU()]], {"a": [nn.ReLU()]}]
)
def test_modules_hidden_in_a_list_are_refused(hidden):
    net = nn.Module()
    with pytest.raises(
        TypeError, match=f"Module.parts is a {type(hidden).__name__} of Modules .* nn.ModuleList or nn.Sequential"
    ):
        net.parts = hidden
    net.parts = [1, "a", np.ones(2)]


def test_modules_children_and_buffers_are_listed():
    net = Net()
    assert [type(module).__name__ for module in net.modules()] == (
        "Net Sequential Conv2d BatchNorm2d ReLU MaxPool2d Dropout Linear".split()
    )
    assert [name for name, _ in net.named_children()] == ["features", "drop", "classifier"]
    assert list(net.children()) == [net.features, net.drop, net.classifier]
    running = [f"features.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")]
    assert [name for name, _ in net.named_buffers()] == running
    assert next(iter(net.buffers())) is net.features[1].running_mean
    shared = nn.Sequential(net.drop, net.drop)
    assert [name for name, _ in shared.named_modules()] == ["", "0"] and len(shared) == 2


def test_a_buffer_is_an_array_or_none():
    net = nn.Module()
    net.register_buffer("absent", None)
    net.register_buffer("mean", np.ones(2))
    assert list(net.state_dict()) == ["mean"] and net.to(dtype=np.float32).mean.dtype == np.float32
    with pytest.raises(TypeError, match="buffer std is a Tensor; a buffer is an array, such as its .data"):
        net.register_buffer("std", Tensor(np.ones(2)))


def test_forward_takes_any_arguments():
    class Mixed(nn.Module):
        def forward(self, x, y, *, scale=1.0, shift):
            return x * scale + y + shift

    x, y = Tensor(np.ones(2)), Tensor(np.full(2, 3.0))
    out = Mixed()(x, y=y, shift=0.5, scale=2.0)
    np.testing.assert_array_equal(out.data, 5.5)
    with pytest.raises(TypeError, match="Module defines no forward"):
        nn.Module()(x)


def test_the_creator_of_an_output_belongs_to_the_innermost_module():
    class Outer(nn.Module):
        def __init__(self):
            self.inner = nn.Tanh()

        def forward(self, x, extra=None):
            return self.inner(x) if extra is None else extra

    net, x = Outer(), Tensor(np.ones(2), requires_grad=True)
    assert net(x).creator.module is net.inner
    made_elsewhere = x * 2
    net(x, extra=made_elsewhere), nn.Identity()(made_elsewhere)
    assert made_elsewhere.creator.module is None


def test_forward_hooks_see_and_replace_outputs_and_can_be_removed():
    seen = []
    layer = nn.Tanh()
    handle = layer.register_forward_hook(lambda module, args, output: seen.append((module, args, output)))
    x = Tensor(np.ones((2, 3)))
    y = layer(x)
    assert seen[0][0] is layer and seen[0][1] == (x,) and seen[0][2] is y
    doubling = layer.register_forward_hook(lambda module, args, output: output * 2)
    again = layer.register_forward_hook(lambda module, args, output: seen.append(output))
    np.testing.assert_array_equal(layer(x).data, 2 * y.data)
    np.testing.assert_array_equal(seen[-1].data, 2 * y.data, "later hooks get what earlier ones gave")
    for registered in (handle, doubling, again, again):
        registered.remove()
    np.testing.assert_array_equal(layer(x).data, y.data)
    assert len(seen) == 3


def test_requires_grad_and_zero_grad_reach_all_parameters():
    net = Net()
    assert net.features.requires_grad_(False) is net.features
    net(Tensor(np.random.default_rng(0).standard_normal((4, 3, 4, 4)).astype(np.float32))).sum().backward()
    assert [p.grad is not None for p in net.parameters()] == [False] * 4 + [True] * 2
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_()
    assert all(p.requires_grad for p in net.parameters())


def test_repr_shows_every_layer():
    assert repr(Net()) == (
        "Net(\n"
        "  (features): Sequential(\n"
        "    (0): Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))\n"
        "    (1): BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)\n"
        "    (2): ReLU()\n"
        "    (3): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)\n"
        "  )\n"
        "  (drop): Dropout(p=0.5, inplace=False)\n"
        "  (classifier): Linear(in_features=4, out_features=2, bias=True)\n"
        ")"
    )
    assert repr(nn.LocalResponseNorm(3, convention="paper")) == (
        "LocalResponseNorm(3, alpha=0.0001, beta=0.75, k=1.0, convention=paper)"
    )
    assert repr(nn.ModuleList([nn.Sequential(), nn.ReLU()])) == "ModuleList(\n  (0): Sequential()\n  (1): ReLU()\n)"


def test_an_alexnet_written_for_pytorch_runs():
    """It has features and classifier as torchvision's, with narrower layers; only the imports differ."""

    class AlexNet(nn.Module):
        def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(3, 8, kernel_size=11, stride=4, padding=2),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(kernel_size=3, stride=2),
                nn.Conv2d(8, 12, kernel_size=5, padding=2),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(kernel_size=3, stride=2),
                nn.Conv2d(12, 8, kernel_size=3, padding=1),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(kernel_size=3, stride=2),
            )
            self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
            self.classifier = nn.Sequential(
                nn.Dropout(p=dropout),
                nn.Linear(8 * 6 * 6, 16),
                nn.ReLU(inplace=True),
                nn.Dropout(p=dropout),
                nn.Linear(16, num_classes),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.features(x)
            x = self.avgpool(x)
            x = F.flatten(x, 1)
            return self.classifier(x)

    net = AlexNet(num_classes=7)
    logits = net(Tensor(np.random.default_rng(0).standard_normal((2, 3, 95, 95)).astype(np.float32)))
    assert logits.shape == (2, 7)
    nn.CrossEntropyLoss()(logits, np.array([3, 6])).backward()
    assert all(p.grad.any() for p in net.parameters())
    net.classifier[-1] = nn.Linear(16, 3)
    assert net.eval()(Tensor(np.ones((1, 3, 70, 80), np.float32))).shape == (1, 3)


def test_the_initial_weights_have_he_s_deviation():
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
        (lambda: nn.Flatten(1, 2), (2, 32, 8)),
        (lambda: nn.Conv2d(4, 6, 3, padding="same"), (2, 6, 8, 8)),
        (lambda: nn.Conv2d(4, 6, 3, padding="valid"), (2, 6, 6, 6)),
    ],
)
def test_layers_give_the_expected_output_shapes(layer, output):
    assert layer()(Tensor(np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32))).shape == output


def test_layers_pass_their_settings_to_the_function():
    x = Tensor(np.random.default_rng(0).standard_normal((2, 4, 8, 8)))
    pairs = [
        (nn.AvgPool2d(3, 2, 1, True, False)(x), F.avg_pool2d(x, 3, 2, 1, True, False)),
        (nn.AvgPool2d(2, divisor_override=3)(x), F.avg_pool2d(x, 2, divisor_override=3)),
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True)(x), F.max_pool2d(x, 3, 2, 1, ceil_mode=True)),
        (nn.LocalResponseNorm(3, 0.1, 0.6, 2.0, "paper")(x), F.local_response_norm(x, 3, 0.1, 0.6, 2.0, "paper")),
    ]
    logits, labels = Tensor(np.random.default_rng(0).standard_normal((3, 5))), np.array([4, 0, 1])
    loss = nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none")
    pairs.append((loss(logits, labels), F.cross_entropy(logits, labels, 0.1, "none")))
    pairs.append((nn.MSELoss(reduction="sum")(x, x * 2), F.mse_loss(x, x * 2, "sum")))
    for layer, function in pairs:
        np.testing.assert_array_equal(layer.data, function.data)


def test_batch_norm_1d_takes_two_or_three_axes():
    rng = np.random.default_rng(0)
    for shape in [(5, 3), (5, 3, 4)]:
        x = rng.standard_normal(shape).astype(np.float32)
        y = nn.BatchNorm1d(3)(Tensor(x)).data
        axes = (0, *range(2, x.ndim))
        np.testing.assert_allclose(y.mean(axis=axes), 0, atol=1e-6)
        np.testing.assert_allclose(y.std(axis=axes), 1, atol=1e-4)
    with pytest.raises(ValueError, match=r"BatchNorm1d takes x of shape \(N, C\) or \(N, C, L\); got \(2, 3, 4, 4\)"):
        nn.BatchNorm1d(3)(Tensor(np.ones((2, 3, 4, 4))))


def test_batch_norm_without_a_momentum_averages_all_batches():
    layer, rng = nn.BatchNorm1d(3, momentum=None), np.random.default_rng(0)
    batches = [rng.standard_normal((5, 3)).astype(np.float32) for _ in range(4)]
    layer.eval()(Tensor(batches[0]))
    for batch in batches:
        layer.train()(Tensor(batch))
    np.testing.assert_allclose(layer.running_mean, np.mean([b.mean(axis=0) for b in batches], axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.running_var, np.mean([b.var(axis=0, ddof=1) for b in batches], axis=0), rtol=1e-5)


def test_linear_layers_may_have_no_inputs_or_no_outputs():
    np.testing.assert_array_equal(nn.Linear(0, 3)(Tensor(np.ones((2, 0), np.float32))).data, np.zeros((2, 3)))
    assert nn.Linear(3, 0)(Tensor(np.ones((2, 3), np.float32))).shape == (2, 0)


def test_settings_with_one_possible_value_are_accepted_by_name():
    nn.Conv2d(3, 4, 3, dilation=1, padding_mode="zeros", device=None, dtype=None)
    nn.MaxPool2d(3, 2, dilation=(1, 1), return_indices=False)
    nn.BatchNorm2d(3, affine=True, track_running_stats=True, device="numpy", dtype=np.float32)
    for layer in (nn.Conv2d(3, 4, 3, dtype=np.float64), nn.Linear(3, 4, dtype="float64"), nn.BatchNorm1d(3, dtype=np.float64)):
        assert {p.dtype for p in layer.parameters()} == {np.dtype(np.float64)}
    x = Tensor(np.array([[-1.0, 2.0]]))
    assert nn.ReLU(inplace=True)(x).data.tolist() == [[0, 2]] and x.data.tolist() == [[-1, 2]]
    assert nn.Identity()(x) is x and nn.Dropout(inplace=True).eval()(x) is x


@pytest.mark.parametrize(
    "layer, problem",
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups=2 does not divide 3 input and 4 output channels"),
        (lambda: nn.Conv2d(3, 4, 3, groups=0), "Conv2d takes an integer of at least 1 as groups; got 0"),
        (lambda: nn.Conv2d(-3, 4, 3), "Conv2d takes an integer of at least 1 as in_channels; got -3"),
        (lambda: nn.Conv2d(3, 4.0, 3), "Conv2d takes an integer of at least 1 as out_channels; got 4.0"),
        (lambda: nn.Conv2d(3, 4, 0), "kernel_size must be an integer of at least 1, or a pair of them; got 0"),
        (lambda: nn.Conv2d(3, 4, 3, dilation=2), r"Conv2d takes dilation=\(1, 1\) only; got \(2, 2\)"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="reflect"), "Conv2d takes padding_mode='zeros' only; got 'reflect'"),
        (lambda: nn.Conv2d(3, 4, 3, padding="full"), '"valid" or "same"; got \'full\''),
        (lambda: nn.Conv2d(3, 4, 3, 2, padding="same"), 'Conv2d takes padding="same" with a stride of 1; got stride 2'),
        (lambda: nn.Linear(-1, 3), "Linear takes an integer of at least 0 as in_features; got -1"),
        (lambda: nn.Linear(3, "2"), "Linear takes an integer of at least 0 as out_features; got '2'"),
        (lambda: nn.BatchNorm2d(-1), "BatchNorm2d takes an integer of at least 0 as num_features; got -1"),
        (lambda: nn.BatchNorm1d(2.5), "BatchNorm1d takes an integer of at least 0 as num_features; got 2.5"),
        (lambda: nn.BatchNorm2d(3, affine=False), "BatchNorm2d takes affine=True only; got False"),
        (lambda: nn.BatchNorm2d(3, track_running_stats=False), "takes track_running_stats=True only; got False"),
        (lambda: nn.MaxPool2d(3, return_indices=True), "MaxPool2d takes return_indices=False only; got True"),
        (lambda: nn.MaxPool2d(3, dilation=2), r"MaxPool2d takes dilation=\(1, 1\) only; got \(2, 2\)"),
        (lambda: nn.Dropout(1.5), "Dropout takes a probability p between 0 and 1; got 1.5"),
        (
            lambda: nn.BatchNorm2d(3)(Tensor(np.ones((2, 3)))),
            r"BatchNorm2d takes x of shape \(N, C, H, W\); got \(2, 3\)",
        ),
    ],
)
def test_layers_refuse_wrong_settings(layer, problem):
    with pytest.raises(ValueError, match=problem):
        layer()


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


@pytest.mark.parametrize(
    "make, put",
    [
        (list, lambda held: held.append(nn.Linear(2, 2))),
        (dict, lambda held: held.update(a=nn.Linear(2, 2))),
        (set, lambda held: held.add(nn.Linear(2, 2))),
        (list, lambda held: held.append([nn.Parameter(np.ones(2))])),
    ],
)
def test_modules_put_into_a_plain_container_later_are_an_error(make, put):
    net = nn.Module()
    net.layers = make()
    assert list(net.parameters()) == []
    put(net.layers)
    for use in (lambda: list(net.parameters()), net.state_dict, net.eval, lambda: net.to(dtype="float64")):
        with pytest.raises(TypeError, match="Module.layers is a .* they would not be found there; make it an nn.ModuleList"):
            use()


def test_summary_counts_the_own_parameters_of_a_container():
    class Scaled(nn.Module):
        def __init__(self):
            self.inner, self.scale = nn.Linear(2, 2), nn.Parameter(np.ones(2, np.float32))

        def forward(self, x):
            return self.inner(x) * self.scale

    rows = summary(nn.Sequential({"scaled": Scaled(), "relu": nn.ReLU()}), (2,))
    assert [(row.name, row.parameters) for row in rows] == [("scaled.inner", 6), ("scaled", 2), ("relu", 0)]


def test_pytorch_arguments_without_effect_are_accepted():
    net = nn.Sequential(nn.Identity(3, unused=True), nn.Linear(2, 2))
    net.zero_grad(set_to_none=True)
    with pytest.raises(ValueError, match="set_to_none=True only"):
        net.zero_grad(set_to_none=False)
    nn.CrossEntropyLoss(weight=None, ignore_index=-100)
    with pytest.raises(ValueError, match="CrossEntropyLoss takes weight=None only"):
        nn.CrossEntropyLoss(weight=np.ones(3))
    assert nn.BatchNorm1d(2)([[1.0, 2.0], [3.0, 5.0]]).shape == (2, 2)


def test_weights_that_are_not_drawn_are_zeros():
    """And not what was in that memory, which may be NaN: casting it to float64 would warn."""
    for _ in range(100):
        garbage = [np.full((4, 9), np.nan, np.float32) for _ in range(9)]
        del garbage
        with nn.init.skipped():
            assert not nn.Linear(9, 4).weight.data.any() and not nn.Conv2d(1, 4, 3).weight.data.any()
