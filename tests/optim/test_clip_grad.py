"""clip_grad_norm_: gradients are scaled to a maximum norm."""

import math

import numpy as np
import pytest

from minidl import Tensor
from minidl.backend import to_device
from minidl.optim import SGD, clip_grad_norm_

from ..helpers.compare import assert_allclose, assert_array_equal, host


def tensors(device, *grads, dtype=np.float64):
    """A tensor for each gradient; None means no gradient."""
    made = [Tensor(to_device(np.ones(2, dtype), device), requires_grad=True) for _ in grads]
    for tensor, grad in zip(made, grads, strict=True):
        tensor.grad = None if grad is None else to_device(np.array(grad, dtype), device)
    return made


def test_only_gradients_above_the_norm_are_scaled(device):
    params = tensors(device, [3.0, 0.0], None, [0.0, 4.0])
    norm = clip_grad_norm_(iter(params), 2.5)
    assert_allclose(norm, 5.0)
    assert_allclose(params[0].grad, [1.5, 0], rtol=1e-6)
    assert_allclose(params[2].grad, [0, 2], rtol=1e-6)
    assert params[1].grad is None
    before = [host(p.grad).copy() for p in params[::2]]
    assert float(clip_grad_norm_(params, 2.6)) == pytest.approx(2.5, rel=1e-6)
    for p, grad in zip(params[::2], before, strict=True):
        assert_array_equal(p.grad, grad)


@pytest.mark.parametrize("norm_type, expected", [(1.0, 7.0), (math.inf, 4.0), (3.0, 91 ** (1 / 3))])
def test_norms_other_than_the_2_norm(device, norm_type, expected):
    params = tensors(device, [3.0, 0.0], [0.0, -4.0])
    assert_allclose(clip_grad_norm_(params, 1.0, norm_type), expected)
    assert_allclose(params[1].grad, [0, -4 / expected], rtol=1e-6)


def test_the_flat_buffer_is_scaled():
    (p,) = tensors("numpy", None)
    optimizer = SGD([p], 1.0)
    (p * Tensor(np.array([3.0, 4.0]))).sum().backward()
    clip_grad_norm_(p, 0.5)
    assert p.grad is p.grad_buffer
    optimizer.step()
    np.testing.assert_allclose(p.data, [0.7, 0.6], rtol=1e-6)


def test_float32_stays_float32(device):
    (p,) = tensors(device, [3.0, 4.0], dtype=np.float32)
    assert clip_grad_norm_(p, 1.0).dtype == p.grad.dtype == np.float32


def test_the_norm_of_no_gradients_is_0():
    assert clip_grad_norm_(tensors("numpy", None), 1.0) == clip_grad_norm_([], 1.0) == 0


def test_a_norm_that_is_not_finite_is_an_error_if_requested(device):
    (p,) = tensors(device, [np.nan, 1.0])
    with pytest.raises(RuntimeError, match="the norm of the gradients is nan"):
        clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    assert_array_equal(p.grad, [np.nan, 1])
    assert math.isnan(float(clip_grad_norm_(p, 1.0)))
    assert np.isnan(host(p.grad)).all()


@pytest.mark.parametrize("arguments", [(-1.0,), (math.nan,), (1.0, 0.0)])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="max_norm of at least 0 and a norm_type above 0; got"):
        clip_grad_norm_(tensors("numpy", [1.0, 1.0]), *arguments)


def test_float16_gradients_are_summed_in_float32():
    p = Tensor(np.zeros(4, np.float16), requires_grad=True)
    p.grad = np.full(4, 200, np.float16)
    norm = clip_grad_norm_([p], 1.0)
    assert float(norm) == 400 and p.grad.dtype == np.float16
    np.testing.assert_allclose(p.grad, 0.5, rtol=1e-3)
