"""Activations and gradients are batch-last in memory without copies. A silent copy would only cost time."""

import numpy as np
import pytest

import alexnet
import minidl.functional as F
from minidl import Function, Tensor
from minidl.kernels.layout import from_batch_last, to_batch_last
from minidl.optim import SGD


def is_batch_last(array):
    return array.transpose(*range(1, array.ndim), 0).flags.c_contiguous


@pytest.fixture
def copies(monkeypatch):
    """The shapes of the arrays that np.ascontiguousarray copied; to_batch_last calls it."""
    original, shapes = np.ascontiguousarray, []

    def watched(array, *arguments):
        result = original(array, *arguments)
        if array.size and not np.shares_memory(array, result):
            shapes.append(array.shape)
        return result

    monkeypatch.setattr(np, "ascontiguousarray", watched)
    return shapes


@pytest.mark.parametrize(
    "name, size", [("cifar-bn", 32), ("cifar-lrn", 32), ("alexnet-2012", 224), ("net-145", 224), ("alexnet-torchvision", 63)]
)
def test_a_training_step_is_batch_last_without_copies(name, size, copies, monkeypatch):
    net = alexnet.create(name, 10)
    optimizer = SGD(net.parameters(), 0.01, 0.9)
    wrong, gradients = [], 0

    def watch(name):
        def hook(module, args, y):
            if not is_batch_last(y.data):
                wrong.append(f"output of {name}")
            if name == "flatten" and not np.shares_memory(args[0].data, y.data):
                wrong.append("flatten copies")

        return hook

    for layer, module in net.named_modules():
        if layer:
            module.register_forward_hook(watch(layer))
    original = Function.input_gradients

    def checked(function, grad):
        nonlocal gradients
        result = original(function, grad)
        activation = function.needs_grad[0] and function.inputs[0].ndim > 1
        if activation:
            gradients += 1
            if not is_batch_last(result[0]):
                wrong.append(f"gradient by {type(function).__name__} of its input {result[0].shape}")
        return result

    monkeypatch.setattr(Function, "input_gradients", checked)
    images = from_batch_last(np.random.default_rng(0).standard_normal((3, size, size, 6)).astype(np.float32))
    loss = F.cross_entropy(net(Tensor(images)), np.arange(6))
    loss.backward()
    optimizer.step()
    assert not wrong
    assert not copies, f"copied to batch-last: {copies}"
    assert gradients > 20
    assert all(p.data.flags.c_contiguous and p.grad.flags.c_contiguous for p in net.parameters())


def test_images_in_another_layout_are_copied_once(copies):
    net = alexnet.create("cifar-lrn", 10)
    net(Tensor(np.zeros((2, 3, 32, 32), np.float32)))
    assert copies == [(3, 32, 32, 2)]


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 4, 5), (2, 3, 4, 5)])
def test_the_two_helpers_are_inverse(shape):
    x = np.arange(float(np.prod(shape))).reshape(shape)
    there = to_batch_last(x)
    assert there.flags.c_contiguous and there.shape == (*shape[1:], shape[0])
    back = from_batch_last(there)
    np.testing.assert_array_equal(back, x)
    assert np.shares_memory(back, there) and np.shares_memory(to_batch_last(back), there)


def test_the_two_helpers_return_a_single_number_as_it_is():
    x = np.array(3.0)
    assert to_batch_last(x) is x and from_batch_last(x) is x


def test_a_kept_output_is_unchanged_five_steps_later():
    """Later steps do not overwrite it: no output is in scratch memory."""
    net = alexnet.create("cifar-bn", 10)
    optimizer = SGD(net.parameters(), 0.01, 0.9)
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(6):
        logits = net(Tensor(rng.standard_normal((4, 3, 32, 32)).astype(np.float32)))
        optimizer.zero_grad()
        F.cross_entropy(logits, np.arange(4)).backward()
        optimizer.step()
        kept.append((logits.data, logits.data.copy()))
    for output, value in kept:
        np.testing.assert_array_equal(output, value)
