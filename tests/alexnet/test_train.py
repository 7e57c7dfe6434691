"""train.py as a process: what a run writes, what it refuses, and what is left after a stop, a kill or a full disk."""

import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alexnet.commands.train import parser
from minidl import checkpoint
from minidl.errors import UserError

from ..helpers import cifar_files
from ..helpers.experiments import metrics
from ..helpers.moments import CLOSING_LINE

ROOT = Path(__file__).parents[2]
SMALL = ["--data", "digits", "--limit-train", "70", "--limit-test", "40", "--epochs", "2"]
QUICK = [*SMALL, "--model", "small-bn"]  # a third of the time; too fast to be stopped in time


def start(*arguments, cwd, **options):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "MINIDL_DATA"} | {"HOME": str(cwd)} | options.pop("env", {}),
        **options,
    )


def train(*arguments, cwd, **options):
    process = start(*arguments, cwd=cwd, **options)
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def last_checkpoint(folder):
    return sorted((folder / "checkpoints").iterdir())[-1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, process) of a finished run."""
    place = tmp_path_factory.mktemp("finished")
    done = train(*SMALL, "--out", "runs/a", cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "runs" / "a", done


def test_the_last_line_is_the_result(finished):
    folder, done = finished
    last = done.stdout.splitlines()[-1]
    assert CLOSING_LINE.fullmatch(last)
    row = metrics(folder)[-1]
    assert last == f"test loss: {row['test_loss']:.4f} - accuracy: {row['test_accuracy']:.4f}"


def test_the_line_of_an_epoch_has_its_numbers(finished):
    folder, done = finished
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    for line, row in zip(lines, rows, strict=True):
        assert row["train_loss"] != row["test_loss"] and row["train_accuracy"] != row["test_accuracy"]
        assert line == (
            f"epoch {row['epoch']}/2: train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.4f}, "
            f"test loss {row['test_loss']:.4f} accuracy {row['test_accuracy']:.4f}, "
            f"{row['seconds']:.1f} s, {row['images_per_second']:.0f} images/s"
        )


def test_the_summary_comes_first_and_without_a_terminal_there_are_no_bars(finished):
    _, done = finished
    first = done.stdout.splitlines()
    assert first[0].split() == ["layer", "kind", "output", "parameters", "MAC/image"]
    assert first[1].split() == ["conv1", "Conv2d", "96", "x", "16", "x", "16", "2,496", "614,400"]
    assert done.stderr == ""


def test_a_run_writes_these_files(finished):
    folder, _ = finished
    assert sorted(p.name for p in folder.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.json",
        "confusion.png",
        "curves.png",
        "filters.png",
        "metrics.jsonl",
        "report.html",
        "statistics.jsonl",
    ]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert list(rows[0]) == [
        "epoch",
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
        "test_accuracy_views",
        "test_top5",
        "seconds",
        "images_per_second",
        "lr",
    ]
    assert rows[0]["images_per_second"] == pytest.approx(70 / rows[0]["seconds"], rel=0.01)
    config = json.loads((folder / "config.json").read_text())
    expected = dict(
        model="cifar-bn", data="digits", recipe="digits", backend="numpy", devices=[0], world_size=1, seed=0, epochs=2
    )
    assert config.items() >= expected.items()
    assert config["threads"] >= 1 and set(config["versions"]) == {"minidl", "numpy", "python"}
    names = [p.name for p in sorted((folder / "checkpoints").iterdir())]
    assert names == ["epoch-0001-step-000003.safetensors", "epoch-0002-step-000006.safetensors"]
    for picture in folder.glob("*.png"):
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and picture.stat().st_size > 5000


def test_the_same_seed_gives_the_same_run(finished, tmp_path):
    folder, _ = finished
    train(*SMALL, "--out", "again", cwd=tmp_path)
    assert metrics(tmp_path / "again") == metrics(folder)
    assert last_checkpoint(tmp_path / "again").read_bytes() == last_checkpoint(folder).read_bytes()
    train(*SMALL, "--out", "other", "--seed", "1", cwd=tmp_path)
    assert metrics(tmp_path / "other") != metrics(folder)


@pytest.mark.parametrize("model", ["small-bn", "small-lrn"])
def test_the_reference_kernels_give_the_same_losses(tmp_path, model):
    """In float64: in float32 the runs diverge by rounding."""
    options = [*SMALL, "--model", model, "--dtype", "float64", "--limit-train", "40", "--limit-test", "20"]
    for version in ("fast", "reference"):
        done = train(*options, "--out", version, cwd=tmp_path, env={"MINIDL_KERNELS": version})
        assert done.returncode == 0, done.stderr
    for fast, plain in zip(metrics(tmp_path / "fast"), metrics(tmp_path / "reference"), strict=True):
        assert fast == pytest.approx(plain, rel=1e-6, abs=1e-6)


def test_unknown_kernels_are_refused(tmp_path):
    done = train(*SMALL, cwd=tmp_path, env={"MINIDL_KERNELS": "slow"})
    assert (done.returncode, done.stdout) == (2, "") and not list(tmp_path.iterdir())
    assert done.stderr == "train.py: error: MINIDL_KERNELS=slow: give one of fast, reference\n"


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("signum, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_and_resumed_run_ends_the_same(finished, tmp_path, signum, status):
    folder, done = finished
    process = start(*SMALL, "--out", "runs/a", cwd=tmp_path)
    wait_for(process, "; files in")  # printed in the first epoch
    process.send_signal(signum)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status
    assert errors == "train.py: stopped and saved; resume with: python train.py --resume runs/a\n"
    resumed = train("--resume", "runs/a", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    assert metrics(tmp_path / "runs" / "a") == metrics(folder)
    assert last_checkpoint(tmp_path / "runs" / "a").read_bytes() == last_checkpoint(folder).read_bytes()


def test_a_killed_and_resumed_run_ends_the_same(finished, tmp_path):
    folder, done = finished
    process = start(*SMALL, "--out", "a", cwd=tmp_path)
    wait_for(process, "epoch 1/2")
    process.kill()
    process.communicate()
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "train_lo')  # a line cut short
    resumed = train("--resume", "a", cwd=tmp_path)
    assert resumed.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    assert metrics(tmp_path / "a") == metrics(folder)
    assert last_checkpoint(tmp_path / "a").read_bytes() == last_checkpoint(folder).read_bytes()


def test_a_run_killed_before_its_first_checkpoint_starts_over(finished, tmp_path):
    folder, _ = finished
    process = start(*SMALL, "--out", "a", cwd=tmp_path)
    wait_for(process, "; files in")
    process.kill()
    process.communicate()
    for early in (tmp_path / "a" / "checkpoints").glob("*.safetensors"):  # the run was quicker than the kill
        early.unlink()
    assert train("--resume", "a", cwd=tmp_path).returncode == 0
    assert metrics(tmp_path / "a") == metrics(folder)


def test_metrics_after_the_last_checkpoint_are_cut(finished, tmp_path):
    """After a kill between the line of an epoch and its checkpoint the epoch is repeated, and its line is written once."""
    folder, _ = finished
    train(*SMALL, "--out", "a", cwd=tmp_path)
    last_checkpoint(tmp_path / "a").unlink()
    assert train("--resume", "a", cwd=tmp_path).returncode == 0
    assert metrics(tmp_path / "a") == metrics(folder)


def test_a_finished_run_prints_its_result_again(finished):
    folder, done = finished
    again = train("--resume", folder, cwd=folder.parent)
    assert again.returncode == 0 and again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]


def test_a_damaged_checkpoint_is_named(finished, tmp_path):
    train(*QUICK, "--epochs", "1", "--out", "a", cwd=tmp_path)
    file = last_checkpoint(tmp_path / "a")
    file.write_bytes(file.read_bytes()[:-100])
    refused = train("--resume", "a", cwd=tmp_path)
    assert refused.returncode == 2
    assert re.fullmatch(
        r"train.py: error: a/checkpoints/.*safetensors is not a checkpoint, or is damaged \(.*\); "
        r"none before it can be used\n",
        refused.stderr,
    )
    checkpoint.save(file, {"model.x": np.zeros(2)}, {"epoch": 1, "step": 3})
    refused = train("--resume", "a", cwd=tmp_path)
    assert refused.returncode == 2 and "does not fit this run (" in refused.stderr


def test_a_run_without_its_files_is_refused_and_not_changed(finished, tmp_path):
    folder, _ = finished
    for lost, message in (("checkpoints", "its checkpoints are gone"), ("metrics.jsonl", "metrics.jsonl lacks epochs")):
        copy = tmp_path / lost
        shutil.copytree(folder, copy, copy_function=os.link)
        (shutil.rmtree if (copy / lost).is_dir() else os.unlink)(copy / lost)
        left = sorted(path.name for path in copy.iterdir())
        refused = train("--resume", copy, cwd=tmp_path)
        assert refused.returncode == 2 and message in refused.stderr and refused.stderr.count("\n") == 1
        assert sorted(path.name for path in copy.iterdir()) == left


def test_the_result_is_printed_even_if_pictures_cannot_be_drawn(finished, tmp_path):
    folder, done = finished
    shutil.copytree(folder, tmp_path / "a")
    (tmp_path / "a" / "curves.png").unlink()
    (tmp_path / "a" / "curves.png").mkdir()
    again = train("--resume", "a", cwd=tmp_path)
    assert again.returncode == 0 and again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    note, warning = again.stderr.splitlines()
    assert "finished" in note and warning.startswith("train.py: warning: cannot write a/curves.png: ")


def test_a_resumed_run_keeps_its_number_of_threads(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | {"threads": 1}))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import minidl; from alexnet.commands import train; "
        "assert train.main(['--resume', 'a']) == 0; print(minidl.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code, ROOT], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "1" and " 1 thread; files in" in done.stdout


def test_a_run_resumed_on_other_devices_ends_the_same(tmp_path):
    """In float64, up to rounding; then resumed on one device again."""
    options = [*QUICK, "--dtype", "float64", "--recipe", "deck", "--limit-train", "40", "--limit-test", "20"]
    for name, epochs in (("whole", "3"), ("parts", "1")):
        assert train(*options, "--epochs", epochs, "--out", name, cwd=tmp_path).returncode == 0
    for epochs, devices in (("2", "0,1"), ("3", "0")):
        done = train("--resume", "parts", "--epochs", epochs, "--devices", devices, cwd=tmp_path)
        assert done.returncode == 0 and done.stderr.startswith("train.py: resuming with devices"), done.stderr
    for one, other in zip(metrics(tmp_path / "parts"), metrics(tmp_path / "whole"), strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    failed = train(*SMALL, "--lr", "1e25", "--out", "a", cwd=tmp_path)
    assert failed.returncode == 1
    assert re.fullmatch(
        r"train.py: training failed: the loss is (nan|inf) at step 2 \(epoch 1\); the first layer whose output is "
        r"NaN or infinite is \w+ \(\w+\)(, and so are its weights)?; a new run with a smaller --lr may help\n",
        failed.stderr,
    )
    assert not list((tmp_path / "a" / "checkpoints").iterdir())


def test_a_full_disk_ends_the_run(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    failed = train(*SMALL, "--out", "a", cwd=tmp_path, preexec_fn=limit)
    assert failed.returncode == 1
    assert re.fullmatch(r"train.py: training failed: cannot save in a: .*\n", failed.stderr)
    assert not list((tmp_path / "a" / "checkpoints").iterdir())


def test_progress_is_shown_on_a_terminal(tmp_path):
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    every_batch = {"TQDM_MININTERVAL": "0"}  # by default, an epoch of less than 0.1 s shows no batch
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *QUICK],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=os.environ | every_batch,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait() == 0
    for text in (b"epoch 1", b"img/s", b"loss=", b"accuracy=", b"test:"):
        assert text in shown
    (run,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"small-bn-digits-digits-\d{8}-\d{6}", run.name)


def test_cifar10_is_trained_with_its_own_recipe(tmp_path):
    cifar_files.write(tmp_path / "data")
    done = train(
        *("--data-dir", "data", "--limit-train", "40", "--limit-test", "20", "--epochs", "1", "--batch-size", "16"),
        *("--model", "small-lrn", "--dtype", "float64", "--out", "a"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["recipe"] == "default" and config["crop_padding"] == 2 and config["reflection"]
    arrays, _ = checkpoint.load(last_checkpoint(tmp_path / "a"))
    assert arrays["model.conv1.weight"].shape == (24, 3, 5, 5) and arrays["model.conv1.weight"].dtype == np.float64


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--epochs", "0"], "argument --epochs: '0' is not an integer from 1 to 1,000,000"),
        (["--epochs", "1000001"], "argument --epochs: '1000001' is not an integer from 1 to 1,000,000"),
        (["--epochs", "1.5"], "argument --epochs: '1.5' is not an integer"),
        (["--lr", "nan"], "argument --lr: 'nan' is not a number above 0"),
        (["--lr", "0"], "argument --lr: '0' is not a number above 0"),
        (["--lr", "inf"], "argument --lr: 'inf' is not a number above 0"),
        (["--batch-size", "-1"], "argument --batch-size"),
        (["--seed", "-1"], "argument --seed: '-1' is not an integer from 0 to 2"),
        (["--model", "resnet"], "argument --model: invalid choice: 'resnet'"),
        (["--recipe", "best"], "argument --recipe: invalid choice: 'best'"),
        (["--dtype", "float16"], "argument --dtype: invalid choice: 'float16'"),
        (["--backend", "torch"], "argument --backend: invalid choice: 'torch'"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3; did you mean --epochs? (python train.py --help"),
        pytest.param(
            ["--backend", "cupy", "--data", "digits"],
            "CuPy is not installed: pip install -e '.[cuda12]' or '.[cuda13]' in minidl's folder",
            marks=pytest.mark.skipif(bool(importlib.util.find_spec("cupy")), reason="CuPy is installed"),
        ),
        (["--devices", "a"], "argument --devices: 'a' is not a list of different device numbers"),
        (["--devices", "0,0"], "argument --devices: '0,0' is not a list of different device numbers"),
        (["--devices", "0,00"], "argument --devices: '0,00' is not a list of different device numbers"),
        (["--devices", ",".join(map(str, range(5000)))], "is not a list of different device numbers"),
        (["--devices", "9" * 5000], "is not a list of different device numbers"),
        (["--precision", "fp8"], "argument --precision: invalid choice: 'fp8'"),
        (["--precision", "fp16", "--data", "digits"], "--precision fp16 is for GPUs and float32: it needs --backend cupy"),
        (["--precision", "tf32", "--backend", "cupy", "--dtype", "float64"], "--precision tf32 is for GPUs and float32"),
        (
            ["--data", "mnist"],
            "--data mnist: there is no such data set and no such folder; give cifar10, digits, or a folder of images",
        ),
        (["--data", "."], "it needs a folder for each class, with images in it"),
        (["--data", "digits", "--limit-train", "1438"], "--limit-train 1438: give a number from 1 to 1437"),
        (["--data", "digits", "--limit-test", "361"], "--limit-test 361: give a number from 1 to 360"),
        (["--resume", "nowhere"], "nowhere: this is not a run, there is no such folder"),
        (
            ["--resume", "nowhere", "--lr", "1"],
            "--resume takes no --lr: the run's settings are in nowhere/config.json",
        ),
        (["--data", "digits", "--out", "/proc/a"], "/proc/a: cannot make /proc/.minidl-"),
        (["--data", "digits", "--out", "/proc/a/b"], "/proc/a/b: cannot make /proc/a"),
        (["--data", "x" * 300], "no such data set"),
        (["--data-dir", "x" * 300], "cannot write to"),
    ],
)
def test_wrong_options_are_refused_with_one_line(tmp_path, arguments, message):
    refused = train(*arguments, cwd=tmp_path)
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr.startswith("train.py: error: ") and message in refused.stderr
    assert refused.stderr.count("\n") == 1, "one line"
    assert os.listdir(tmp_path) == [], "nothing is left"


@pytest.mark.parametrize(
    "arguments, meant",
    [
        (["--lrr=0.0001"], "; did you mean --lr?"),
        (["--modle", "cifar-bn"], "; did you mean --model?"),
        (["word", "--batch_size", "3", "--modle"], "; did you mean --batch-size?"),
        (["--gpu", "1"], ""),
        (["epochs"], ""),
        (["-e", "3"], ""),
    ],
)
def test_an_unknown_option_is_compared_with_the_known_ones(arguments, meant):
    with pytest.raises(UserError) as raised:
        parser().parse_args(arguments)
    assert str(raised.value) == f"unrecognized arguments: {' '.join(arguments)}{meant} (python train.py --help lists the options)"


def proxies(address):
    """Variables with which every download goes through this proxy."""
    return {"https_proxy": address, "HTTPS_PROXY": address, "no_proxy": "", "NO_PROXY": ""}


def test_no_network_is_one_line(tmp_path):
    refused = train("--data-dir", "data", cwd=tmp_path, env=proxies("http://127.0.0.1:9"))
    assert refused.returncode == 2
    assert re.fullmatch(
        r"train.py: error: cannot download CIFAR-10: get https://\S+/cifar-10-python.tar.gz and put it into \S+/data, or run "
        r"train.py --data digits\n",
        refused.stderr,
    )
    assert os.listdir(tmp_path) == []


def test_a_dangling_link_is_one_line(tmp_path):
    (tmp_path / "runs").symlink_to("/nonexistent/disk")
    refused = train(*SMALL, cwd=tmp_path)
    assert refused.returncode == 2 and "cannot make runs: " in refused.stderr and refused.stderr.count("\n") == 1


def test_a_folder_that_exists_is_not_touched(tmp_path):
    (tmp_path / "a").mkdir()
    refused = train(*SMALL, "--out", "a", cwd=tmp_path)
    assert refused.returncode == 2 and "a: exists already; choose another --out" in refused.stderr
    assert os.listdir(tmp_path / "a") == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": 1}', '{"epochs": '])
def test_a_damaged_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    refused = train("--resume", ".", cwd=tmp_path)
    assert refused.returncode == 2 and "config.json is damaged" in refused.stderr and refused.stderr.count("\n") == 1


def test_a_closed_standard_output_is_no_failure(tmp_path):
    process = start(*QUICK, "--out", "a", cwd=tmp_path)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0 and errors == ""


def test_help_lists_every_option_and_its_default(tmp_path):
    told = train("--help", cwd=tmp_path)
    assert told.returncode == 0
    options = "backend devices model data data-dir recipe epochs batch-size lr dtype seed limit-train limit-test out resume"
    for option in options.split():
        assert f"--{option}" in told.stdout
    assert told.stdout.count("default") >= 10


def test_two_runs_at_once_do_not_collide(tmp_path):
    processes = [start(*QUICK, "--epochs", "1", cwd=tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_repeated_ctrl_c_ends_at_once(tmp_path):
    process = start(*SMALL, "--epochs", "50", "--out", "a", cwd=tmp_path)
    wait_for(process, "; files in")
    for _ in range(4):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("train.py: stopped") and errors.count("\n") == 1
    assert not list((tmp_path / "a" / "checkpoints").glob(".*")), "no part of a file is left"


def test_sigterm_during_a_download_leaves_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts connections and never answers
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        process = start("--data-dir", "data", cwd=tmp_path, env=proxies(address))
        server.settimeout(60)
        connection, _ = server.accept()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        connection.close()
    assert process.returncode == 143 and "Traceback" not in errors
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
