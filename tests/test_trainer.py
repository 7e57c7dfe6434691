"""The trainer's parts, with a small network."""

import contextlib

import numpy as np
import pytest

from alexnet import trainer
from minidl import nn, random
from minidl.data import DataLoader
from minidl.errors import TrainingError
from minidl.optim import SGD, StepLR

IMAGES = np.random.default_rng(0).standard_normal((10, 1, 4, 4)).astype(np.float32)
LABELS = np.arange(10) % 3


def parts(lr=0.1):
    random.manual_seed(0)
    net = nn.Sequential(
        {"conv": nn.Conv2d(1, 2, 3), "relu": nn.ReLU(), "flatten": nn.Flatten(), "drop": nn.Dropout(), "fc": nn.Linear(8, 3)}
    )
    optimizer = SGD(net.parameters(), lr, 0.9)
    loader = DataLoader(IMAGES, LABELS, 4, lambda images, indices, epoch: images, shuffle=True)
    return net, optimizer, StepLR(optimizer, 100), loader


def test_every_step_of_the_run_has_masks_of_its_own(monkeypatch):
    steps = []

    @contextlib.contextmanager
    def watched(seed, step):
        steps.append((seed, step))
        yield

    monkeypatch.setattr(trainer.random, "context", watched)
    everything = parts()
    progress = trainer.Progress()
    trainer.train_one_epoch(*everything, progress, seed=7)
    progress = trainer.Progress(epoch=1, step=progress.step)
    trainer.train_one_epoch(*everything, progress, seed=7)
    assert steps == [(7, step) for step in range(6)]


def test_the_sums_of_an_epoch():
    progress = trainer.Progress()
    trainer.train_one_epoch(*parts(), progress, seed=0)
    assert (progress.step, progress.batch, progress.seen) == (3, 3, 10)
    assert 0 <= progress.correct <= 10 and progress.loss > 0 and progress.seconds > 0


def test_an_epoch_that_is_stopped_goes_on_to_the_same_weights():
    whole = parts()
    trainer.train_one_epoch(*whole, trainer.Progress(), seed=0)
    halves = parts()
    progress = trainer.Progress()
    with pytest.raises(trainer.Stopped):
        trainer.train_one_epoch(*halves, progress, seed=0, stop=lambda: progress.batch == 1)
    assert progress.batch == 1
    trainer.train_one_epoch(*halves, progress, seed=0)
    for one, other in zip(whole[0].parameters(), halves[0].parameters(), strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def test_evaluation_is_of_every_image_once_and_without_dropout():
    net, *_ = parts()
    results = [
        trainer.evaluate(net, DataLoader(IMAGES, LABELS, size, lambda images, indices, epoch: images)) for size in (3, 10, 64)
    ]
    for result in results:
        np.testing.assert_array_equal(result.predictions, results[0].predictions)
        assert result.loss == pytest.approx(results[0].loss)
        assert result.accuracy == (result.predictions == LABELS).mean()


def test_the_weights_are_as_they_were_when_a_loss_is_not_finite():
    net, optimizer, schedule, loader = parts()
    net.fc.weight.data[0, 0] = np.inf
    before = [p.data.copy() for p in net.parameters()]
    message = r"step 1 \(epoch 1\); the first layer whose output is not finite is fc \(Linear\), as its weights are not"
    with np.errstate(invalid="ignore"), pytest.raises(TrainingError, match=message):
        trainer.train_one_epoch(net, optimizer, schedule, loader, trainer.Progress(), seed=0)
    for p, value in zip(net.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.data, value)
