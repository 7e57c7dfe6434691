"""The nine steps: each program runs, its gradients are right, and the last has the structure of autodiff.py."""

import ast
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import minidl.functional as F
from minidl import Tensor, autodiff

ROOT = Path(__file__).parents[2]
STEPS = ROOT / "docs/steps"
NAMES = [f"step{i}" for i in range(1, 10)]


@pytest.fixture
def step(monkeypatch):
    """step(name) imports the module of a step."""
    monkeypatch.syspath_prepend(STEPS)
    return __import__


@pytest.mark.parametrize("name", NAMES)
def test_each_step_runs_and_prints_something(name):
    command, environment = [sys.executable, STEPS / f"{name}.py"], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout and not done.stderr


def test_every_step_has_a_page_that_links_to_the_next():
    index = (STEPS / "index.md").read_text(encoding="utf-8")
    for name, following in zip(NAMES, [*NAMES[1:], None], strict=True):
        page = (STEPS / f"{name}.md").read_text(encoding="utf-8")
        assert f"({name}.md)" in index and f"<!-- code: {name}." in page
        assert following is None or f"({following}.md)" in page


def test_gradients_of_a_number_used_twice_add_up_from_step_3_on(step):
    for name, right in (("step2", False), ("step3", True)):
        Number = step(name).Number
        a, b = Number(2.0), Number(-3.0)
        (a * b + a * a).backward()
        assert (a.grad == 1.0) is right


def test_the_gradients_of_step_4_are_right(step):
    Numbers, draws = step("step4").Tensor, np.random.default_rng(0)
    arrays = [draws.standard_normal(shape) for shape in ((5, 4), (4, 3), (1, 3), (3,))]
    theirs = [Numbers(array) for array in arrays]
    ours = [Tensor(array, requires_grad=True) for array in arrays]
    for x, w, scale, b in (theirs, ours):
        ((x @ w * scale + b) * (x @ w)).sum().backward()
    for their, our in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(their.grad, our.grad, rtol=1e-12)


def test_the_check_of_step_5_finds_a_wrong_backward(step):
    """A backward that omits a factor has a larger error than a right one."""
    step5 = step("step5")

    class Forgetful(step5.Mean):
        def backward(self, grad):
            return (np.full(self.shape, grad),)

    x = np.random.default_rng(0).standard_normal((3, 2))
    assert step5.check(step5.Mean(), x) < 1e-9 < 0.1 < step5.check(lambda x: Forgetful()(x), x)


@pytest.mark.parametrize("name", ["step6", "step9"])
def test_backward_frees_the_graph_step_by_step(step, name):
    module = step(name)
    arrays = []

    class Double(module.Function):
        def forward(self, x):
            y = 2 * x
            arrays.append(weakref.ref(y))
            return y

        def backward(self, grad):
            alive.append(sum(array() is not None for array in arrays))
            return (2 * grad,)

    alive = []
    x = module.Tensor(np.ones(3), requires_grad=True)
    y = x
    for _ in range(4):
        y = Double()(y)
    out = module.Sum()(y)
    del y
    out.backward()
    assert alive == [4, 3, 2, 1], "the array of a finished function is not freed"
    assert x.grad.tolist() == [16.0] * 3
    with pytest.raises(RuntimeError, match="freed"):
        out.backward()
    with module.no_grad():
        assert Double()(x).creator is None


def test_the_gradients_of_steps_7_and_8_are_right(step):
    """Compared with minidl's layers, with the same weights."""
    step8, draws = step("step8"), np.random.default_rng(0)
    images, labels = draws.standard_normal((6, 1, 8, 8)), draws.integers(0, 10, 6)
    network = step8.small_alexnet(draws)
    x = step("step6").Tensor(images, requires_grad=True)
    step("step7").CrossEntropy(labels)(network(x)).backward()

    theirs = list(network.parameters())
    w1, b1, w2, b2, w3, b3 = ours = [Tensor(parameter.data.copy(), requires_grad=True) for parameter in theirs]
    own = Tensor(images, requires_grad=True)
    y = F.max_pool2d(F.relu(F.conv2d(own, w1, b1, padding=1)), 3, 2)
    y = F.relu(F.conv2d(y, w2, b2, padding=1)).reshape(6, -1)
    F.cross_entropy(F.linear(y, w3, b3), labels).backward()
    for their, our in zip([x, *theirs], [own, *ours], strict=True):
        np.testing.assert_allclose(their.grad, our.grad, rtol=1e-9, atol=1e-12)


def test_the_last_step_has_the_structure_of_autodiff():
    """The same classes and functions, in the same order."""

    def shape(path):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        names = []
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names.append(node.name)
            if isinstance(node, ast.AnnAssign | ast.Assign):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                names.append(target.id)
        return names

    real = shape(Path(autodiff.__file__))
    last = shape(STEPS / "step9.py")
    assert [name for name in last if name in real] == [name for name in real if name != "F"]


def test_the_last_step_runs_on_every_device(step, device):
    """step9 itself, on NumPy and on CuPy."""
    step9 = step("step9")
    data = np.linspace(-2, 2, 7).astype("float32")
    x = step9.Tensor(step9.to_device(data, device.partition(":")[0]), requires_grad=True)
    step9.Sum()(step9.Sigmoid()(x)).backward()
    assert type(x.grad) is type(x.data)
    y = 1 / (1 + np.exp(-data))
    np.testing.assert_allclose(step9.to_device(x.grad, "numpy"), y * (1 - y), rtol=1e-5)
