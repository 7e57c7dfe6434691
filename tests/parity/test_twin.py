"""benchmarks/twin.py trains as train.py does: the same steps from the same weights, and the same augmentation."""

import argparse
import dataclasses
import errno
import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import alexnet
import minidl.functional as F
from alexnet import augment, builders, datasets
from alexnet.commands import train
from alexnet.datasets import Dataset, Split
from minidl import Tensor, nn, random
from minidl.optim import OneCycleLR

torch = pytest.importorskip("torch")
STEPS = 4
EVALUATION = {"test_loss": 7.0, "test_accuracy": 0.25, "test_accuracy_views": 0.5}
TOLD = set("epoch train_loss train_accuracy seconds test_loss test_accuracy test_accuracy_views".split())


@pytest.fixture
def twin(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import twin

    return twin


def without_dropout(network):
    for layer in network.modules():
        if isinstance(layer, nn.Dropout | torch.nn.Dropout):
            layer.p = 0.0
    return network


@pytest.mark.parametrize("model", ["cifar-bn", "cifar-lrn"])
def test_the_twin_makes_the_same_steps_from_the_same_weights(twin, model):
    config = train.config(argparse.Namespace(model=model))
    recipe = dataclasses.replace(config.recipe, bias_lr=2.0, bias_decay=False)
    random.manual_seed(0)
    ours = without_dropout(alexnet.create(model, 10).to(dtype="float64"))
    theirs = without_dropout(twin.network(model == "cifar-bn").double())
    names = list(theirs.state_dict())
    for name, array in zip(names, ours.state_dict().values(), strict=True):
        theirs.state_dict()[name].copy_(torch.tensor(np.array(array)))

    optimizer = builders.build_optimizer(dataclasses.replace(config, recipe=recipe), ours)
    schedule = OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups], STEPS)
    other = twin.optimizer_of(theirs, recipe)
    rates = [group["lr"] for group in other.param_groups]
    other_schedule = torch.optim.lr_scheduler.OneCycleLR(other, rates, STEPS, cycle_momentum=False)
    draws = np.random.default_rng(0)
    for _ in range(STEPS - 1):
        images, labels = draws.standard_normal((8, 3, 32, 32)), draws.integers(0, 10, 8)
        loss = F.cross_entropy(ours(Tensor(images)), labels, recipe.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        logits = theirs(torch.tensor(images).contiguous(memory_format=torch.channels_last))
        other_loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), label_smoothing=recipe.label_smoothing)
        other.zero_grad()
        other_loss.backward()
        other.step()
        other_schedule.step()
        assert loss.item() == pytest.approx(other_loss.item(), rel=1e-9)
    for name, array in zip(names, ours.state_dict().values(), strict=True):
        expected = theirs.state_dict()[name].numpy()
        np.testing.assert_allclose(array, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max() + 1e-15, err_msg=name)


def test_the_twin_starts_with_weights_of_the_same_deviation(twin):
    pairs = zip(alexnet.create("cifar-bn", 10).state_dict().items(), twin.network(True).state_dict().values(), strict=True)
    for (name, array), other in pairs:
        assert np.std(array) == pytest.approx(other.numpy().std(), rel=0.1, abs=1e-12), name
        assert np.mean(array) == pytest.approx(other.numpy().mean(), abs=0.02), name


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_the_twin_draws_from_the_same_crops_and_reflections(twin, mode):
    """In many draws the twin gives exactly the set of images that minidl can give."""
    recipe = dataclasses.replace(train.config(argparse.Namespace()).recipe, crop_padding=1, padding_mode=mode)
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32)).astype(np.float32)
    crop, flip = augment.RandomCrop(32, 1, 0, mode), augment.RandomHorizontalFlip(0)
    indices = np.arange(1000)
    many = np.repeat(image, 1000, axis=0)
    ours = {each.tobytes() for each in flip(crop(many, indices, 0), indices, 0)}
    assert len(ours) == 3 * 3 * 2
    theirs = twin.augmented(torch.tensor(many), torch.rand(1000) < 0.5, recipe)
    assert {each.tobytes() for each in theirs.contiguous().numpy()} == ours


def test_the_twin_averages_the_probabilities_of_both_views(twin):
    """An image counts as right if the mean of both views is right, even if one view is wrong."""
    bright = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))  # each pixel is a logit
    bright[1].weight.data = torch.eye(2)
    images = torch.tensor([[[[3.0, 1.0]]], [[[0.0, 2.0]]]])
    found = twin.evaluated(bright, images, torch.tensor([0, 0]), lambda view: view, 2)
    expected = torch.nn.functional.cross_entropy(images.reshape(2, 2), torch.tensor([0, 0])).item()
    assert found == {"test_loss": pytest.approx(expected), "test_accuracy": 0.5, "test_accuracy_views": 1.0}


@pytest.fixture
def images(monkeypatch):
    """40 random images in place of CIFAR-10."""
    draws = np.random.default_rng(0)
    split = Split(draws.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8), np.arange(40) % 10)
    monkeypatch.setattr(datasets, "load", lambda *_: Dataset("cifar10", tuple("abcdefghij"), split, split))


def test_the_twin_writes_its_epochs(twin, images, tmp_path, monkeypatch, capsys):
    options = ["--out", str(tmp_path / "out"), "--epochs", "2", "--limit-train", "30"]
    monkeypatch.setattr(sys, "argv", ["twin.py", *options])
    twin.main()
    settings = json.loads((tmp_path / "out/config.json").read_text())
    assert (settings["model"], settings["recipe"], settings["epochs"], settings["limit_train"]) == ("cifar-bn", "default", 2, 30)
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2] and set(rows[0]) == TOLD
    *_, line, last = capsys.readouterr().out.splitlines()
    assert line.startswith("epoch 2/2: ") and f"two views {rows[1]['test_accuracy_views']:.4f}" in line
    assert last == f"test loss: {rows[1]['test_loss']:.4f} - accuracy: {rows[1]['test_accuracy']:.4f}"
    monkeypatch.setattr(sys, "argv", ["twin.py", *options, "--seed", "1"])
    with pytest.raises(SystemExit):
        twin.main()
    assert "has a run with other settings; choose another folder" in capsys.readouterr().err


def test_a_stopped_twin_resumes_after_its_last_epoch(twin, images, tmp_path, monkeypatch):
    """Stopped in its second epoch, it has the same epochs as a whole run."""

    def train(name):
        monkeypatch.setattr(sys, "argv", ["twin.py", "--out", str(tmp_path / name), "--epochs", "3", "--limit-train", "30"])
        twin.main()
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) | {"seconds": 0} for line in lines]

    with monkeypatch.context() as patched:
        patched.setattr(twin, "evaluated", mock.Mock(side_effect=[EVALUATION, KeyboardInterrupt]))
        with pytest.raises(KeyboardInterrupt):
            train("stopped")
    stopped, whole = train("stopped"), train("whole")
    assert stopped[0] == whole[0] | EVALUATION and stopped[1:] == whole[1:] and len(whole) == 3


def test_a_twin_that_could_not_begin_begins_again(twin, images, tmp_path, monkeypatch, capsys):
    """After a full disk, the same command starts the run."""

    def full(path, text):
        path.write_bytes(text[:10].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "argv", ["twin.py", "--out", str(tmp_path / "out"), "--epochs", "1", "--limit-train", "30"])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(SystemExit):
            twin.main()
    assert "No space left on device" in capsys.readouterr().err and not list((tmp_path / "out").iterdir())
    twin.main()
    assert len((tmp_path / "out/metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        (["--epochs", "0"], "argument --epochs: '0' is not a number from 1 to 10,000"),
        (["--data-dir", "/proc/nothing"], "error: cannot write to /proc/nothing: No such file or directory; choose"),
        (["--recipe", "alexnet-2012"], "error: a plateau has no twin; choose another recipe"),
    ],
)
def test_the_twin_refuses_wrong_options(twin, options, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["twin.py", *options])
    with pytest.raises(SystemExit) as ended:
        twin.main()
    assert ended.value.code == 2 and message in capsys.readouterr().err
