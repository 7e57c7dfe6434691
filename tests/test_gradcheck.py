"""The checker itself: it must find what is wrong."""

import numpy as np
import pytest

import minidl.functional as F
from minidl import Function, GradientError, Tensor, gradcheck, nn, random
from minidl.backend import to_device
from minidl.optim import SGD

from .compare import assert_array_equal


class Square(Function):
    """x^2, with a gradient that a test may spoil."""

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


def test_elements_say_where():
    x = Tensor(np.linspace(1, 2, 8), requires_grad=True)
    with pytest.raises(GradientError) as error:
        gradcheck(lambda x: Square(one_element)(x), [x], mode="elements")
    wrong = [line for line in str(error.value).splitlines() if "WRONG" in line]
    assert len(wrong) == 1 and "at (5,)" in wrong[0]
    assert "1 of 8 comparisons are wrong" in str(error.value)


def test_the_report_is_returned_and_printed(make, capsys):
    report = gradcheck(lambda x: Square()(x), [make(2)], verbose=True)
    assert capsys.readouterr().out == report + "\n"
    assert report.count("ok") == 3 and "WRONG" not in report


def test_only_inputs_that_require_a_gradient_are_checked(make, device):
    fixed = Tensor(to_device(np.ones((2, 3), np.float32), device))
    report = gradcheck(lambda x, w: F.linear(x, w), [fixed, make(4, 3)])
    assert "1 along" in report and "0 along" not in report


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


def test_values_that_are_not_finite_are_said(make):
    with np.errstate(divide="ignore", invalid="ignore"), pytest.raises(ValueError, match="values are finite"):
        gradcheck(lambda x: x / 0, [make(2)])


def test_an_input_that_has_no_part_in_the_result(make):
    assert "ok" in gradcheck(lambda a, b: a * 2, [make(2), make(2)])


@pytest.mark.parametrize(
    "inputs, options, message",
    [
        ([Tensor(np.ones(2))], {}, "an input with requires_grad"),
        ([Tensor(np.ones(2, np.float32), True)], {}, "needs float64 inputs; input 0 is float32"),
        ([Tensor(np.ones(2), True)], {"mode": "all"}, "got 'all'"),
    ],
)
def test_what_cannot_be_checked_is_said(inputs, options, message):
    with pytest.raises(ValueError, match=message):
        gradcheck(lambda x: x * 2, inputs, **options)


def test_a_function_that_changes_is_refused(make):
    random.manual_seed(0)
    with pytest.raises(ValueError, match="this one changes"):
        gradcheck(lambda x: F.dropout(x), [make(5, 5)])
