"""SGD's update rule, the flat buffers of optimisers, their copies and states, and the learning rate schedules."""

import copy
import pickle

import numpy as np
import pytest

from minidl import Tensor, nn
from minidl.backend import to_device
from minidl.kernels import numpy_kernels
from minidl.nn import Parameter
from minidl.optim import SGD, Adam, CosineAnnealingLR, LinearLR, OneCycleLR, ReduceLROnPlateau, SequentialLR, StepLR

from ..helpers.compare import assert_array_equal


def parameters(*shapes, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [Parameter(rng.standard_normal(shape).astype(dtype)) for shape in shapes]


def backward(params, step=0):
    """Give each parameter the gradient cos(w + step)."""
    for p in params:
        p.grad = None
        (p * Tensor(np.cos(p.data + step).astype(p.dtype))).sum().backward()


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_update_rule(monkeypatch, momentum, nesterov, weight_decay):
    """The update is done in chunks."""
    monkeypatch.setattr(numpy_kernels, "CHUNK_BYTES", 100)
    params = parameters((3, 4), (40,))
    expected = [p.data.copy() for p in params]
    velocity = [np.zeros(p.shape) for p in params]
    optimizer = SGD(params, 0.1, momentum, weight_decay=weight_decay, nesterov=nesterov)
    for step in range(3):
        backward(params, step)
        optimizer.step()
        for w, v in zip(expected, velocity, strict=True):
            d = np.cos(w + step) + weight_decay * w
            v[...] = momentum * v + d
            w -= 0.1 * (d + momentum * v if nesterov else v)
    for p, w in zip(params, expected, strict=True):
        np.testing.assert_allclose(p.data, w)


def test_parameters_become_views_of_one_buffer_in_order():
    params = parameters((2, 3), (4,), (1, 2, 2))
    values = [p.data.copy() for p in params]
    optimizer = SGD(params, 0.1)
    flat = params[0].data.base
    assert flat.shape == (14,) and all(p.data.base is flat for p in params)
    np.testing.assert_array_equal(flat, np.concatenate([value.ravel() for value in values]))
    data = [p.data for p in params]
    backward(params)
    grads = [p.grad for p in params]
    assert all(g.base is grads[0].base for g in grads) and grads[0].base.shape == (14,)
    optimizer.step()
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)
    backward(params)
    assert all(p.data is d and p.grad is g for p, d, g in zip(params, data, grads, strict=True))
    assert all(p.data.flags.c_contiguous for p in params)


def test_each_dtype_has_its_own_buffer():
    params = parameters((2,)) + parameters((3,), dtype=np.float32) + parameters((4,))
    SGD(params, 0.1)
    assert params[0].data.base is params[2].data.base and params[0].data.base.shape == (6,)
    assert params[1].data.base.dtype == np.float32


def test_the_first_gradient_is_written_and_later_ones_add():
    (p,) = parameters((3,))
    optimizer = SGD([p], 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (p * 2).sum().backward()
        (p * 3).sum().backward()
        np.testing.assert_array_equal(p.grad, [5, 5, 5])


def test_a_parameter_without_a_gradient_is_not_changed():
    one, two = parameters((3,), (3,))
    before = two.data.copy()
    optimizer = SGD([one, two], 0.1, weight_decay=0.1)
    (one * 2).sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(two.data, before)


def test_a_gradient_that_the_user_set_is_used():
    (p,) = parameters((2,))
    before = p.data.copy()
    optimizer = SGD([p], 0.5)
    p.grad = np.array([2.0, 4.0])
    optimizer.step()
    np.testing.assert_allclose(p.data, before - [1, 2])


def test_each_group_has_its_own_coefficients():
    weight, bias = parameters((3,), (2,))
    before = weight.data.copy(), bias.data.copy()
    optimizer = SGD([{"params": [weight]}, {"params": [bias], "lr": 0.2, "weight_decay": 0.0}], 0.1, weight_decay=0.5)
    for p in (weight, bias):
        (p * 1).sum().backward()
    optimizer.step()
    np.testing.assert_allclose(weight.data, before[0] - 0.1 * (1 + 0.5 * before[0]))
    np.testing.assert_allclose(bias.data, before[1] - 0.2)


def test_replaced_data_is_an_error():
    (p,) = parameters((3,))
    optimizer = SGD([p], 0.1)
    (p * 2).sum().backward()
    p.data = p.data.copy()
    with pytest.raises(RuntimeError, match=r"shape \(3,\) was replaced after SGD packed it"):
        optimizer.step()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (lambda p: dict(params=[], lr=0.1), "no parameters"),
        (lambda p: dict(params=[p, p], lr=0.1), "given to SGD twice"),
        (lambda p: dict(params=[p], lr=-1), "lr of at least 0; got -1"),
        (lambda p: dict(params=[p], lr=float("nan")), "lr of at least 0; got nan"),
        (lambda p: dict(params=[p], lr=0.1, nesterov=True), "nesterov needs a momentum"),
        (lambda p: dict(params=[p], lr=0.1, momentum=0.9, nesterov=1), "nesterov of True or False; got 1"),
        (lambda p: dict(params=[{"params": [p], "nesterov": "no"}], lr=0.1), "nesterov of True or False; got 'no'"),
        (lambda p: dict(params=[p * 2], lr=0.1), r"takes leaves, but a tensor of shape \(3,\) was computed"),
        (lambda p: dict(params=[p], lr=0.1, dampening=0.5), "SGD takes dampening=0 only; got 0.5"),
        (lambda p: dict(params=[p], lr=0.1, maximize=True), "SGD takes maximize=False only; got True"),
        (lambda p: dict(params=[p], lr=0.1, foreach=True), "SGD takes foreach=None only; got True"),
        (lambda p: dict(params=[p], lr=0.1, differentiable=True), "SGD takes differentiable=False only; got True"),
        (lambda p: dict(params=[p], lr=0.1, fused=True), "SGD takes fused=None only; got True"),
        (lambda p: dict(params=[{"params": [p], "dampening": 0.5}], lr=0.1), "SGD takes dampening=0 only; got 0.5"),
        (lambda p: dict(params=[{"params": [p], "momentum": "x"}], lr=0.1), "momentum of at least 0; got 'x'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    (p,) = parameters((3,))
    with pytest.raises(ValueError, match=message):
        SGD(**arguments(p))


@pytest.mark.parametrize(
    "params",
    [
        lambda p: [{"lr": 1}],
        lambda p: [p, {"params": []}],
        lambda p: [{"params": []}, p],
        lambda p: [p.data],
        lambda p: [("w", p)],
        lambda p: [Tensor(np.arange(3))],
    ],
)
def test_params_that_are_no_parameters_are_refused(params):
    (p,) = parameters((3,))
    with pytest.raises(TypeError, match="SGD takes"):
        SGD(params(p), lr=0.1)


def test_which_arguments_are_positional():
    """In PyTorch the fourth argument is dampening. Unsupported arguments are accepted if they have their default."""
    (p,) = parameters((3,))
    with pytest.raises(TypeError, match="positional"):
        SGD([p], 0.1, 0.9, 0.0)
    SGD([p], 0.1, 0.9, dampening=0, maximize=False, foreach=None, differentiable=False, fused=None)


def test_a_new_optimiser_keeps_the_gradients():
    (p,) = parameters((3,))
    (p * 2).sum().backward()
    optimizer, before = SGD([p], 0.5), p.data.copy()
    (p * 4).sum().backward()
    optimizer.step()
    np.testing.assert_allclose(p.data, before - 3)


def test_a_single_parameter_or_group_and_numpy_numbers_are_accepted():
    for params in (lambda p: p, lambda p: {"params": p}, lambda p: {"params": iter([p])}):
        (p,) = parameters((3,))
        (group,) = SGD(params(p), np.float32(0.5), momentum=np.float64(0.5)).param_groups
        assert len(group["params"]) == 1 and (group["lr"], group["momentum"]) == (0.5, 0.5)


def test_a_later_optimiser_takes_the_parameters_over():
    (p,) = parameters((3,))
    value = p.data.copy()
    first, second = SGD([p], 0.1), SGD([p], 0.5)
    (p * 2).sum().backward()
    with pytest.raises(RuntimeError, match="was replaced"):
        first.step()
    second.step()
    np.testing.assert_allclose(p.data, value - 1)


def test_step_lr():
    optimizer = SGD([{"params": parameters((1,))}, {"params": parameters((1,)), "lr": 2.0}], 1.0)
    schedule = StepLR(optimizer, 3, gamma=0.1)
    rates = []
    for _ in range(7):
        rates.append(schedule.get_last_lr())
        schedule.step()
    np.testing.assert_allclose(rates, [[r, 2 * r] for r in (1, 1, 1, 0.1, 0.1, 0.1, 0.01)])


def rates(schedule, steps):
    values = []
    for _ in range(steps):
        values.append(schedule.get_last_lr()[0])
        schedule.step()
    return values


def test_cosine_annealing():
    schedule = CosineAnnealingLR(SGD(parameters((1,)), 1.0), T_max=4, eta_min=0.2)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(rates(schedule, 6), [1, 0.6 + 0.4 * half, 0.6, 0.6 - 0.4 * half, 0.2, 0.6 - 0.4 * half])


def test_linear_warm_up():
    np.testing.assert_allclose(rates(LinearLR(SGD(parameters((1,)), 2.0), 0.5, 1.0, 4), 7), [1, 1.25, 1.5, 1.75, 2, 2, 2])


def test_warm_up_then_cosine():
    optimizer = SGD([{"params": parameters((1,))}, {"params": parameters((1,)), "lr": 2.0}], 1.0)
    schedule = SequentialLR(optimizer, [LinearLR(optimizer, 0.5, total_iters=2), CosineAnnealingLR(optimizer, 4)], [2])
    expected = [0.5, 0.75, *[(1 + np.cos(np.pi * i / 4)) / 2 for i in range(5)]]
    np.testing.assert_allclose(rates(schedule, 7), expected, atol=1e-15)
    schedule.resume(3)
    np.testing.assert_allclose(schedule.get_last_lr(), [expected[3], 2 * expected[3]])


def test_a_milestone_is_the_first_step_of_the_next_schedule():
    optimizer = SGD(parameters((1,)), 1.0)
    schedule = SequentialLR(optimizer, [LinearLR(optimizer, 0.5, 0.75, 2), StepLR(optimizer, 1)], [2])
    np.testing.assert_allclose(rates(schedule, 5), [0.5, 0.625, 1, 0.1, 0.01])


def test_a_plateau_counts_nothing_during_its_cooldown():
    schedule = ReduceLROnPlateau(SGD(parameters((1,)), 1.0), "max", patience=0, cooldown=2)
    seen = []
    for accuracy in (0.5, 0.5, 0.5, 0.4, 0.5, 0.5):
        schedule.step(accuracy)
        seen.append(schedule.get_last_lr()[0])
    np.testing.assert_allclose(seen, [1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_a_plateau_divides_the_rate():
    optimizer = SGD([{"params": parameters((1,))}, {"params": parameters((1,)), "lr": 2.0}], 1.0)
    schedule = ReduceLROnPlateau(optimizer, patience=1)
    seen = []
    for error in (5, 4, 4, 4, 3.9, 3.9, float("nan"), 3.9, 3.9):
        schedule.step(error)
        seen.append(schedule.get_last_lr()[0])
    np.testing.assert_allclose(seen, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001])
    np.testing.assert_allclose(schedule.get_last_lr(), [0.001, 0.002])


@pytest.mark.parametrize(
    "make_schedule, message",
    [
        (lambda o: CosineAnnealingLR(o, 0), "T_max of at least 1; got 0"),
        (lambda o: LinearLR(o, 0.0), "start_factor above 0.*got 0.0, 1.0 and 5"),
        (lambda o: StepLR(o, 0), "step_size of at least 1; got 0"),
        (lambda o: SequentialLR(o, [StepLR(o, 1), ReduceLROnPlateau(o)], [1]), "ReduceLROnPlateau needs one"),
        (lambda o: SequentialLR(o, [StepLR(o, 1)] * 2, [2.5]), r"integers of at least 1; got \[2.5\]"),
        (lambda o: SequentialLR(o, [StepLR(o, 1)] * 2, [-1]), r"integers of at least 1; got \[-1\]"),
        (lambda o: SequentialLR(o, [StepLR(o, 1)], [1]), r"got 1 schedules and \[1\]"),
        (lambda o: SequentialLR(o, [StepLR(o, 1)] * 3, [2, 1]), r"got 3 schedules and \[2, 1\]"),
        (lambda o: SequentialLR(o, [StepLR(SGD(parameters((1,)), 1.0), 1)], []), "of its own optimizer"),
        (lambda o: ReduceLROnPlateau(o, "least"), "got 'least' and 'rel'"),
        (lambda o: ReduceLROnPlateau(o, factor=1.0), "got 1.0 and 0.0"),
        (lambda o: ReduceLROnPlateau(o, min_lr=[1, 2]), r"each of 1 groups; got 0.1 and \[1, 2\]"),
    ],
)
def test_wrong_schedules_are_refused(make_schedule, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(SGD(parameters((1,)), 1.0))


def test_one_cycle_goes_up_and_down():
    optimizer = SGD(parameters((1,)), 7.0)
    schedule = OneCycleLR(optimizer, max_lr=1.0, total_steps=100)
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    assert rates[0] == pytest.approx(1 / 25) and max(rates) == rates[29] == 1.0 and rates[-1] == pytest.approx(1 / 25 / 1e4)
    assert sorted(rates[:30]) == rates[:30] and sorted(rates[29:], reverse=True) == rates[29:]
    with pytest.raises(ValueError, match="made for 100 steps"):
        schedule.step()


@pytest.mark.parametrize("total, pct_start", [(1, 0.3), (2, 0.3), (10, 0.1), (10, 0.0), (10, 1.0)])
def test_one_cycle_of_few_steps_and_extreme_pct_start(total, pct_start):
    schedule = OneCycleLR(SGD(parameters((1,)), 1.0), 1.0, total, pct_start)
    for _ in range(total):
        assert 0 < schedule.get_last_lr()[0] <= 1
        schedule.step()


def test_a_resumed_schedule_continues_at_its_step():
    def schedule():
        return OneCycleLR(SGD(parameters((1,)), 1.0), 1.0, 50)

    walked, resumed = schedule(), schedule()
    for _ in range(20):
        walked.step()
    resumed.resume(20)
    assert walked.get_last_lr() == resumed.get_last_lr()
    walked.step(), resumed.step()
    assert walked.get_last_lr() == resumed.get_last_lr()


def test_one_cycle_takes_a_rate_for_each_group():
    groups = [{"params": parameters((1,))}, {"params": parameters((1,))}]
    schedule = OneCycleLR(SGD(groups, 1.0), [1.0, 2.0], 10)
    rates = schedule.get_last_lr()
    assert rates[1] == 2 * rates[0]
    with pytest.raises(ValueError, match="max_lr for each of 2 groups"):
        OneCycleLR(SGD([{"params": parameters((1,))}, {"params": parameters((1,))}], 1.0), [1.0], 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_with_a_loss_that_is_not_finite_is_skipped(device, dtype):
    p = Tensor(to_device(np.ones(4, np.float32), device), requires_grad=True)
    optimizer = SGD([p], lr=0.5, momentum=0.9)
    p.grad = to_device(np.ones(4, np.float32), device)
    for loss in (np.nan, np.inf):
        optimizer.step(to_device(np.array(loss, dtype), device))
        optimizer.step(Tensor(to_device(np.array([loss], dtype), device)))
    assert_array_equal(p.data, np.ones(4))
    optimizer.step(to_device(np.array(7, dtype), device))
    assert_array_equal(p.data, np.full(4, 0.5))


def test_a_loss_that_is_no_single_number_is_refused():
    p = Tensor(np.ones(4), requires_grad=True)
    for loss in (np.ones(2), 1.0):
        with pytest.raises(ValueError, match="step takes a loss of one number, a Tensor or an array"):
            SGD([p], lr=0.5).step(loss)


# --- copies and states ---------------------------------------------------------------------------------------------

MAKERS = {
    "SGD": lambda params: SGD(params, 0.1, 0.9, weight_decay=0.01),
    "Adam": lambda params: Adam(params, 0.1, weight_decay=0.01),
}
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda thing: pickle.loads(pickle.dumps(thing))}


@pytest.fixture(params=MAKERS)
def trained(request):
    """A layer, its optimiser and its schedule, after some steps."""
    net = nn.Linear(3, 2).to(dtype=np.float64)
    optimizer = MAKERS[request.param]([{"params": [net.weight]}, {"params": [net.bias], "lr": 0.2}])
    schedule = StepLR(optimizer, 2)
    train(net, optimizer, schedule)
    return net, optimizer, schedule


def train(net, optimizer, schedule, steps=3):
    for _ in range(steps):
        backward(optimizer.parameters, schedule.last_epoch)
        optimizer.step()
        schedule.step()


def values(net):
    return [p.data.copy() for p in net.parameters()]


def assert_equal(arrays, others):
    for one, other in zip(arrays, others, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_a_copy_continues_as_the_original_does(trained, way, order):
    copied = COPIES[way](tuple(trained[i] for i in order))
    copied = tuple(copied[order.index(i)] for i in range(3))
    before = values(trained[0])
    train(*copied)
    assert_equal(values(trained[0]), before)
    assert any((one != other).any() for one, other in zip(values(copied[0]), before, strict=True))
    train(*trained)
    assert_equal(values(copied[0]), values(trained[0]))
    assert copied[2].get_last_lr() == trained[2].get_last_lr()


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_is_packed_and_has_the_gradients(trained, way):
    net, optimizer, _ = trained
    backward(net.parameters())
    twin, copied = COPIES[way]((net, optimizer))
    ((flat, members),) = copied.flat_gradients
    assert all(p is q for p, q in zip(members, twin.parameters(), strict=True))
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert q.data.base is twin.weight.data.base and q.grad is q.grad_buffer and q.grad.base is flat
        np.testing.assert_array_equal(q.grad, p.grad)
    optimizer.step(), copied.step()
    assert_equal(values(twin), values(net))


def test_a_shallow_copy_shares_everything(trained):
    net, optimizer, schedule = trained
    before = values(net)
    train(net, copy.copy(optimizer), schedule)
    assert all((one != other).all() for one, other in zip(values(net), before, strict=True))
    train(net, optimizer, schedule)


def test_a_loaded_state_continues_the_same_training(trained):
    """The state is pickled, and loaded into another network and optimiser."""
    net, optimizer, schedule = trained
    states = pickle.loads(pickle.dumps([part.state_dict() for part in trained]))
    other = nn.Linear(3, 2).to(dtype=np.float64)
    resumed = type(optimizer)([{"params": [other.weight]}, {"params": [other.bias]}], lr=7.0)
    there = other, resumed, StepLR(resumed, 2)
    for part, state in zip(there, states, strict=True):
        part.load_state_dict(state)
    train(*there), train(*trained)
    assert_equal(values(other), values(net))
    assert resumed.param_groups[1]["initial_lr"] == 0.2 and there[2].get_last_lr() == schedule.get_last_lr()


def test_the_state_has_pytorchs_form():
    optimizer = SGD([{"params": parameters((2, 3), (4,))}, {"params": parameters((5,)), "lr": 0.2}], 0.1, 0.9)
    state = optimizer.state_dict()
    assert [group["params"] for group in state["param_groups"]] == [[0, 1], [2]]
    assert [group["lr"] for group in state["param_groups"]] == [0.1, 0.2]
    assert {i: one["momentum_buffer"].shape for i, one in state["state"].items()} == {0: (2, 3), 1: (4,), 2: (5,)}
    assert {name: a.shape for name, a in Adam(parameters((2, 3))).state_dict()["state"][0].items()} == {
        "exp_avg": (2, 3),
        "exp_avg_sq": (2, 3),
        "step": (),
    }


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("state"), "load_state_dict takes a state of SGD.state_dict"),
        (lambda s: s["state"].pop(1), "missing momentum_buffer of parameter 1"),
        (lambda s: s["state"].update({"1": s["state"].pop(1)}), "missing momentum_buffer of parameter 1; unexpected .*'1'"),
        (lambda s: s["state"][1].update(exp_avg=np.ones(2)), "unexpected exp_avg of parameter 1"),
        (lambda s: s["state"][1].update(momentum_buffer=np.ones(3)), r"parameter 1 is \(3,\), not \(2,\)"),
        (lambda s: s["state"][1].update(momentum_buffer=["a", "b"]), r"parameter 1 is <U1, not \(2,\)"),
        (lambda s: s["param_groups"].pop(), "missing lr of group 1"),
        (lambda s: s["param_groups"][1].pop("momentum"), "missing momentum of group 1"),
        (lambda s: s["param_groups"][1].update(betas=(0.9, 0.999)), "unexpected betas of group 1"),
        (lambda s: s["param_groups"][1].update(params=[0]), r"params of group 1 is \[0\], not \[1\]"),
        (lambda s: s["param_groups"][1].update(lr=-1), "lr of at least 0; got -1"),
        (lambda s: s["param_groups"][1].update(initial_lr="x"), "initial_lr of at least 0; got 'x'"),
        (lambda s: s["param_groups"][1].update(nesterov=1), "nesterov of True or False; got 1"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    optimizer = SGD([{"params": parameters((3,))}, {"params": parameters((2,))}], 0.1, 0.9)
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][0]["momentum_buffer"] += 1
    state["param_groups"][0]["lr"] = 5.0
    change(state)
    with pytest.raises(ValueError, match=message) as error:
        optimizer.load_state_dict(state)
    assert "\n" not in str(error.value)
    assert optimizer.param_groups[0]["lr"] == 0.1 and not optimizer.momentum_buffers[0].any()


def test_a_loaded_plateau_continues():
    errors = [5, 5, 5, 4, 4, 4, 4, 4]

    def plateau():
        return ReduceLROnPlateau(SGD(parameters((1,)), 1.0), patience=1, cooldown=1)

    whole, first, second = plateau(), plateau(), plateau()
    for error in errors:
        whole.step(error)
    for error in errors[:5]:
        first.step(error)
    second.load_state_dict(first.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    for error in errors[5:]:
        second.step(error)
    assert second.get_last_lr() == whole.get_last_lr() and second.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    "make_schedule, change, message",
    [
        (lambda o: StepLR(o, 2), lambda s: s.pop("last_epoch"), "StepLR takes a state with last_epoch, base_lrs; got"),
        (lambda o: StepLR(o, 2), lambda s: s.update(best=1), "StepLR takes a state with last_epoch, base_lrs; got"),
        (lambda o: StepLR(o, 2), lambda s: s.update(last_epoch=-1), "last_epoch of at least 0; got -1"),
        (lambda o: StepLR(o, 2), lambda s: s.update(base_lrs=[1.0, 2.0]), r"base_lrs for 1 groups; got \[1.0, 2.0\]"),
        (lambda o: StepLR(o, 2), lambda s: s.update(base_lrs=["x"]), r"base_lrs for 1 groups; got \['x'\]"),
        (lambda o: OneCycleLR(o, 1.0, 9), lambda s: s.update(last_epoch=10), "made for 9 steps"),
        (ReduceLROnPlateau, lambda s: s.update(best="x"), "ReduceLROnPlateau takes a best that is a number"),
        (ReduceLROnPlateau, lambda s: s.update(num_bad_epochs=0.5), "counts of at least 0"),
    ],
)
def test_a_state_that_does_not_fit_a_schedule_changes_nothing(make_schedule, change, message):
    schedule = make_schedule(SGD(parameters((1,)), 1.0))
    before, rates = schedule.state_dict(), schedule.get_last_lr()
    state = before | ({"base_lrs": [9.0]} if "base_lrs" in before else {"cooldown_counter": 9})
    change(state)
    with pytest.raises(ValueError, match=message):
        schedule.load_state_dict(state)
    assert schedule.state_dict() == before and schedule.get_last_lr() == rates


def test_a_schedule_made_after_one_cycle_starts_at_its_initial_rate():
    optimizer = SGD(parameters((1,)), 7.0)
    one_cycle = OneCycleLR(optimizer, max_lr=1.0, total_steps=10)
    assert one_cycle.max_lrs == [1.0] and one_cycle.base_lrs == [1 / 25]
    np.testing.assert_allclose(rates(StepLR(optimizer, 1), 2), [1 / 25, 1 / 250])


def test_a_gradient_of_another_shape_is_refused():
    p = Tensor(np.ones((3, 2)), requires_grad=True)
    optimizer = SGD([p], 0.1)
    p.grad = np.ones(2)
    with pytest.raises(ValueError, match=r"a parameter of shape \(3, 2\) has a gradient of shape \(2,\)"):
        optimizer.step()
    with pytest.raises(ValueError, match="set_to_none=True only"):
        optimizer.zero_grad(set_to_none=False)
    with pytest.raises(TypeError, match="SGD takes no argument learning_rate"):
        SGD([p], 0.1, learning_rate=0.1)
