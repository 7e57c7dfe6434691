"""Networks divided among ranks, hybrid or as towers: collectives, results, bytes sent, and runs resumed in another way."""

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl.functional as F
from alexnet import parallelism
from alexnet.commands import train
from alexnet.models import SameMapNorm
from alexnet.preparation import Preparation
from minidl import Tensor, checkpoint, nn, random
from minidl.errors import TrainingError
from minidl.parallel import ALONE, Communicator, collectives, hybrid, launch, towers
from minidl.parallel.traffic import bytes_sent

from ..helpers import experiments, folders, processes, ranks
from .test_parallel import Run, close, gone, mpiexec
from .test_parallel import call as call

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


# --- collectives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("axis, ndim", [(0, 2), (1, 2), (1, 4), (0, 4)])
def test_collectives_and_their_gradients(size, axis, ndim):
    """Rank 0's shard is empty."""
    for kind in ranks.COLLECTIVES:
        assert launch(size, ranks.collective_is_its_definition, kind, axis, ndim) < 1e-8, kind


@pytest.mark.parametrize("kind", ranks.COLLECTIVES)
def test_collectives_of_mpi(tmp_path, kind):
    status, error, output = mpiexec(tmp_path, 3, ranks.collective_is_its_definition, kind, 1, 2)
    assert status == 0 and error < 1e-8, output


@pytest.mark.parametrize("kind", ranks.COLLECTIVES)
def test_collectives_of_one_rank_return_its_data(kind):
    x = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    functions = {
        "gather": lambda: collectives.gather(x, ALONE.main, 1),
        "gather for some": lambda: collectives.gather(x, ALONE.main, 1, [2], [0]),
        "reduce_scatter": lambda: collectives.reduce_scatter(x, ALONE.main, 0, [3]),
        "all_to_all": lambda: collectives.all_to_all(x, ALONE.main, 0, [3], 1, [2]),
    }
    y = functions[kind]()
    np.testing.assert_array_equal(y.data, x.data)
    y.backward(np.ones((3, 2)))
    np.testing.assert_array_equal(x.grad, np.ones((3, 2)))


def test_exchange_checks_the_number_of_elements():
    with pytest.raises(ValueError, match=r"rank 0 must send \[3\] elements, but was given \[2\]"):
        ALONE.main.exchange([np.ones(2)], [[3]])


def different_counts(communicators, stop):
    other = 3 + communicators.rank
    communicators.main.exchange([np.ones(0), np.ones(other)][:: 1 - 2 * communicators.rank], [[0, other], [other, 0]])


def test_ranks_that_exchange_different_counts_are_noticed():
    with pytest.raises(TrainingError, match="is in exchange of 6 float64.*, but rank . is in exchange of 8"):
        launch(2, different_counts)


# --- the devices never change the result ------------------------------------------------------------------------------

OPTIONS = ["--image-size", "64", "--dtype", "float64", "--batch-size", "5", "--limit-train", "31"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """96 training images."""
    counts = {"red": 40, "green": 30, "blue": 26}
    return folders.split(tmp_path_factory.mktemp("data"), counts, {"red": 3, "green": 2, "blue": 6})


def config(model, data, parallel):
    """Seven steps, the last of one image, for workers with one thread.

    The recipe alexnet-2012 has crops, colour noise and ten views of a test image.
    """
    recipe = "alexnet-2012" if model == "alexnet-2012" else "default"
    options = ["--data", str(data), "--model", model, "--recipe", recipe, "--parallel", parallel, *OPTIONS]
    return dataclasses.replace(train.config(train.parser().parse_args(options)), threads=1)


@pytest.fixture(scope="module", params=["alexnet-2012", "net-145"])
def alone(request, data):
    """(model, the result of one device)."""
    return request.param, launch(1, ranks.train, config(request.param, data, "data"))


@pytest.mark.parametrize("size, parallel", [(2, "towers"), (2, "hybrid"), (3, "hybrid"), (2, "data")])
def test_devices_do_not_change_the_result_of_the_2012_networks(request, call, alone, data, size, parallel):
    model, expected = alone
    if parallel != "towers" and size == 2 and (model == "net-145" or "mpi" in request.node.callspec.id):
        pytest.skip("this is tested with the cifar networks")
    result = call(size, ranks.train, config(model, data, parallel))
    assert result["correct"] == expected["correct"]
    np.testing.assert_array_equal(result["predictions"], expected["predictions"])
    assert len(expected["statistics"]) > 200
    close(result, expected, 1e-9)


def test_the_mask_of_a_shard_is_a_part_of_the_whole_mask():
    x = Tensor(np.ones((4, 4096), np.float32))
    with random.context(7, 3):
        whole = F.dropout(x).data
    for start, stop in ((0, 1365), (1365, 2730), (2730, 4096), (2048, 4096)):
        with random.context(7, 3, 2), random.part(1, start):
            part = F.dropout(Tensor(np.ones((2, stop - start), np.float32))).data
        np.testing.assert_array_equal(part, whole[1:3, start:stop])
    with random.context(7, 3, 2):
        with random.part(0, 5):
            F.dropout(x)
        assert random.next_draw(0)[3:] == (2, 0)


# --- what a rank keeps and sends --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, image_size, batch_size",
    [("cifar-bn", 16, 7), ("cifar-bn", 32, 128), ("alexnet-2012", 64, 5), ("net-145", 64, 2), ("alexnet-torchvision", 63, 3)],
)
@pytest.mark.parametrize("size, parallel", [(1, "data"), (2, "data"), (3, "data"), (2, "hybrid"), (3, "hybrid"), (2, "towers")])
def test_the_bytes_sent_match_the_formula(model, image_size, batch_size, size, parallel):
    if parallel == "towers" and model not in parallelism.TOWERS:
        pytest.skip("no towers")
    if (batch_size, size) == (128, 3):
        pytest.skip("as with 7 images")
    net = ranks.zeros(model, 10, image_size)
    sent, _ = launch(size, ranks.sent_in_a_step, model, image_size, parallel, batch_size)
    assert sent == bytes_sent(net, (3, image_size, image_size), parallel, batch_size, size)


def test_the_towers_send_as_many_bytes_as_in_the_paper():
    """469 kB for each image in float32: the halves of pool2, pool5 and fc6, one half of fc7, and their gradients."""
    net = ranks.zeros("alexnet-2012")
    halves = [128 * 13 * 13, 128 * 6 * 6, 2048]
    expected = 4 * (2 * 2 * sum(halves) + 2 * 2048)
    assert round(expected / 1000) == 469
    assert bytes_sent(net, (3, 224, 224), "towers", 1, 2) == expected
    assert bytes_sent(net, (3, 224, 224), "data", 1, 2) == 2 * 243_860_896


@pytest.mark.parametrize("model, image_size", [("cifar-bn", 32), ("alexnet-2012", 224)])
def test_hybrid_keeps_little_more_than_half_of_the_bytes(model, image_size):
    """One of two workers keeps at most .58 of the weights, gradients and velocities of data parallelism."""
    _, alone = launch(1, ranks.sent_in_a_step, model, image_size, "data", 1)
    _, divided = launch(2, ranks.sent_in_a_step, model, image_size, "hybrid", 1)
    assert 0.5 < divided / alone <= 0.58


class Two(Communicator):
    """The communicator of the first of two ranks; it sends nothing."""

    size = 2


@pytest.mark.parametrize(
    "divide, network, message",
    [
        (hybrid, nn.ReLU(), "only an nn.Sequential can be divided among ranks; this is a ReLU"),
        (hybrid, nn.Sequential(nn.Conv2d(1, 2, 3)), "divides the fully connected layers, and this network has none"),
        (
            hybrid,
            nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)),
            "takes no BatchNorm1d after a fully connected layer, as 1 is",
        ),
        (hybrid, nn.Sequential({"fc": nn.Linear(3, 1)}), "fc has 1 outputs, fewer than the 2 devices"),
        (towers, nn.Sequential(nn.Conv2d(2, 2, 3), nn.Linear(2, 2)), "no two towers: it has no convolution with two groups"),
        (towers, nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)), "or no fully connected layer"),
        (
            towers,
            nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.LocalResponseNorm(5), nn.Linear(2, 2)),
            r"this network has no two towers: LocalResponseNorm\(5.* joins them",
        ),
        (towers, nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.BatchNorm2d(2), nn.Linear(2, 2)), "BatchNorm2d.* joins them"),
    ],
)
def test_networks_that_cannot_be_divided_are_refused_and_unchanged(divide, network, message):
    before = copy.deepcopy(network)
    with pytest.raises(ValueError, match=message):
        divide(network, Two())
    assert repr(network) == repr(before)


def test_towers_need_two_devices():
    net = ranks.zeros("net-145", image_size=64)
    with pytest.raises(ValueError, match="towers take two devices, and there are 1"):
        towers(net, ALONE.main, (SameMapNorm,))


def test_how_auto_chooses(data):
    """On CPUs the way that sends fewer bytes; data on one device, on GPUs, and if there are too few outputs."""

    def way(model, image_size, batch_size, devices, backend="numpy", classes=10):
        options = ["--model", model, "--batch-size", str(batch_size), "--backend", backend]
        settings = train.config(train.parser().parse_args(["--data", "digits", *options]))
        net = ranks.zeros(model, classes, image_size)
        found = dataclasses.replace(settings, world_size=devices, parallel="auto", classes=list(map(str, range(classes))))
        found = dataclasses.replace(found, preparation=Preparation(3, image_size, image_size, [0.5] * 3, [1.0] * 3))
        return parallelism.way(found, net)

    assert way("cifar-bn", 32, 128, 2) == "hybrid"
    assert way("cifar-bn", 32, 128, 1) == "data"
    assert way("cifar-bn", 32, 128, 11) == "data"
    assert way("cifar-bn", 32, 128, 2, backend="cupy") == "data"
    assert way("cifar-bn", 32, 4000, 2) == "data"  # the activations have more bytes than the weights
    assert way("alexnet-2012", 224, 128, 2, classes=1000) == "hybrid"


# --- runs -------------------------------------------------------------------------------------------------------------


def call_train(*arguments, before=(), **settings):
    line = [*before, sys.executable, str(ROOT / "train.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    return subprocess.run([*map(str, line)], capture_output=True, text=True, timeout=300, env=environment)


def weights(run):
    """The arrays of the last checkpoint."""
    return checkpoint.load(sorted((run / "checkpoints").iterdir())[-1], 1 << 40)[0]


RUNS = {"hybrid": ("cifar-bn", "16"), "towers": ("net-145", "64")}  # the network and the size of its images


def options_of(parallel, data, epochs):
    model, size = RUNS[parallel]
    return ["--data", data, "--model", model, "--image-size", size, "--dtype", "float64", "--batch-size", 20, "--epochs", epochs]


@pytest.mark.parametrize("parallel", ["hybrid", "towers"])
def test_a_run_can_be_resumed_in_another_way(tmp_path, data, parallel):
    """One device, then two that divide the network, then one again: the result is that of one device. All pictures are drawn."""
    expected, run = tmp_path / "expected", tmp_path / "run"
    options = options_of(parallel, data, 3)
    assert call_train(*options, "--out", expected).returncode == 0
    assert stop_after([*options, "--out", run], run, epochs=1) == 143
    assert stop_after(["--resume", run, "--devices", "0,1", "--parallel", parallel], run, epochs=2) == 143
    done = call_train("--resume", run, "--devices", "0", "--parallel", "auto")
    assert done.returncode == 0, done.stderr
    close(weights(run), weights(expected), 1e-9)
    assert {file.name for file in run.glob("*.png")} == {"curves.png", "confusion.png", "filters.png"}
    for one, other in zip(experiments.metrics(run), experiments.metrics(expected), strict=True):
        assert {k: pytest.approx(v, rel=1e-9) for k, v in one.items() if "second" not in k} == {
            k: v for k, v in other.items() if "second" not in k
        }


def stop_after(arguments, run, epochs, signum=signal.SIGTERM):
    """Start train.py, send it a signal when metrics.jsonl has `epochs` lines, and return its exit status."""
    line = [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    processes.wait_for_epochs(process, run, epochs)
    process.send_signal(signum)
    process.communicate(timeout=120)
    return process.returncode


def in_two(parallel, data, run, epochs=3):
    return [*options_of(parallel, data, epochs), "--parallel", parallel, "--devices", "0,1", "--out", run]


@LINUX
@pytest.mark.parametrize("parallel", ["hybrid", "towers"])
def test_a_killed_and_resumed_run_ends_the_same(tmp_path, data, parallel):
    """Bit for bit. The parent is killed during the second epoch."""
    expected, run = tmp_path / "expected", tmp_path / "run"
    assert call_train(*in_two(parallel, data, expected, epochs=2)).returncode == 0
    line = [*in_two(parallel, data, run, epochs=2), "--save-minutes", "0.01"]
    assert stop_after(line, run, 1, signal.SIGKILL) == -signal.SIGKILL
    done = call_train("--resume", run)
    assert done.returncode == 0, done.stderr
    assert experiments.metrics(run) == experiments.metrics(expected)
    one, other = weights(run), weights(expected)
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@LINUX
@pytest.mark.parametrize("parallel", ["hybrid", "towers"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_worker_ends_the_run(tmp_path, data, parallel, which):
    with Run(tmp_path, *map(str, in_two(parallel, data, tmp_path / "run", epochs=500)), MINIDL_TIMEOUT="20") as run:
        workers = run.until_it_trains(tmp_path / "run")
        os.kill(workers[which], signal.SIGKILL)
        status, errors, _ = run.ends()
        assert status == 1 and f"rank {which} was killed by SIGKILL" in errors, errors
        gone(workers)


@pytest.mark.parametrize("parallel", ["hybrid", "towers"])
def test_evaluate_repeats_the_last_line_of_a_divided_run(tmp_path, data, parallel):
    done = call_train(*in_two(parallel, data, tmp_path / "run", epochs=1))
    assert done.returncode == 0, done.stderr
    assert f"2 devices ({parallel})" in done.stdout
    loss, accuracy = (float(word) for word in done.stdout.splitlines()[-1].split()[2::3])
    line = [sys.executable, "-m", "alexnet", "evaluate", str(tmp_path / "run"), "--json"]
    found = json.loads(subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True).stdout)
    assert (found["loss"], found["top1"]) == (pytest.approx(loss, abs=6e-5), pytest.approx(accuracy, abs=6e-5))


@pytest.mark.parametrize("parallel", ["hybrid", "towers"])
def test_the_layer_of_nan_weights_is_named(data, parallel):
    """Only rank 1 has them."""
    settings = config("net-145", data, parallel)
    with pytest.raises(TrainingError, match=r"output is NaN or infinite is fc7 \(Linear\), and so are its weights"):
        launch(2, ranks.train_with_nan, settings, "fc7.weight")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--parallel", "towers", "--devices", "0,1"],
            "--parallel towers is for alexnet-2012 and net-145, which have two towers;",
        ),
        (["--parallel", "towers", "--model", "net-145"], "--parallel towers needs two devices, and there is 1"),
        (["--parallel", "towers", "--model", "net-145", "--devices", "0,1,2"], "needs two devices, and there are 3"),
        (["--parallel", "hybrid", "--devices", "0,1,2,3"], "but fc8 has only 3 for 4 devices; choose --parallel data"),
        (["--parallel", "both"], "invalid choice: 'both'"),
    ],
)
def test_impossible_ways_are_refused(tmp_path, data, arguments, message):
    """One line, exit status 2, and no run folder."""
    done = call_train("--data", data, "--image-size", 64, *arguments, "--out", tmp_path / "run")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "run").exists()


def test_a_run_as_towers_is_not_silently_resumed_on_one_device(tmp_path, data):
    run = tmp_path / "run"
    assert call_train(*in_two("towers", data, run, epochs=1)).returncode == 0
    done = call_train("--resume", run, "--devices", "0", "--epochs", "2")
    assert done.returncode == 2 and "--parallel towers needs two devices, and there is 1" in done.stderr
