"""gradcheck itself: it must find wrong gradients."""

import numpy as np
import pytest

import minidl.functional as F
from minidl import Function, GradientError, Tensor, gradcheck, nn, random
from minidl.backend import to_device
from minidl.optim import SGD

from ..helpers.compare import assert_array_equal


class Square(Function):
    """x^2, with a gradient that a test can make wrong."""

    def __init__(self, spoil=lambda gradient: gradient):
        self.spoil = spoil

    def forward(self, x):
        self.x = x
        return x * x

    def backward(self, grad):
        return self.spoil(2 * self.x * grad)


def one_element(gradient):
    gradient = gradient.copy()
    gradient.flat[5] *= 1.001
    return gradient


def one_infinite(gradient):
    gradient = gradient.copy()
    gradient.flat[5] = np.inf
    return gradient


@pytest.mark.parametrize("mode", ["directions", "elements"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda g: g / 2,
        lambda g: g + 1e-4,
        lambda g: g.T,
        lambda g: 0 * g,
        lambda g: g * np.nan,
        one_infinite,
        one_element,
    ],
)
def test_a_wrong_backward_is_found(make, mode, spoil):
    with pytest.raises(GradientError, match="WRONG"):
        gradcheck(lambda x: Square(spoil)(x), [make(4, 4)], mode=mode)


def test_in_mode_elements_the_report_says_which_element_is_wrong():
    x = Tensor(np.linspace(1, 2, 8), requires_grad=True)
    with pytest.raises(GradientError) as error:
        gradcheck(lambda x: Square(one_element)(x), [x], mode="elements")
    wrong = [line for line in str(error.value).splitlines() if "WRONG" in line]
    assert len(wrong) == 1 and "at (5,)" in wrong[0]
    assert "1 of 8 comparisons are wrong" in str(error.value)


def test_the_report_is_returned_and_printed(make, capsys):
    report = gradcheck(lambda x: Square()(x), [make(2)], verbose=True)
    assert capsys.readouterr().out == report + "\n"
    assert report.count("ok") == 2 and "WRONG" not in report


def test_only_inputs_that_require_a_gradient_are_checked(make, device):
    fixed = Tensor(to_device(np.ones((2, 3)), device))
    report = gradcheck(lambda x, w: F.linear(x, w), [fixed, make(4, 3)])
    assert report.count("input 1 at") == 12 and "input 0" not in report


def test_the_inputs_are_left_as_they_were(make):
    x = make(3)
    value, x.grad = x.data.copy(), np.full(3, 7.0)
    gradcheck(lambda x: Square()(x), [x])
    assert_array_equal(x.data, value)
    assert_array_equal(x.grad, [7, 7, 7])


def test_a_packed_parameter_keeps_its_gradient():
    p = nn.Parameter(np.ones(3))
    SGD([p], 0.1)
    (p * 4).sum().backward()
    gradcheck(lambda p: Square()(p), [p])
    assert_array_equal(p.grad, [4, 4, 4])
    assert p.grad is p.grad_buffer


def test_a_function_that_fails_leaves_the_inputs_as_they_were():
    p = nn.Parameter(np.ones(3))
    SGD([p], 0.1)
    (p * 4).sum().backward()
    with pytest.raises(ZeroDivisionError):
        gradcheck(lambda p: 1 // 0, [p])
    assert p.grad is p.grad_buffer and list(p.grad) == [4, 4, 4]


def test_values_that_are_not_finite_are_refused(make):
    with (
        np.errstate(divide="ignore", invalid="ignore"),
        pytest.raises(ValueError, match="finite values; this one returned NaN or infinite values"),
    ):
        gradcheck(lambda x: x / 0, [make(2)])


def test_an_input_without_effect_on_the_result_passes(make):
    assert "ok" in gradcheck(lambda a, b: a * 2, [make(2), make(2)])


@pytest.mark.parametrize(
    "inputs, options, message",
    [
        ([Tensor(np.ones(2))], {}, "an input with requires_grad"),
        ([Tensor(np.ones(2, np.float32), True)], {}, "needs float64; input 0 is float32"),
        ([Tensor(np.ones(2), True)], {"mode": "all"}, "got 'all'"),
    ],
)
def test_unsuitable_inputs_and_modes_are_refused(inputs, options, message):
    with pytest.raises(ValueError, match=message):
        gradcheck(lambda x: x * 2, inputs, **options)


def test_a_function_that_changes_is_refused(make):
    random.manual_seed(0)
    with pytest.raises(ValueError, match="the same values for the same inputs; this one does not"):
        gradcheck(lambda x: F.dropout(x), [make(5, 5)])


@pytest.mark.parametrize("wrong", [lambda g: -g, lambda g: 0 * g])
def test_slopes_below_the_tolerance_are_an_error(wrong):
    x = Tensor(np.linspace(1, 2, 8), requires_grad=True)
    tiny = lambda x: Square(wrong)(x) * 1e-8
    with pytest.raises(ValueError, match="all derivatives are below atol = 1e-07"):
        gradcheck(tiny, [x])
    with pytest.raises(GradientError):
        gradcheck(tiny, [x], atol=1e-12)


@pytest.mark.parametrize("spoil", [lambda g, i: g[i] * 1.5, lambda g, i: g[i] + 1e-5])
def test_a_single_wrong_element_of_2000_is_found_by_default(spoil):
    def one(gradient):
        gradient = gradient.copy()
        gradient[1234] = spoil(gradient, 1234)
        return gradient

    x = Tensor(np.linspace(1, 2, 2000), requires_grad=True)
    gradcheck(lambda x: Square()(x), [x])
    with pytest.raises(GradientError, match="1 of 2000 comparisons are wrong"):
        gradcheck(lambda x: Square(one)(x), [x])


def test_more_elements_are_checked_along_directions():
    x = Tensor(np.linspace(1, 2, 2001), requires_grad=True)
    assert gradcheck(lambda x: Square()(x), [x]).count("along direction") == 3


def test_a_function_that_differs_under_no_grad_is_refused():
    class Two(Square):
        def forward(self, x):
            return super().forward(x) + (0 if self.needs_grad[0] else 1)

    with pytest.raises(ValueError, match="the same values under no_grad; this one does not"):
        gradcheck(lambda x: Two()(x), [Tensor(np.ones(2), requires_grad=True)])


@pytest.mark.parametrize("mode", ["directions", "elements"])
def test_the_step_is_proportional_to_the_inputs(mode):
    """With a step of 1e-6, values of 1e12 would differ only by rounding."""
    x = Tensor(np.linspace(1e6, 2e6, 8), requires_grad=True)
    gradcheck(lambda x: Square()(x), [x], mode=mode)
    with pytest.raises(GradientError):
        gradcheck(lambda x: Square(lambda g: g * 1.001)(x), [x], mode=mode)


def test_a_network_is_checked_with_its_parameters_and_left_as_it_was():
    random.manual_seed(0)
    layers = {"conv": nn.Conv2d(1, 2, 3), "bn": nn.BatchNorm2d(2), "tanh": nn.Tanh(), "flatten": nn.Flatten()}
    net = nn.Sequential(layers | {"fc": nn.Linear(8, 2)}).to(dtype="float64")
    state = {name: array.copy() for name, array in net.state_dict().items()}
    x = Tensor(np.random.default_rng(0).standard_normal((3, 1, 4, 4)), requires_grad=True)
    report = gradcheck(net, [x])
    for name in ("input 0", "conv.weight", "conv.bias", "bn.weight", "bn.bias", "fc.weight", "fc.bias"):
        assert f"{name} at" in report
    assert x.grad is None and all(p.grad is None for p in net.parameters())
    for name, array in net.state_dict().items():
        assert_array_equal(array, state[name])
    net.fc.forward = lambda x: x @ Square(lambda g: g / 2)(net.fc.weight).transpose()
    with pytest.raises(GradientError, match="fc.weight at .* WRONG"):
        gradcheck(net, [Tensor(x.data)])


def test_a_change_through_detach_is_noticed_after_a_check():
    x = Tensor(np.ones(3), requires_grad=True)
    other = x.detach()
    gradcheck(lambda x: x * x, [x])
    y = (x * x).sum()
    other.data += 1
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_a_check_leaves_no_gradients_in_parameters_that_a_function_uses():
    net = nn.Linear(3, 2).to(dtype="float64")
    gradcheck(lambda x: net(x), [Tensor(np.ones((2, 3)), requires_grad=True)])
    assert net.weight.grad is None and net.bias.grad is None


def test_a_slope_that_is_too_small_is_not_reported_as_ok():
    a, b = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))
    report = gradcheck(lambda a, b: a * 2 + Square(lambda g: -g)(b) * 1e-8, [a, b])
    assert report.count("too small to tell") == 2 and report.count("ok") == 2


def test_an_input_may_be_a_single_tensor_or_an_array_and_the_output_is_a_tensor():
    x = Tensor(np.linspace(1, 2, 3), requires_grad=True)
    assert gradcheck(lambda x: Square()(x), x) == gradcheck(lambda x: Square()(x), [x])
    assert "input 1" not in gradcheck(lambda x, y: Square()(x) * y, [x, np.ones(3)])
    for wrong in (lambda x: None, lambda x: (x, x)):
        with pytest.raises(TypeError, match="a function that returns a Tensor; this one returned a (NoneType|tuple)"):
            gradcheck(wrong, [x])
