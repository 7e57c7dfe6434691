"""The arguments of functions: lists and arrays, dtypes, positions, axes. Each error is one line that names the value."""

import inspect

import numpy as np
import pytest

import minidl.functional as F
from minidl import Tensor, nn, random, use_kernels

T = lambda *shape: Tensor(np.ones(shape))
ONES = lambda *shape: np.ones(shape, np.float32)

# For each function: its tensors and its other arguments.
CALLS = {
    "adaptive_avg_pool2d": ([ONES(1, 2, 4, 4)], (2,)),
    "avg_pool2d": ([ONES(1, 2, 4, 4)], (2,)),
    "batch_norm": ([ONES(2, 3), ONES(3), ONES(3), ONES(3), ONES(3)], ()),
    "cat": ([ONES(2, 3), ONES(1, 3)], None),
    "conv2d": ([ONES(1, 2, 4, 4), ONES(3, 2, 3, 3), ONES(3)], ()),
    "cross_entropy": ([ONES(2, 3), np.array([0, 2])], ()),
    "dropout": ([ONES(2, 3)], (1.0,)),
    "flatten": ([ONES(1, 2, 4, 4)], ()),
    "linear": ([ONES(2, 3), ONES(4, 3), ONES(4)], ()),
    "local_response_norm": ([ONES(1, 2, 4, 4)], (3,)),
    "log_softmax": ([ONES(2, 3)], ()),
    "max_pool2d": ([ONES(1, 2, 4, 4)], (2,)),
    "mse_loss": ([ONES(2, 3), ONES(2, 3)], ()),
    "pad": ([ONES(1, 2, 4, 4)], ((1, 1, 1, 1),)),
    "relu": ([ONES(2, 3)], ()),
    "sigmoid": ([ONES(2, 3)], ()),
    "softmax": ([ONES(2, 3)], ()),
    "stack": ([ONES(2, 3), ONES(2, 3)], None),
    "tanh": ([ONES(2, 3)], ()),
}
FLOATING = sorted(set(CALLS) - {"cat", "stack", "flatten"})  # the others only move numbers


def call(name, tensors):
    function, others = getattr(F, name), CALLS[name][1]
    return function(tensors) if others is None else function(*tensors, *others)


@pytest.mark.parametrize("name", sorted(set(F.__all__) - {"convolution_algorithm"}))
def test_arrays_and_lists_are_accepted_as_tensors(name):
    arrays, _ = CALLS[name]  # add each new function there
    expected = call(name, [Tensor(a) for a in arrays])
    for given in (arrays, [a.tolist() for a in arrays]):
        y = call(name, given)
        assert isinstance(y, Tensor) and y.dtype == np.float32
        np.testing.assert_array_equal(y.data, expected.data)


@pytest.mark.parametrize("name", FLOATING)
def test_arguments_may_be_given_by_name(name):
    names = list(inspect.signature(getattr(F, name)).parameters)
    arrays, others = CALLS[name]
    arguments = dict(zip(names, [*arrays, *others], strict=False))
    np.testing.assert_array_equal(getattr(F, name)(**arguments).data, call(name, arrays).data)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "longdouble", ">f4"])
@pytest.mark.parametrize("name", FLOATING)
def test_only_native_floating_point_numbers_are_accepted(name, dtype):
    """An image of uint8 would silently overflow, or be divided in float64."""
    arrays, _ = CALLS[name]
    message = f"{name} takes float16, float32 or float64, but \\w+ is {np.dtype(dtype)}: convert the array"
    with pytest.raises(TypeError, match=message):
        call(name, [arrays[0].astype(dtype), *arrays[1:]])


@pytest.mark.parametrize("name", ["exp", "log"])
def test_methods_refuse_integers(name):
    """NumPy's exp of uint8 is float16, which overflows at exp(12)."""
    with pytest.raises(TypeError, match=f"{name} takes float16, float32 or float64, but x is uint8"):
        getattr(Tensor(np.full(2, 12, np.uint8)), name)()


@pytest.mark.parametrize("name", ["conv2d", "linear", "batch_norm", "mse_loss"])
def test_the_result_has_the_wider_of_two_dtypes(name):
    """As with the operators. Each gradient has the dtype of its tensor."""
    arrays, _ = CALLS[name]
    inputs = [Tensor(array.astype(dtype), True) for array, dtype in zip(arrays, ["f8", "f4", "f4"], strict=False)]
    y, expected = call(name, inputs), call(name, [Tensor(x.data.astype("f8")) for x in inputs])
    assert y.dtype == np.float64
    np.testing.assert_allclose(y.data, expected.data, rtol=1e-12)
    y.sum().backward()
    assert all(x.grad.dtype == x.dtype for x in inputs if x.grad is not None) and inputs[0].grad is not None


@pytest.mark.parametrize("name", FLOATING)
def test_none_is_refused_as_a_tensor(name):
    arrays, _ = CALLS[name]
    with pytest.raises(TypeError, match=f"{name} takes a tensor as (x|logits); got None"):
        call(name, [None, *arrays[1:]])
    first = next(iter(inspect.signature(getattr(F, name)).parameters))
    with pytest.raises(TypeError, match=f"{name}.. missing .*'{first}'"):
        getattr(F, name)()


@pytest.mark.parametrize("operation", ["x + None", "None - x", "x * None", "x / None", "x @ None", "None @ x"])
def test_none_is_refused_as_an_operand(operation):
    with pytest.raises(TypeError, match="unsupported operand type.* 'NoneType'"):
        eval(operation, {"x": T(2, 2)})


x4, w4 = T(1, 2, 4, 4), T(3, 2, 3, 3)
REFUSED = {
    "conv2d's dilation by position": (TypeError, lambda: F.conv2d(x4, w4, None, 1, 0, 1), "from 2 to 5 positional"),
    "max_pool2d's dilation by position": (TypeError, lambda: F.max_pool2d(x4, 2, 1, 0, 1), "from 2 to 4 positional"),
    "dropout's inplace by position": (TypeError, lambda: F.dropout(x4, 0.5, True, False), "from 1 to 3 positional"),
    "dilation": (ValueError, lambda: F.conv2d(x4, w4, dilation=2), r"conv2d takes dilation=\(1, 1\) only; got \(2, 2\)"),
    "dilation of a window": (ValueError, lambda: F.max_pool2d(x4, 2, dilation=(1, 2)), r"only; got \(1, 2\)"),
    "return_indices": (ValueError, lambda: F.max_pool2d(x4, 2, return_indices=True), "return_indices=False only; got True"),
    "weights of classes": (ValueError, lambda: F.cross_entropy(T(1, 2), [0], weight=np.ones(2)), r"weight=None only; got array"),
    "ignore_index": (ValueError, lambda: F.cross_entropy(T(1, 2), [0], ignore_index=0), "ignore_index=-100 only; got 0"),
    "a label of -100": (ValueError, lambda: F.cross_entropy(T(1, 2), [-100]), r"labels must lie in 0..1; found -100"),
    "no classes": (ValueError, lambda: F.cross_entropy(T(2, 0), [0, 0]), r"labels must lie in 0..-1"),
    "label_smoothing": (TypeError, lambda: F.cross_entropy(T(1, 2), [0], None), "label_smoothing must be a number; got None"),
    "groups": (ValueError, lambda: F.conv2d(x4, w4, groups=None), "conv2d takes groups, an integer of at least 1; got None"),
    "padding by a wrong name": (
        ValueError,
        lambda: F.conv2d(x4, w4, padding="full"),
        '"valid", or with stride 1 "same"; got .full',
    ),
    "same with a stride": (ValueError, lambda: F.conv2d(x4, w4, stride=2, padding="same"), r"got 'same', stride \(2, 2\)"),
    "no output channels": (ValueError, lambda: F.conv2d(x4, T(0, 2, 3, 3)), r"weight \(0, 2, 3, 3\)"),
    "no input channels": (ValueError, lambda: F.conv2d(T(1, 0, 4, 4), T(3, 0, 3, 3)), r"got x \(1, 0, 4, 4\)"),
    "no pixels": (ValueError, lambda: F.max_pool2d(T(1, 2, 0, 4), 2, 1, 1), r"at least one pixel; got \(1, 2, 0, 4\)"),
    "no pixels but padding": (ValueError, lambda: F.conv2d(T(1, 2, 0, 4), w4, padding=2), "conv2d takes images of at least one"),
    "softmax of no axis": (ValueError, lambda: F.softmax(T(2, 3), None), "takes an axis from -2 to 1; got None"),
    "softmax of two axes": (ValueError, lambda: F.softmax(T(2, 3), (0, 1)), r"takes an axis from -2 to 1; got \(0, 1\)"),
    "log_softmax beyond": (ValueError, lambda: F.log_softmax(T(2, 3), 7), r"log_softmax of x \(2, 3\) takes an axis .*; got 7"),
    "flatten beyond": (ValueError, lambda: F.flatten(T(2, 3), 7), r"flatten of x \(2, 3\) takes an axis from -2 to 1; got 7"),
    "flatten backwards": (ValueError, lambda: F.flatten(T(2, 3, 4), 2, 1), "in their order; got 2 and 1"),
    "flatten by half": (ValueError, lambda: F.flatten(T(2, 3), 0.5), "takes an axis from -2 to 1; got 0.5"),
    "transpose beyond": (ValueError, lambda: T(2, 3).transpose(0, 5), "axis 5 is out of bounds"),
    "transpose twice": (ValueError, lambda: T(2, 3).transpose(0, -2), "repeated axis"),
    "transpose two of three": (ValueError, lambda: T(2, 3, 4).transpose(0, 1), "axes don't match array"),
    "sum twice": (ValueError, lambda: T(2, 3).sum((0, -2)), "duplicate value in 'axis'"),
    "mean beyond": (ValueError, lambda: T(2, 3).mean(2), "axis 2 is out of bounds"),
    "max of nothing": (ValueError, lambda: T(0, 3).max(), "zero-size array"),
    "cat beyond": (ValueError, lambda: F.cat([T(2, 3)], 5), r"cat of x \(2, 3\) takes an axis from -2 to 1; got 5"),
    "cat of all axes": (ValueError, lambda: F.cat([T(2, 3)], None), "takes an axis from -2 to 1; got None"),
    "cat of numbers": (ValueError, lambda: F.cat([T(), T()]), "zero-dimensional arrays cannot be concatenated"),
    "cat of one tensor": (TypeError, lambda: F.cat(T(2, 3)), "cat takes a list of tensors; got Tensor"),
    "cat of None": (TypeError, lambda: F.cat(None), "cat takes a list of tensors; got NoneType"),
    "stack of nothing": (ValueError, lambda: F.stack([]), r"stack takes a list of at least one tensor; got \[\]"),
    "running statistics that cannot move": (
        *(TypeError, lambda: F.batch_norm(T(2, 3), [0.0] * 3, [1.0] * 3, training=True)),
        "updates running_mean, so it cannot be a list; give an array or a Tensor",
    ),
    "running statistics of integers": (
        *(TypeError, lambda: F.batch_norm(T(2, 3), np.zeros(3), np.ones(3, int))),
        "takes a running_var of floating-point numbers; got int64",
    ),
    "momentum": (TypeError, lambda: F.batch_norm(T(2, 3), training=True, momentum=None), "momentum must be a number; got None"),
    "eps": (ValueError, lambda: F.batch_norm(T(2, 3), training=True, eps=-1), "an eps of at least 0; got -1"),
    "LRN's alpha": (TypeError, lambda: F.local_response_norm(x4, 5, "1"), "alpha must be a number; got '1'"),
    "LRN's k": (TypeError, lambda: F.local_response_norm(x4, 5, k=None), "k must be a number; got None"),
    "dropout's p": (TypeError, lambda: F.dropout(x4, None), "p must be a number; got None"),
    "dropout's p, NaN": (ValueError, lambda: F.dropout(x4, np.nan), "between 0 and 1; got nan"),
    "a negative key": (ValueError, lambda: F.dropout(x4, key=-1), "a key, an integer from 0 to 16777215; got -1"),
    "a key with a fraction": (ValueError, lambda: F.dropout(x4, key=1.5), "a key, an integer from 0 .*; got 1.5"),
    "the shuffle's key": (ValueError, lambda: F.dropout(x4, key=random.SHUFFLE), "a key, an integer from 0 .*; got 16777216"),
    "reduction": (ValueError, lambda: F.mse_loss(T(2), T(2), False), '"mean", "sum" or "none"; got False'),
    "a power of an array": (TypeError, lambda: T(2) ** np.ones(2), "takes a number p, not ndarray"),
    "text": (TypeError, lambda: T(2) + "a", "real numbers or booleans; got .*'a'"),
    "complex numbers": (TypeError, lambda: T(2) * 1j, "real numbers or booleans; got .*complex128"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arguments_are_refused_with_one_line(name):
    kind, function, message = REFUSED[name]
    with pytest.raises(kind, match=message) as caught:
        function()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["fast", "reference"])
def test_batch_norm_updates_running_statistics_that_are_tensors(version):
    x = np.random.default_rng(0).standard_normal((4, 3, 2, 2))
    mean, var = Tensor(np.zeros(3)), Tensor(np.ones(3))
    arrays = np.zeros(3), np.ones(3)
    with use_kernels(version):
        F.batch_norm(x, mean, var, training=True, momentum=0.5)
        F.batch_norm(x, *arrays, training=True, momentum=0.5)
        np.testing.assert_array_equal([mean.data, var.data], arrays)
        np.testing.assert_allclose(mean.data, x.mean(axis=(0, 2, 3)) / 2)
        np.testing.assert_allclose(F.batch_norm(x, mean, var).data, F.batch_norm(x, *arrays).data)


@pytest.mark.parametrize("version", ["fast", "reference"])
def test_an_infinite_gradient_stays_alone_in_batch_norm_in_evaluation(version):
    x = Tensor(np.ones((2, 3, 2, 2)), requires_grad=True)
    grad = np.ones(x.shape)
    grad[0, 1, 0, 0] = np.inf
    with use_kernels(version):
        F.batch_norm(x, np.zeros(3), np.ones(3), eps=0.0).backward(grad)
    np.testing.assert_array_equal(x.grad, grad)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_an_infinite_weight_gives_infinite_gradients_in_batch_norm_in_evaluation():
    """They are not NaN, which infinity times 0 would give."""
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    F.batch_norm(x, np.zeros(3), np.ones(3), np.array([np.inf, 1.0, 1.0]), eps=0.0).backward(np.ones((2, 3)))
    np.testing.assert_array_equal(x.grad, [[np.inf, 1, 1]] * 2)


# --- reference kernels and fast kernels ----------------------------------------------------------------------------


def all_layers():
    random.manual_seed(0)
    first = [nn.Conv2d(3, 8, 5, padding="same"), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True)]
    second = [nn.Conv2d(8, 64, 3, 2, 1, groups=2), nn.LocalResponseNorm(4, 0.1), nn.Tanh(), nn.AvgPool2d(3, 1, 1)]
    third = [nn.Conv2d(64, 64, 3, padding=1), nn.Sigmoid(), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten()]  # uses Winograd
    return nn.Sequential(*first, *second, *third, nn.Dropout(0.3), nn.Linear(384, 12), nn.BatchNorm1d(12), nn.Linear(12, 5))


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-4)])
def test_a_net_of_all_layers_agrees_between_reference_and_fast_kernels(dtype, tolerance):
    """Compared: the loss, the gradients of the images and of all parameters, and the running statistics."""
    found = []
    for version in ("fast", "reference"):
        net = all_layers().to(dtype=dtype)
        x = Tensor(np.random.default_rng(0).standard_normal((6, 3, 22, 20)).astype(dtype), requires_grad=True)
        with use_kernels(version), random.context(seed=1, step=2):
            loss = F.cross_entropy(net(x), [0, 1, 2, 3, 4, 0], label_smoothing=0.1)
            loss.backward()
        found.append({"loss": loss.data, "images": x.grad, **net.state_dict()} | {n: p.grad for n, p in net.named_parameters()})
    fast, reference = found
    assert fast.keys() == reference.keys() and len(fast) > 14
    largest = max(np.abs(a).max() for name, a in reference.items() if "running" not in name)
    for name, array in fast.items():
        scale = max(largest, np.abs(reference[name]).max())
        np.testing.assert_allclose(array, reference[name], rtol=0, atol=tolerance * scale, err_msg=name)
