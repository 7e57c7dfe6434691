"""Runs on folders of images, as processes: on several devices, under MPI, stopped, and with a killed reader."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import experiments, folders
from tests.helpers.processes import wait_for_epochs, workers

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at /proc")
OPTIONS = ["--recipe", "default", "--image-size", "16", "--batch-size", "7", "--epochs", "1", "--seed", "3"]
QUICK = [*OPTIONS, "--model", "small-bn", "--dtype", "float64"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return folders.split(folder, {"red": 9, "green": 6, "blue": 8}, {"red": 3, "green": 2, "blue": 4})


def command(*arguments, before=()):
    return [*before, sys.executable, str(ROOT / "train.py"), *map(str, arguments)]


def call(*arguments, before=(), program="train.py", **options):
    line = command(*arguments, before=before) if program == "train.py" else [sys.executable, "-m", "alexnet", program, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run([*map(str, line)], text=True, timeout=300, env=environment, **streams)


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    done = call("--data", data, *QUICK, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def agree(one, other):
    for a, b in zip(experiments.metrics(one), experiments.metrics(other), strict=True):
        for key, value in a.items():
            np.testing.assert_allclose(b[key], value, rtol=1e-9, err_msg=key)


@pytest.mark.parametrize("how", ["processes", "MPI"])
def test_devices_do_not_change_a_run(data, alone, tmp_path, how):
    before, places = (), ["--devices", "0,1"]
    if how == "MPI":
        before, places = (Path(sys.executable).parent / "mpiexec", "-n", "2"), []
        if not before[0].exists():
            pytest.skip("there is no mpiexec beside Python")
    done = call("--data", data, *QUICK, *places, "--out", tmp_path / "run", before=before)
    assert done.returncode == 0, done.stderr
    agree(alone, tmp_path / "run")


def test_an_evaluation_is_the_same_on_two_devices(alone):
    one, two = (call(alone, "--json", "--devices", devices, program="evaluate") for devices in ("0", "0,1"))
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    one, two = json.loads(one.stdout), json.loads(two.stdout)
    np.testing.assert_allclose(two.pop("loss"), one.pop("loss"), rtol=1e-9)
    assert one == two


def test_a_damaged_checkpoint_is_named_once_on_two_devices(alone, tmp_path):
    """And the network is the same on both: it is read once."""
    shutil.copytree(alone, tmp_path / "run")
    (tmp_path / "run/checkpoints/epoch-0009-step-000099.safetensors").write_bytes(b"x")
    done = call(tmp_path / "run", "--json", "--devices", "0,1", program="evaluate")
    assert done.returncode == 0 and re.fullmatch(r".*epoch-0009\S* .*; using epoch-0001\S*\n", done.stderr), done.stderr
    assert done.stdout == call(alone, "--json", "--devices", "0,1", program="evaluate").stdout


def test_an_unreadable_file_is_named_once_on_two_devices(data, alone, tmp_path):
    """If nobody reads the messages, the result is the same."""
    shutil.copytree(data / "val", tmp_path / "val")
    (tmp_path / "val/red/red-0.png").write_bytes(b"x")
    options = [alone, "--data", tmp_path / "val", "--json", "--devices", "0,1"]
    done = call(*options, program="evaluate")
    assert done.stderr.count("red-0.png is left out") == 1, done.stderr
    assert f"\nalexnet evaluate: warning: {tmp_path}/val/red/red-0.png is left out" in f"\n{done.stderr}"
    assert json.loads(done.stdout)["images"] == 8
    reader, writer = os.pipe()
    os.close(reader)
    unread = call(*options, program="evaluate", stderr=writer)
    os.close(writer)
    assert (unread.returncode, unread.stdout) == (0, done.stdout)


@LINUX
def test_a_stopped_and_resumed_run_ends_the_same(data, tmp_path):
    options = ["--data", data, *OPTIONS, "--epochs", "3", "--recipe", "deck"]
    assert call(*options, "--out", tmp_path / "whole").returncode == 0
    with subprocess.Popen(command(*options, "--out", tmp_path / "run"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as run:
        wait_for_epochs(run, tmp_path / "run")
        before = workers(run.pid)
        run.send_signal(signal.SIGINT)
        assert run.wait(60) in (130, 0) and before
        assert not any(Path(f"/proc/{pid}").exists() for pid in before)
    assert call("--resume", tmp_path / "run").returncode == 0
    assert experiments.weights(tmp_path / "run") == experiments.weights(tmp_path / "whole")


@LINUX
def test_a_killed_reader_ends_the_run(data, tmp_path):
    """No image is kept in memory, so that each is read in every epoch."""
    program = (
        "import sys; from alexnet import entry, image_folders\n"
        "image_folders.CACHE_BYTES = 0\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(entry.run('train', sys.argv[1:]))\n"
    )
    (tmp_path / "program.py").write_text(program)
    options = ["--data", data, *OPTIONS, "--epochs", "1000", "--out", tmp_path / "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, str(tmp_path / "program.py"), *map(str, options)]
    with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment) as run:
        wait_for_epochs(run, tmp_path / "run")
        os.kill(workers(run.pid)[0], signal.SIGKILL)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 1, errors
    how = r"image reader \d was killed by SIGKILL: it is one of those that prepare the input"
    assert re.fullmatch(rf"(train.py: warning: .*\n)?train.py: training failed: {how}\n", errors)
    assert not (tmp_path / "run/traceback.txt").exists()
