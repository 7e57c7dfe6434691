"""Adam: its update rule, and its differences from SGD."""

import ctypes
import os
from pathlib import Path

import numpy as np
import pytest

from minidl import Tensor
from minidl.backend import to_device, to_numpy, use_device
from minidl.kernels import numpy_kernels
from minidl.optim import Adam, clip_grad_norm_

from ..helpers.compare import assert_allclose, assert_array_equal
from .test_optim import backward, parameters


def test_the_update_rule(monkeypatch):
    """Kingma and Ba 2015, algorithm 1: the moments are corrected for bias before the update. It is done in chunks."""
    monkeypatch.setattr(numpy_kernels, "CHUNK_BYTES", 100)
    params = parameters((3, 4), (40,))
    weights = [p.data.copy() for p in params]
    first, second = ([np.zeros(p.shape) for p in params] for _ in range(2))
    optimizer = Adam(params, 0.1, (0.8, 0.9), 1e-3, 0.05)
    for t in range(1, 6):
        backward(params, t)
        optimizer.step()
        for w, m, v in zip(weights, first, second, strict=True):
            d = np.cos(w + t) + 0.05 * w
            m += 0.2 * (d - m)
            v += 0.1 * (d * d - v)
            w -= 0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)
    for p, w in zip(params, weights, strict=True):
        np.testing.assert_allclose(p.data, w, rtol=1e-12)


def test_the_first_step_is_as_large_as_the_learning_rate():
    """It does not depend on the size of the gradient."""
    (p,) = parameters((3,))
    before = p.data.copy()
    optimizer = Adam([p], 0.1)
    p.grad = np.array([1e-3, -5.0, 1e6])
    optimizer.step()
    np.testing.assert_allclose(p.data, before - 0.1 * np.sign(p.grad), rtol=1e-4)


def test_a_parameter_without_a_gradient_counts_no_step():
    one, two = parameters((3,), (3,))
    optimizer = Adam([one, two])
    for _ in range(2):
        optimizer.zero_grad()
        (one * 2).sum().backward()
        optimizer.step()
    assert [float(state["step"]) for state in optimizer.state_dict()["state"].values()] == [2, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_with_a_loss_that_is_not_finite_is_skipped(device, dtype):
    """The bias correction does not count it either: the weights equal those of a run without these steps."""

    def weights(losses):
        p = Tensor(to_device(np.linspace(-1, 1, 4).astype(dtype), device), requires_grad=True)
        optimizer = Adam([p], 0.1)
        for loss in losses:
            p.grad = to_device(np.full(4, np.clip(loss, -9, 9) if np.isfinite(loss) else 1e3, dtype), device)
            optimizer.step(to_device(np.array(loss, dtype), device))
        state = optimizer.state_dict()["state"][0]
        return p.data, state["exp_avg"], state["exp_avg_sq"], state["step"]

    for ours, expected in zip(weights([np.nan, 1, np.inf, -np.inf, 2, np.nan, 3]), weights([1, 2, 3]), strict=True):
        assert_array_equal(ours, to_numpy(expected))
    assert_allclose(weights([np.nan])[0], np.linspace(-1, 1, 4), rtol=1e-7)


def test_a_step_with_clipping_does_not_wait_for_the_gpu():
    if "SIMGPU_DEVICES" not in os.environ:
        pytest.skip("needs the simulator's count of waits")
    use_device("cupy")
    p = Tensor(to_device(np.ones(4), "cupy"), requires_grad=True)
    p.grad = p.data * 2
    optimizer, loss = Adam([p]), to_device(np.ones(1), "cupy")
    library = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libsimgpu" in line)
    waits = []
    for _ in range(3):
        clip_grad_norm_(p, 1.0)
        optimizer.step(loss)
        waits.append(ctypes.CDLL(library).simgpu_host_waits())
    assert waits[1] == waits[2], "the first may compile kernels"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(lr=-1), "Adam takes lr of at least 0; got -1"),
        (dict(eps=-1), "Adam takes eps of at least 0; got -1"),
        (dict(weight_decay=float("nan")), "Adam takes weight_decay of at least 0; got nan"),
        (dict(betas=0.9), "Adam takes betas, two numbers of at least 0 and below 1; got 0.9"),
        (dict(betas=(0.9,)), r"two numbers of at least 0 and below 1; got \(0.9,\)"),
        (dict(betas=(0.9, 1.0)), r"two numbers of at least 0 and below 1; got \(0.9, 1.0\)"),
        (dict(amsgrad=True), "Adam takes amsgrad=False only; got True"),
        (dict(maximize=True), "Adam takes maximize=False only; got True"),
        (dict(foreach=True), "Adam takes foreach=None only; got True"),
        (dict(capturable=True), "Adam takes capturable=False only; got True"),
        (dict(differentiable=True), "Adam takes differentiable=False only; got True"),
        (dict(fused=True), "Adam takes fused=None only; got True"),
        (dict(decoupled_weight_decay=True), "Adam takes decoupled_weight_decay=False only; got True"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    (p,) = parameters((3,))
    with pytest.raises(ValueError, match=message):
        Adam([p], **arguments)
    assert p.grad_buffer is None, "the parameter was packed although the arguments are wrong"
