"""Everything compared with PyTorch: functions, layers, optimisers, schedules and whole networks; values and gradients."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import alexnet
import minidl.functional as F
from minidl import Tensor, nn, random
from minidl.optim import (
    SGD,
    Adam,
    CosineAnnealingLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    clip_grad_norm_,
)

from ..helpers import parity_table

torch = pytest.importorskip("torch")
TF = torch.nn.functional
lr_scheduler = torch.optim.lr_scheduler
TOLERANCE = {np.float64: 1e-9, np.float32: 2e-4}


def agree(ours, theirs, dtype, subject, what="value"):
    """Check that both agree; the tolerance is relative to the largest entry."""
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, f"{subject}: {what}"
    scale = np.abs(theirs).max(initial=1e-30)
    error = float(np.abs(ours - theirs).max(initial=0) / scale)
    parity_table.record(subject, np.dtype(dtype).name, "gradient" if what.startswith("gradient") else "value", error)
    assert error <= TOLERANCE[dtype], f"{subject}: {what}"


def compare(subject, ours, theirs, shapes, dtype, seed=0):
    """Compare both functions on the same inputs: the outputs, and the gradients of all inputs for a random output gradient."""
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    inputs = [Tensor(a.copy(), requires_grad=True) for a in arrays]
    twins = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, twin = ours(*inputs), theirs(*twins)
    agree(y.data, twin, dtype, subject)
    grad = rng.standard_normal(y.shape).astype(dtype)
    y.backward(grad)
    twin.backward(torch.tensor(grad))
    for i, (x, t) in enumerate(zip(inputs, twins, strict=True)):
        agree(x.grad, t.grad, dtype, subject, f"gradient of input {i}")


LABELS = np.array([2, 0, 1, 3, 3])
FUNCTIONS = {
    "add": (lambda a, b: a + b, lambda a, b: a + b, [(2, 3), (3,)]),
    "divide": (lambda a, b: a / (b * b + 1), lambda a, b: a / (b * b + 1), [(2, 1), (1, 3)]),
    "matmul": (lambda a, b: a @ b, lambda a, b: a @ b, [(2, 1, 3, 4), (5, 4, 2)]),
    "mean": (lambda x: x.mean(axis=(0, 2)), lambda x: x.mean(dim=(0, 2)), [(2, 3, 4)]),
    "power": (lambda x: (x * x + 1) ** -1.5, lambda x: (x * x + 1) ** -1.5, [(2, 3)]),
    "linear": (F.linear, TF.linear, [(5, 7), (3, 7), (3,)]),
    "flatten": (F.flatten, lambda x: torch.flatten(x, 1), [(2, 3, 4, 5)]),
    "relu": (F.relu, TF.relu, [(2, 3, 4, 5)]),
    "tanh": (F.tanh, torch.tanh, [(2, 3, 4, 5)]),
    "sigmoid": (F.sigmoid, torch.sigmoid, [(2, 3, 4, 5)]),
    "pad": (lambda x: F.pad(x, (1, 0, 2, 3)), lambda x: TF.pad(x, (1, 0, 2, 3)), [(2, 3, 4, 5)]),
    "softmax": (F.softmax, lambda x: TF.softmax(x, 1), [(5, 4)]),
    "log_softmax": (F.log_softmax, lambda x: TF.log_softmax(x, 1), [(5, 4)]),
    "cross_entropy": (
        lambda x: F.cross_entropy(x, LABELS),
        lambda x: TF.cross_entropy(x, torch.tensor(LABELS)),
        [(5, 4)],
    ),
    "cross_entropy, smoothed sum": (
        lambda x: F.cross_entropy(x, LABELS, 0.1, "sum"),
        lambda x: TF.cross_entropy(x, torch.tensor(LABELS), label_smoothing=0.1, reduction="sum"),
        [(5, 4)],
    ),
    "batch_norm": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True, 0.1, 1e-3),
        lambda x, w, b: TF.batch_norm(x, None, None, w, b, True, 0.1, 1e-3),
        [(4, 3, 5, 6), (3,), (3,)],
    ),
    "batch_norm of (N, C)": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
        lambda x, w, b: TF.batch_norm(x, None, None, w, b, True),
        [(8, 3), (3,), (3,)],
    ),
    "local_response_norm": (
        lambda x: F.local_response_norm(x, 5, 0.1, 0.75, 2.0),
        lambda x: TF.local_response_norm(x, 5, 0.1, 0.75, 2.0),
        [(2, 9, 4, 5)],
    ),
    "local_response_norm in groups": (  # PyTorch's, for each group
        lambda x: F.local_response_norm(x, 5, 0.1, 0.75, 2.0, groups=2),
        lambda x: torch.cat([TF.local_response_norm(part, 5, 0.1, 0.75, 2.0) for part in x.chunk(2, dim=1)], dim=1),
        [(2, 14, 4, 5)],
    ),
    "local_response_norm, even": (
        lambda x: F.local_response_norm(x, 4, 0.5, 0.6),
        lambda x: TF.local_response_norm(x, 4, 0.5, 0.6),
        [(2, 9, 4, 5)],
    ),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, dtype):
    compare(name, *FUNCTIONS[name], dtype)


@given(data=st.data())
def test_conv2d(data):
    draw = data.draw
    groups, kernel = draw(st.integers(1, 3)), (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    stride, padding = draw(st.integers(1, 4)), (draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    size = [draw(st.integers(max(1, k - 2 * p), 11)) for k, p in zip(kernel, padding, strict=True)]
    C, O = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    compare(
        "conv2d",
        lambda x, w, b: F.conv2d(x, w, b, stride, padding, groups=groups),
        lambda x, w, b: TF.conv2d(x, w, b, stride, padding, groups=groups),
        [(draw(st.integers(1, 4)), C, *size), (O, C // groups, *kernel), (O,)],
        np.float64,
    )


@given(data=st.data())
def test_max_pool2d(data):
    draw = data.draw
    kernel, stride = (draw(st.integers(1, 4)), draw(st.integers(1, 4))), draw(st.integers(1, 4))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = [draw(st.integers(max(1, k - 2 * p), 11)) for k, p in zip(kernel, padding, strict=True)]
    ceil_mode = draw(st.booleans())
    compare(
        "max_pool2d",
        lambda x: F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil_mode),
        lambda x: TF.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil_mode),
        [(2, 3, *size)],
        np.float64,
    )


@given(data=st.data())
def test_avg_pool2d(data):
    draw = data.draw
    kernel, stride = (draw(st.integers(1, 4)), draw(st.integers(1, 4))), draw(st.integers(1, 4))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = [draw(st.integers(max(1, k - 2 * p), 11)) for k, p in zip(kernel, padding, strict=True)]
    settings = draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from([None, 1, 3]))
    compare(
        "avg_pool2d",
        lambda x: F.avg_pool2d(x, kernel, stride, padding, *settings),
        lambda x: TF.avg_pool2d(x, kernel, stride, padding, *settings),
        [(2, 3, *size)],
        np.float64,
    )


@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), output=st.tuples(st.integers(1, 9), st.none() | st.integers(1, 9)))
def test_adaptive_avg_pool2d(size, output):
    compare(
        "adaptive_avg_pool2d",
        lambda x: F.adaptive_avg_pool2d(x, output),
        lambda x: TF.adaptive_avg_pool2d(x, output),
        [(2, 3, *size)],
        np.float64,
    )


def test_max_pool2d_ties():
    x = np.random.default_rng(0).integers(0, 2, (2, 3, 9, 9)).astype(np.float64)
    ours, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    F.max_pool2d(ours, 3, 2).sum().backward()
    TF.max_pool2d(theirs, 3, 2).sum().backward()
    np.testing.assert_array_equal(ours.grad, theirs.grad.numpy())


def test_batch_norm_layer_over_steps_and_in_evaluation():
    ours, theirs = nn.BatchNorm2d(3).to(dtype=np.float64), torch.nn.BatchNorm2d(3).double()
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = rng.standard_normal((4, 3, 2, 5)) * 3 + 1
        agree(ours(Tensor(x)).data, theirs(torch.tensor(x)), np.float64, "BatchNorm2d over steps")
    for name, array in ours.state_dict().items():
        agree(array, theirs.state_dict()[name], np.float64, "BatchNorm2d over steps", name)
    ours.eval(), theirs.eval()
    agree(ours(Tensor(x)).data, theirs(torch.tensor(x)), np.float64, "BatchNorm2d over steps")


LAYERS = {
    "Conv2d": ((4, 6, (3, 5), (1, 2), (1, 2)), {"groups": 2}),
    "Conv2d, strided, no bias": ((4, 8, 5), {"stride": 3, "padding": 1, "bias": False}),
    "Linear": ((10, 7), {}),
    "Conv2d, same": ((4, 6, (5, 3)), {"padding": "same"}),
    "Conv2d, valid": ((4, 6, 3), {"padding": "valid"}),
    "Linear, no bias": ((10, 7, False), {}),
    "Linear, of (N, C, H, F)": ((8, 7), {}),
    "MaxPool2d": ((3, 2), {}),
    "MaxPool2d, padded, ceil_mode": ((3, 2, 1), {"ceil_mode": True}),
    "AvgPool2d": ((2,), {}),
    "AvgPool2d, padded, ceil_mode": ((3, 2, 1, True, False), {}),
    "AdaptiveAvgPool2d": (((3, None),), {}),
    "ReLU": ((), {}),
    "Tanh": ((), {}),
    "Sigmoid": ((), {}),
    "LocalResponseNorm": ((5,), {"alpha": 0.1, "beta": 0.75, "k": 2.0}),
    "LocalResponseNorm, even": ((2, 0.5, 0.6), {}),
    "BatchNorm2d": ((4,), {}),
    "BatchNorm2d, eps and momentum": ((4, 1e-2, 0.3), {}),
    "BatchNorm2d, cumulative average": ((4, 1e-5, None), {}),
    "Flatten": ((), {}),
    "Flatten, the inner axes": ((1, 2), {}),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, dtype):
    """With the same arguments and state: the output, the gradients of input and parameters, the output in evaluation."""
    (args, kwargs), kind = LAYERS[name], name.split(",")[0]
    ours, theirs = getattr(nn, kind)(*args, **kwargs).to(dtype=dtype), getattr(torch.nn, kind)(*args, **kwargs)
    theirs.to(torch.float64 if dtype == np.float64 else torch.float32)
    ours.load_state_dict({name: array.numpy() for name, array in theirs.state_dict().items()})
    rng = np.random.default_rng(0)
    images = rng.standard_normal((6, 10) if args[:1] == (10,) else (6, 4, 9, 8)).astype(dtype)
    x, t = Tensor(images, requires_grad=True), torch.tensor(images, requires_grad=True)
    y, twin = ours(x), theirs(t)
    agree(y.data, twin, dtype, name)
    grad = rng.standard_normal(y.shape).astype(dtype)
    y.backward(grad), twin.backward(torch.tensor(grad))
    agree(x.grad, t.grad, dtype, name, "gradient of the input")
    for (parameter, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        agree(p.grad, q.grad, dtype, name, f"gradient of {parameter}")
    ours.eval(), theirs.eval()
    agree(ours(x).data, theirs(t), dtype, name, "value in evaluation")


@pytest.mark.parametrize("name", [name for name in LAYERS if "BatchNorm" not in name])  # its repr depends on the version
def test_the_repr_of_layers_is_pytorchs(name):
    (args, kwargs), kind = LAYERS[name], name.split(",")[0]
    assert repr(getattr(nn, kind)(*args, **kwargs)) == repr(getattr(torch.nn, kind)(*args, **kwargs))


def test_the_repr_of_a_network_is_pytorchs():
    def network(nn):
        parts = nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.ReLU(inplace=True), nn.Dropout(0.2))
        return nn.Sequential(parts, nn.ModuleList([nn.Linear(2, 3), nn.Identity(), nn.Sequential()]), nn.Tanh())

    assert repr(network(nn)) == repr(network(torch.nn))


TWINS = [(getattr(nn, name), getattr(torch.nn, name, None)) for name in nn.__all__ if name != "ModuleList"]
TWINS += [(kind, getattr(torch.optim, kind.__name__)) for kind in (SGD, Adam)]
TWINS += [
    (kind, getattr(lr_scheduler, kind.__name__))
    for kind in (CosineAnnealingLR, LinearLR, OneCycleLR, ReduceLROnPlateau, SequentialLR, StepLR)
]
TWINS = [(kind, twin) for kind, twin in TWINS if inspect.isclass(kind) and twin]


@pytest.mark.parametrize("kind, twin", TWINS, ids=[kind.__name__ for kind, _ in TWINS])
def test_arguments_have_pytorchs_order_and_defaults(kind, twin):
    """Those that both have; the order of those that minidl takes by position."""
    ours, theirs = (inspect.signature(each.__init__).parameters for each in (kind, twin))
    positional = [name for name, one in ours.items() if one.kind is one.POSITIONAL_OR_KEYWORD and name in theirs]
    assert positional == [name for name in theirs if name in positional]
    given = {name: one.default for name, one in ours.items() if name in theirs and one.default is not one.empty}
    assert given == {name: theirs[name].default for name in given}


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4)])
def test_batch_norm_1d_over_steps_and_in_evaluation(shape, momentum):
    ours, theirs = nn.BatchNorm1d(3, momentum=momentum).to(dtype=np.float64), torch.nn.BatchNorm1d(3, momentum=momentum).double()
    rng, subject = np.random.default_rng(0), "BatchNorm1d over steps"
    for _ in range(3):
        images = rng.standard_normal(shape) * 3 + 1
        x, t = Tensor(images, requires_grad=True), torch.tensor(images, requires_grad=True)
        y, twin = ours(x), theirs(t)
        agree(y.data, twin, np.float64, subject)
        grad = rng.standard_normal(shape)
        y.backward(grad), twin.backward(torch.tensor(grad))
        agree(x.grad, t.grad, np.float64, subject, "gradient of the input")
    for name, array in ours.state_dict().items():
        agree(array, theirs.state_dict()[name], np.float64, subject, name)
    ours.eval(), theirs.eval()
    agree(ours(x).data, theirs(t), np.float64, subject)


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1, "reduction": "sum"}])
def test_cross_entropy_loss(settings):
    loss, twin = nn.CrossEntropyLoss(**settings), torch.nn.CrossEntropyLoss(**settings)
    compare("CrossEntropyLoss", lambda x: loss(x, LABELS), lambda x: twin(x, torch.tensor(LABELS)), [(5, 4)], np.float64)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_loss(reduction):
    loss, twin = nn.MSELoss(reduction=reduction), torch.nn.MSELoss(reduction=reduction)
    compare("MSELoss", loss, twin, [(5, 4), (5, 4)], np.float64)


def trained_with_groups(kind, decay, steps, **settings):
    """(our parameters, PyTorch's, the two optimisers) after some steps; the second group has its own rate and decay."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((4, 3)), rng.standard_normal(5)]
    ours = [nn.Parameter(a.copy()) for a in arrays]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in arrays]
    optimizers = [
        make([{"params": params[:1]}, {"params": params[1:], "lr": 0.02, "weight_decay": decay}], lr=0.1, **settings)
        for make, params in ((kind, ours), (getattr(torch.optim, kind.__name__), theirs))
    ]
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        for p, t in zip(ours, theirs, strict=True):
            (p * p * p).sum().backward()
            (t * t * t).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
    return ours, theirs, optimizers


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "weight_decay": 0.01}, {"momentum": 0.9, "nesterov": True}])
def test_sgd_with_groups(settings):
    ours, theirs, _ = trained_with_groups(SGD, 0.0, 5, **settings)
    for p, t in zip(ours, theirs, strict=True):
        agree(p.data, t, np.float64, "SGD with groups")


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}, {"betas": (0.5, 0.9), "eps": 1e-3}])
def test_adam_with_groups(settings):
    ours, theirs, optimizers = trained_with_groups(Adam, 0.5, 20, **settings)
    states = (optimizer.state_dict()["state"] for optimizer in optimizers)
    for p, t, state, twin in zip(ours, theirs, *(s.values() for s in states), strict=True):
        agree(p.data, t, np.float64, "Adam with groups")
        np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=1e-12)
        assert state.keys() == twin.keys()
        for name, array in state.items():
            np.testing.assert_allclose(array, twin[name].numpy(), rtol=1e-12)


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5, np.inf])
def test_clip_grad_norm(norm_type, max_norm):
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for shape in ((4, 3), (5,)):
        grad = rng.standard_normal(shape)
        ours.append(nn.Parameter(np.zeros(shape)))
        theirs.append(torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)))
        ours[-1].grad, theirs[-1].grad = grad, torch.tensor(grad)
    norm = clip_grad_norm_(ours, max_norm, norm_type)
    np.testing.assert_allclose(norm, torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type).numpy(), rtol=1e-12)
    for p, t in zip(ours, theirs, strict=True):
        agree(p.grad, t.grad, np.float64, "clip_grad_norm_", "gradient")


@pytest.mark.parametrize("total, pct_start", [(100, 0.3), (7, 0.5), (50, 0.04)])
def test_one_cycle(total, pct_start):
    ours = SGD([nn.Parameter(np.ones(1))], 0.1)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)
    schedule = OneCycleLR(ours, 0.5, total, pct_start)
    twin = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.5, total, pct_start=pct_start, cycle_momentum=False)
    for _ in range(total - 1):
        np.testing.assert_allclose(schedule.get_last_lr(), twin.get_last_lr(), rtol=1e-12)
        theirs.step(), schedule.step(), twin.step()
    np.testing.assert_allclose(schedule.get_last_lr(), twin.get_last_lr(), rtol=1e-12)


SCHEDULES = {
    "StepLR": (lambda o: StepLR(o, 3, 0.5), lambda o: lr_scheduler.StepLR(o, 3, 0.5)),
    "CosineAnnealingLR": (lambda o: CosineAnnealingLR(o, 7, 0.01), lambda o: lr_scheduler.CosineAnnealingLR(o, 7, 0.01)),
    "LinearLR": (lambda o: LinearLR(o, 0.1, 0.8, 6), lambda o: lr_scheduler.LinearLR(o, 0.1, 0.8, 6)),
    "SequentialLR": (
        lambda o: SequentialLR(o, [LinearLR(o, 0.1, 1.0, 4), CosineAnnealingLR(o, 8), StepLR(o, 2)], [4, 10]),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.LinearLR(o, 0.1, 1.0, 4),
                lr_scheduler.CosineAnnealingLR(o, 8),
                lr_scheduler.StepLR(o, 2),
            ],
            [4, 10],
        ),
    ),
}


def optimizers():
    """Our optimiser and PyTorch's, with two groups."""
    ours = SGD([{"params": [nn.Parameter(np.ones(1))]}, {"params": [nn.Parameter(np.ones(1))], "lr": 0.3}], 0.1)
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))]}, {"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.3}]
    return ours, torch.optim.SGD(groups, 0.1)


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # PyTorch's SequentialLR itself causes it
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    agree_over_steps(name, *optimizers())


def agree_over_steps(name, ours, theirs):
    schedule, twin = SCHEDULES[name][0](ours), SCHEDULES[name][1](theirs)
    for _ in range(16):
        np.testing.assert_allclose(schedule.get_last_lr(), twin.get_last_lr(), rtol=1e-12, atol=1e-15)
        theirs.step(), schedule.step(), twin.step()


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_made_after_one_cycle_agrees(name):
    """It starts at the initial rate of the cycle, not at the highest."""
    ours, theirs = optimizers()
    first = OneCycleLR(ours, [0.5, 1.0], 20)
    twin = lr_scheduler.OneCycleLR(theirs, [0.5, 1.0], 20, cycle_momentum=False)
    np.testing.assert_allclose(first.base_lrs, twin.base_lrs, rtol=1e-12)
    agree_over_steps(name, ours, theirs)


@given(
    metrics=st.lists(st.integers(0, 20).map(lambda n: n / 4), min_size=1, max_size=40),
    mode=st.sampled_from(["min", "max"]),
    threshold=st.sampled_from([(1e-4, "rel"), (0.3, "rel"), (0.5, "abs")]),
    patience=st.integers(0, 3),
    cooldown=st.integers(0, 2),
    min_lr=st.sampled_from([0.0, 0.004, [0.01, 0.0]]),
)
def test_plateau(metrics, mode, threshold, patience, cooldown, min_lr):
    pair = [
        kind(optimizer, mode, 0.3, patience, *threshold, cooldown, min_lr, 1e-3)
        for kind, optimizer in zip((ReduceLROnPlateau, lr_scheduler.ReduceLROnPlateau), optimizers(), strict=True)
    ]
    for metric in metrics:
        for schedule in pair:
            schedule.step(metric)
        np.testing.assert_allclose(pair[0].get_last_lr(), pair[1].get_last_lr(), rtol=1e-12)


# --- whole networks-------------------------------------------------------------------------------------------------


class Masks(torch.nn.Module):
    """Dropout with the masks that minidl draws, after a multiplication by scale."""

    def __init__(self, key, scale):
        super().__init__()
        self.key, self.scale = key, scale

    def forward(self, x):
        x = x * self.scale
        if not self.training:
            return x
        with random.context(0, 0):
            return x * torch.tensor(F.dropout(Tensor(np.ones(x.shape)), key=self.key).data, dtype=x.dtype)


class GroupedLocalResponseNorm(torch.nn.LocalResponseNorm):
    """Normalises each group of channels by itself."""

    groups = 1

    def forward(self, x):
        return torch.cat([super(GroupedLocalResponseNorm, self).forward(part) for part in x.chunk(self.groups, dim=1)], dim=1)


class SameMapNorm(torch.nn.Module):
    """cuda-convnet's rnorm: divides by the mean of the squares in a window of the same feature map, padded with zeros."""

    def __init__(self, layer):
        super().__init__()
        self.size, self.alpha, self.beta = layer.size, layer.alpha, layer.beta

    def forward(self, x):
        return x / (1 + self.alpha * TF.avg_pool2d(x**2, self.size, 1, self.size // 2)) ** self.beta


class CeilConv2d(torch.nn.Conv2d):
    """A convolution of an image that is padded with zeros at the right and at the bottom, to 227 x 227."""

    def forward(self, x):
        return super().forward(TF.pad(x, (0, 227 - x.shape[3], 0, 227 - x.shape[2])))


def twin_of(net, keys=None):
    """The same network in PyTorch, with the same layers, settings and weights."""
    keys = keys or iter(range(9))
    twin = torch.nn.Sequential()
    for name, layer in net.named_modules():
        if not name or "." in name:
            continue
        match layer:
            case nn.Sequential():
                twin.add_module(name, twin_of(layer, keys))
            case nn.Conv2d():
                O, C, KH, KW = layer.weight.shape
                kind = CeilConv2d if isinstance(layer, alexnet.models.CeilConv2d) else torch.nn.Conv2d
                settings = (C * layer.groups, O, (KH, KW), layer.stride, layer.padding)
                twin.add_module(name, kind(*settings, groups=layer.groups))
            case nn.Linear():
                twin.add_module(name, torch.nn.Linear(*layer.weight.shape[::-1]))
            case nn.BatchNorm2d():
                twin.add_module(name, torch.nn.BatchNorm2d(layer.weight.shape[0]))
            case nn.MaxPool2d():
                twin.add_module(name, torch.nn.MaxPool2d(layer.kernel_size, layer.stride))
            case nn.AdaptiveAvgPool2d():
                twin.add_module(name, torch.nn.AdaptiveAvgPool2d(layer.output_size))
            case nn.LocalResponseNorm():
                twin.add_module(name, GroupedLocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k))
                getattr(twin, name).groups = layer.groups
            case alexnet.models.SameMapNorm():
                twin.add_module(name, SameMapNorm(layer))
            case nn.Dropout():
                twin.add_module(name, Masks(next(keys), 0.5 if isinstance(layer, alexnet.models.HalvedDropout) else 1.0))
            case nn.ReLU() | nn.Flatten():
                twin.add_module(name, getattr(torch.nn, type(layer).__name__)())
    state = {name: torch.tensor(np.array(array)) for name, array in net.state_dict().items()}
    if state:
        twin.to(next(iter(state.values())).dtype).load_state_dict(state)
    return twin


NETS = {  # (network, height and width of its images): number of images
    ("cifar-bn", 32): 128,
    ("cifar-lrn", 32): 128,
    ("alexnet-2012", 224): 4,
    ("alexnet-2012", 227): 4,
    ("net-145", 224): 4,
    ("alexnet-torchvision", 224): 4,
    ("alexnet-torchvision", 161): 4,
}


def net_and_twin(name, size, dtype):
    random.manual_seed(0)
    net = alexnet.create(name)
    rng = np.random.default_rng(0)
    for _, layer in net.named_modules():
        if isinstance(layer, nn.BatchNorm2d):  # values other than 1 and 0
            layer.weight.data[...] = rng.uniform(0.5, 1.5, layer.weight.shape)
            layer.bias.data[...] = rng.uniform(-0.5, 0.5, layer.bias.shape)
    net.to(dtype=dtype)
    count = NETS[name, size]
    images = rng.standard_normal((count, 3, size, size)).astype(dtype)
    return net, twin_of(net), images, rng.integers(0, 10, count)


def vanishes(parameter, net):
    """Whether it is a bias before a batch norm, which removes it: its gradient is zero up to rounding."""
    layer, _, kind = parameter.rpartition(".")
    return kind == "bias" and layer.startswith("conv") and hasattr(net, layer.replace("conv", "bn"))


@pytest.mark.parametrize("name, size", NETS)
def test_a_network_at_its_real_size_in_float64(name, size):
    """Forward and backward: the logits, the gradients of every parameter and of the images, the running statistics."""
    net, twin, images, labels = net_and_twin(name, size, np.float64)
    subject = f"{name}, {size} x {size}"
    x, t = Tensor(images, requires_grad=True), torch.tensor(images, requires_grad=True)
    with random.context(0, 0):
        logits = net(x)
    F.cross_entropy(logits, labels).backward()
    twin_logits = twin(t)
    TF.cross_entropy(twin_logits, torch.tensor(labels)).backward()
    agree(logits.data, twin_logits, np.float64, subject, "logits")
    agree(x.grad, t.grad, np.float64, subject, "gradient of the images")
    theirs = dict(twin.named_parameters())
    for parameter, p in net.named_parameters():
        if vanishes(parameter, net):
            assert max(np.abs(p.grad).max(), theirs[parameter].grad.abs().max()) < 1e-12
        else:
            agree(p.grad, theirs[parameter].grad, np.float64, subject, f"gradient of {parameter}")
    net.eval(), twin.eval()
    agree(net(Tensor(images)).data, twin(torch.tensor(images)), np.float64, subject, "logits in evaluation")
    for key, array in net.state_dict().items():
        agree(array, twin.state_dict()[key], np.float64, subject, key)


@pytest.mark.parametrize("name, size", NETS)
def test_a_network_at_its_real_size_in_float32(name, size):
    """The logits; then each layer on PyTorch's input and output gradient: its output, the gradients of input and parameters.

    The comparison is by layer, because rounding in float32 decides a few near ties among a batch's 27 million ReLUs and
    maxima, and all earlier gradients then differ: PyTorch's own, by up to 6% from its float64 ones.
    """
    net, twin, images, labels = net_and_twin(name, size, np.float32)
    subject = f"{name}, {size} x {size}"
    with random.context(0, 0):
        logits = net(Tensor(images))
    seen = {}

    def watch(layer):
        def hook(module, inputs, output):
            inputs[0].retain_grad(), output.retain_grad()
            seen[layer] = inputs[0], output

        return hook

    for layer, module in twin.named_modules():
        if not isinstance(module, torch.nn.Sequential):
            module.register_forward_hook(watch(layer))
    twin_logits = twin(torch.tensor(images, requires_grad=True) * 1)
    TF.cross_entropy(twin_logits, torch.tensor(labels)).backward()
    agree(logits.data, twin_logits, np.float32, subject, "logits")

    theirs = dict(twin.named_parameters())
    for layer, module in net.named_modules():
        if isinstance(module, (nn.Dropout, nn.Sequential)):
            continue
        given, output = seen[layer]
        x = Tensor(given.detach().numpy(), requires_grad=True)
        y = module(x)
        y.backward(output.grad.numpy())
        agree(y.data, output, np.float32, subject, f"output of {layer}")
        agree(x.grad, given.grad, np.float32, subject, f"gradient of the input of {layer}")
        for kind, p in module.named_parameters():
            if not vanishes(f"{layer}.{kind}", net):
                agree(p.grad, theirs[f"{layer}.{kind}"].grad, np.float32, subject, f"gradient of {layer}.{kind}")
