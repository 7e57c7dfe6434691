"""The parts of a run, with a small network: steps, epochs, evaluation, the config and what is built from it."""

import contextlib
import dataclasses
import json
import time

import numpy as np
import pytest

from alexnet import builders, datasets, fitting, training
from alexnet.commands import train
from alexnet.config import Config
from alexnet.recipes import RECIPES
from alexnet.run import RunFolder
from alexnet.views import Views
from minidl import Tensor, checkpoint, nn, random
from minidl import functional as F
from minidl.backend import to_device, to_numpy
from minidl.data import Batch, DataLoader
from minidl.errors import NotFiniteError
from minidl.optim import SGD, StepLR
from minidl.parallel import ALONE, DataParallel

from ..helpers.experiments import tiny_network

IMAGES = np.random.default_rng(0).standard_normal((10, 1, 4, 4)).astype(np.float32)
LABELS = np.arange(10) % 3


def parts(lr=0.1, device="numpy"):
    random.manual_seed(0)
    net = nn.Sequential(
        {"conv": nn.Conv2d(1, 2, 3), "relu": nn.ReLU(), "flatten": nn.Flatten(), "drop": nn.Dropout(), "fc": nn.Linear(8, 3)}
    ).to(device)
    optimizer = SGD(net.parameters(), lr, 0.9)
    loader = DataLoader(IMAGES, LABELS, 4, lambda images, indices, epoch: images, shuffle=True)
    return net, optimizer, StepLR(optimizer, 100), loader


def test_every_step_has_its_own_masks(monkeypatch):
    steps = []

    @contextlib.contextmanager
    def watched(seed, step, first_sample):
        steps.append((seed, step))
        yield

    monkeypatch.setattr(training.random, "context", watched)
    everything = parts()
    progress = training.Progress()
    training.train_one_epoch(*everything, progress, seed=7)
    progress = training.Progress(epoch=1, step=progress.step)
    training.train_one_epoch(*everything, progress, seed=7)
    assert steps == [(7, step) for step in range(6)]


def test_an_epoch_sums_losses_and_correct_answers():
    progress, started = training.Progress(seconds=100.0), time.perf_counter()
    training.train_one_epoch(*parts(), progress, seed=0)
    assert (progress.step, progress.batch, progress.seen) == (3, 3, 10)
    assert 0 <= progress.correct <= 10 and progress.loss > 0
    assert 0 < progress.seconds - 100 <= time.perf_counter() - started


def test_a_stopped_epoch_continues_to_the_same_weights():
    whole = parts()
    training.train_one_epoch(*whole, training.Progress(), seed=0)
    halves = parts()
    progress = training.Progress()
    with pytest.raises(training.Stopped):
        training.train_one_epoch(*halves, progress, seed=0, stop=lambda: progress.batch == 0)
    assert progress.batch == 1
    training.train_one_epoch(*halves, progress, seed=0)
    for one, other in zip(whole[0].parameters(), halves[0].parameters(), strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def test_evaluation_uses_every_image_once_without_dropout():
    net, *_ = parts()
    results = [
        training.evaluate(net, DataLoader(IMAGES, LABELS, size, lambda images, indices, epoch: images))[0] for size in (3, 10, 64)
    ]
    for result in results:
        np.testing.assert_array_equal(result.predictions, results[0].predictions)
        assert result.loss == pytest.approx(results[0].loss)
        assert result.accuracy == (result.predictions == LABELS).mean()


def test_the_loss_and_the_accuracies_of_an_evaluation_match_their_definitions():
    """The images are the logits of ten classes. Top-5: the label is among the five most probable classes."""
    draws = np.random.default_rng(0)
    logits, labels = draws.standard_normal((60, 10)).astype(np.float32), draws.integers(0, 10, 60)
    net = nn.Sequential(nn.Flatten(), nn.Linear(10, 10, bias=False))
    net[1].weight.data[...] = np.eye(10)
    loader = DataLoader(logits.reshape(60, 1, 2, 5), labels, 16, lambda images, indices, epoch: images)
    one, views = training.evaluate(net, loader)
    order = np.argsort(-logits, axis=1)
    assert one.accuracy == (order[:, 0] == labels).mean() and one.top5 == (order[:, :5] == labels[:, None]).any(axis=1).mean()
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(60), labels]
    assert one.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert views is one  # as there is one view


def test_evaluation_returns_results_for_one_view_and_for_all():
    net, *_ = parts()
    one, views = training.evaluate(net, DataLoader(IMAGES, LABELS, 4, Views(4, 2)))
    seen, both = (training.evaluate(net, DataLoader(images, LABELS, 4, Views(4)))[0] for images in (IMAGES, IMAGES[..., ::-1]))
    assert (one.accuracy, one.loss) == (seen.accuracy, pytest.approx(seen.loss))
    np.testing.assert_array_equal(one.predictions, seen.predictions)
    of_labels = (np.exp(-seen.losses) + np.exp(-both.losses)) / 2
    np.testing.assert_allclose(views.losses, -np.log(of_labels), rtol=1e-5)
    assert views.loss != one.loss and views.accuracy == (views.predictions == LABELS).mean()


@pytest.mark.parametrize("weights", [None, np.array([1.0, 2.0, 3.0], np.float32)])
def test_the_loss_has_smoothed_labels_and_class_weights(weights):
    """The loss of an epoch, from its definition: -sum of (1 - e) log p of the class, and e / 3 log p of each; its accuracy."""
    net, optimizer, _, loader = parts(lr=1e-9)
    net.drop.p = 0.0
    progress = training.Progress()
    training.train_one_epoch(net, optimizer, None, loader, progress, seed=0, class_weights=weights, label_smoothing=0.2)
    logits = net.eval()(Tensor(IMAGES)).data.astype(float)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    losses = -0.8 * logs[np.arange(10), LABELS] - 0.2 * logs.mean(axis=1)
    expected = losses if weights is None else losses * weights[LABELS]
    assert progress.loss == pytest.approx(expected.sum(), rel=1e-5)
    assert progress.correct == (logits.argmax(axis=1) == LABELS).sum() > 0


@pytest.mark.parametrize("views", [1, 2, 5])
def test_the_probabilities_of_views_are_averaged(device, views):
    """Compared with a loop, also if float32 rounds a probability to 0. The logits of a single view are not changed."""
    logits = np.random.default_rng(1).normal(0, 3, (views, 4, 3)).astype(np.float32)
    logits[0, 2] = [200, -200, 0]
    found = to_numpy(training.average(Tensor(to_device(logits.reshape(-1, 3), device)), 4).data)
    if views == 1:
        np.testing.assert_array_equal(found, logits[0])
        return
    for i in range(4):
        of_views = [np.exp(row.astype(float) - row.max()) / np.exp(row.astype(float) - row.max()).sum() for row in logits[:, i]]
        np.testing.assert_allclose(np.exp(found[i]), np.mean(of_views, axis=0), rtol=1e-4, atol=1e-7)
    assert np.isfinite(found).all()


def test_ranks_count_the_classes_that_are_more_probable(device):
    logits = np.array([[1, 3, 2, 3], [5, 5, 5, 5], [0, 1, 2, 3]], np.float32)
    for labels, ranks in (([0, 0, 3], [3, 0, 0]), ([1, 2, 0], [0, 2, 3]), ([3, 3, 1], [1, 3, 2])):
        found = training._ranks(to_device(logits, device), to_device(np.array(labels), device))
        assert to_numpy(found).tolist() == ranks


def test_class_weights_scale_the_losses(device):
    """The loss of a step is the sum of the weighted losses, divided by the number of images."""
    weights = np.array([0.5, 2.0, 1.0], np.float32)
    gradients = []
    for given in (to_device(weights, device), None):
        net, optimizer, _, _ = parts(device=device)
        images, labels = to_device(IMAGES, device), to_device(LABELS, device)
        if given is None:
            with random.context(7, 0):
                losses = F.cross_entropy(net(Tensor(images)), labels, reduction="none")
            (losses * Tensor(to_device(weights[LABELS], device))).sum().backward()
            gradients.append([to_numpy(p.grad) / 10 for p in net.parameters()])
        else:
            parallel = DataParallel(net, optimizer, ALONE)
            progress, bar = training.Progress(), training._bar("", 10, ALONE)
            sums = training.RunningSums(net, progress, ALONE, training.never, training.never, bar)
            batch = Batch(images, labels, np.arange(10), 0, 10)
            training.training_step(net, optimizer, parallel, batch, (7, 0, 0), sums, given)
            gradients.append([to_numpy(p.grad).copy() for p in net.parameters()])
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_a_frozen_batch_norm_stays_in_evaluation_mode():
    random.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3))
    for p in net[1].parameters():
        p.requires_grad = False
    optimizer = SGD([p for p in net.parameters() if p.requires_grad], 0.1, 0.9)
    loader = DataLoader(IMAGES, LABELS, 4, lambda images, indices, epoch: images)
    before = net[1].running_mean.copy()
    training.train_one_epoch(net, optimizer, None, loader, training.Progress(), seed=0)
    assert [module.training for module in net] == [True, False, True, True, True]
    np.testing.assert_array_equal(net[1].running_mean, before)


PREPARED = {"classes": ["a", "b"], "channels": 3, "resize": 16, "image_size": 16, "draft": True}
PREPARED |= {"mean": [1.0] * 3, "std": [1.0] * 3}


def config(**settings):
    """A short run on digits; the settings replace the recipe's."""
    run = train.config(train.parser().parse_args(["--data", "digits", "--limit-train", "8", "--limit-test", "10"]))
    return dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, **settings))


def test_options_replace_fields_of_the_recipe():
    asked = ["--data", "digits", "--recipe", "alexnet-2012", "--epochs", "3", "--batch-size", "7", "--lr", "0.5"]
    recipe = train.config(train.parser().parse_args(asked)).recipe
    assert recipe == dataclasses.replace(RECIPES["alexnet-2012"], epochs=3, batch_size=7, lr=0.5)


@pytest.mark.parametrize(
    "options, rate",
    [
        ([], 0.1),
        (["--model", "cifar-lrn"], 0.03),
        (["--model", "alexnet-2012"], 0.01),
        (["--data", "digits"], 0.02),
        (["--data", "digits", "--model", "cifar-lrn"], 0.01),
        (["--recipe", "deck"], 0.01),
        (["--recipe", "alexnet-2012"], 0.01),
    ],
)
def test_the_rate_depends_on_the_recipe_and_the_network(options, rate):
    assert train.config(train.parser().parse_args(options)).recipe.lr == rate


def test_config_json_is_flat_and_older_ones_can_be_read():
    run = config(bias_lr=2.0, bias_decay=False)
    settings = json.loads(run.to_json())
    assert (settings["recipe"], settings["lr"], settings["bias_lr"]) == ("digits", 0.02, 2.0)
    assert not any(isinstance(value, dict) for key, value in settings.items() if key != "versions")
    assert Config.from_json(run.to_json()) == run
    for key in ("bias_lr", "bias_decay", "precision"):  # added in later versions
        del settings[key]
    assert Config.from_json(json.dumps(settings)) == config(bias_lr=1.0, bias_decay=True)


@pytest.mark.parametrize("key", ["recipe", "epochs", "model"])
def test_config_json_without_a_setting_is_refused(key):
    settings = json.loads(config().to_json())
    del settings[key]
    with pytest.raises(ValueError, match="missing required field"):
        Config.from_json(json.dumps(settings))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"colour": 1}, "there is no setting 'colour'"),
        ({"name": "x"}, "there is no setting 'name'"),
        ({"model": "resnet"}, "there is no model 'resnet'"),
        ({"devices": [0, 0]}, r"devices \[0, 0\] names a device twice"),
        ({"devices": [0, 1], "world_size": 1}, "world_size 1 is less than the number of devices, 2"),
        ({"devices": []}, "length >= 1"),
        ({"precision": "tf32"}, "precision tf32 is for backend cupy"),
        ({"schedule": "step", "step_epochs": 0}, "schedule step needs step_epochs of at least 1"),
        ({"schedule": "cosine"}, "Invalid enum value 'cosine'"),
        ({"test_views": 2, "reflection": False}, "test_views 2 is an image and its reflection, but reflection is false"),
        ({"label_smoothing": 1}, "< 1.0"),
        ({"padding_mode": "zeros"}, "Invalid enum value 'zeros'"),
        ({"epochs": 1_000_001}, "<= 1000000"),
        ({"epochs": True}, "Expected `int`, got `bool`"),
        ({"lr": 0}, "> 0.0"),
        ({"lr": "0.1"}, "Expected `float`, got `str`"),
        ({"momentum": 1}, "< 1.0"),
        ({"lr": float("inf")}, "Infinity is not allowed as a setting"),
        ({"weight_decay": float("nan")}, "NaN is not allowed as a setting"),
        ({"lr": 10**400}, "."),
        ({"seed": 2**63}, "."),
        ({"threads": 0}, ">= 1"),
        ({"save_minutes": 0}, "> 0.0"),
        ({"versions": {"numpy": 2}}, "Expected `str`, got `int`"),
        ({"classes": ["a", "b"]}, "it has the classes without the preparation of images, or the reverse"),
        ({"freeze": ""}, "length >= 1"),
        ({"validation": 1.5}, "."),
        ({"validation": 0}, "."),
        ({"image_size": 5}, "."),
        (PREPARED | {"image_size": 17}, "image_size 17 is larger than resize 16"),
        (PREPARED | {"mean": [1.0, 2.0]}, "mean and std need a number for each of 3 channels"),
        (PREPARED | {"std": [0.0, 1.0, 1.0]}, ">= 2"),
        (PREPARED | {"channels": 2}, "Invalid enum value 2"),
        (PREPARED | {"color_noise": 0.1}, "color_vectors must be 3 of 3 numbers"),
        (PREPARED | {"color_noise": 0.1, "color_vectors": [[1.0, 2.0]] * 3}, "color_vectors must be 3 of 3 numbers"),
    ],
)
def test_config_json_with_impossible_settings_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Config.from_json(json.dumps(json.loads(config().to_json()) | changes).encode())


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"[" * 100_000, b'{"lr": NaN}', b"\xff", b"1e999"])
def test_config_json_with_other_content_is_refused(text):
    with pytest.raises(ValueError):
        Config.from_json(text)


def test_biases_have_their_own_rate_and_decay():
    """As in the code of 2012: twice the rate, no decay. The parameters stay in the order of definition."""
    net, *_ = parts()
    optimizer = builders.build_optimizer(config(lr=0.5, weight_decay=0.1, bias_lr=2.0, bias_decay=False), net)
    assert [p.shape for p in optimizer.parameters] == [p.shape for p in net.parameters()]
    settings = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert settings == [(0.5, 0.1), (1.0, 0.0)] * 2
    schedule, _ = builders.build_schedules(config(schedule="one-cycle", epochs=1), optimizer, 10)
    assert schedule.max_lrs == [0.5, 1.0] * 2


def test_the_recipe_reaches_the_optimiser_and_the_augmentation():
    net, *_ = parts()
    run = builders.found(config(nesterov=True, padding_mode="reflect"), datasets.digits())
    assert all(group["nesterov"] for group in builders.build_optimizer(run, net).param_groups)
    crop, _ = builders.training_transform(run).transforms
    views, _ = builders.evaluation_transform(run).transforms
    assert (crop.padding_mode, views.padding_mode) == ("reflect", "reflect")


def test_label_smoothing_changes_the_loss_in_training_only(tmp_path):
    found = []
    with tiny_network():
        for smoothing in (0.0, 0.5):
            run = dataclasses.replace(config(label_smoothing=smoothing, lr=1e-9, epochs=1), model="tiny")
            folder = RunFolder.create(tmp_path / str(smoothing), builders.found(run, datasets.digits()))
            fitting.fit(folder, datasets.digits())
            found.append(folder.metrics()[0])
    assert found[0]["test_loss"] == pytest.approx(found[1]["test_loss"], rel=1e-5)
    assert found[0]["train_loss"] != pytest.approx(found[1]["train_loss"], rel=1e-2)


def test_a_plateau_lowers_the_rate_three_times_also_after_a_stop(tmp_path):
    """The rate is too small to lower the error, so it is divided by ten after each epoch except the first, three times."""
    settings = config(schedule="plateau", step_epochs=1, lr=1e-4, epochs=6, bias_lr=2.0)
    settings = builders.found(settings, datasets.digits())
    whole, halves = (RunFolder.create(tmp_path / name, settings) for name in ("whole", "halves"))
    fitting.fit(whole, datasets.digits())
    with pytest.raises(training.Stopped):
        fitting.fit(halves, datasets.digits(), stop=lambda: len(halves.metrics()) == 2)
    fitting.fit(halves, datasets.digits(), resume=True)
    rates = [row["lr"] for row in whole.metrics()]
    np.testing.assert_allclose(rates, [1e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-7])
    assert rates == [row["lr"] for row in halves.metrics()]
    (one, _), (other, _) = (checkpoint.load(run.checkpoints()[-1]) for run in (whole, halves))
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def test_a_loss_that_is_not_finite_does_not_change_the_weights(device):
    """Also on a GPU, where the loss is read one step later."""
    net, optimizer, schedule, loader = parts(device=device)
    net.fc.weight.data[0, 0] = np.inf
    before = [to_numpy(p.data).copy() for p in net.parameters()]
    message = r"step 1 \(epoch 1\); the first layer whose output is NaN or infinite is fc \(Linear\), and so are its weights"
    with np.errstate(invalid="ignore"), pytest.raises(NotFiniteError, match=message):
        training.train_one_epoch(net, optimizer, schedule, loader, training.Progress(), seed=0)
    for p, value in zip(net.parameters(), before, strict=True):
        np.testing.assert_array_equal(to_numpy(p.data), value)


@pytest.mark.parametrize(
    "bias, loss, layer",
    [
        (np.nan, "nan", r"the first layer whose output is NaN or infinite is fc \(Linear\), and so are its weights"),
        (3e38, "inf", "the outputs of all layers are finite, the loss itself overflowed"),
    ],
)
def test_an_evaluation_refuses_a_loss_that_is_not_finite(device, bias, loss, layer):
    """The loss of class 0 is log(1 + e^(-2 * 3e38)) - 2 * 3e38, beyond float32, if fc's biases are -3e38 and 3e38."""
    net, _, _, loader = parts(device=device)
    net.fc.bias.data[:2] = to_device(np.array([-bias, bias], np.float32), device)
    with np.errstate(all="ignore"), pytest.raises(NotFiniteError, match=f"^the loss on test images is {loss}; {layer}"):
        training.evaluate(net, loader)
