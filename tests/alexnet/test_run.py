"""A run's folder: one writer at a time, written atomically and only in its own place, and which checkpoints it keeps."""

import contextlib
import errno
import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from alexnet import builders, datasets, fitting, lock, report, run, training
from alexnet.commands import train
from alexnet.lock import FolderLock
from alexnet.run import RunFolder
from minidl import checkpoint
from minidl.errors import TrainingError, UserError
from minidl.files import append

from ..helpers import experiments, processes
from ..helpers.experiments import TINY

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it looks into /proc, or needs locks")


def config(*options):
    return builders.found(train.config(train.parser().parse_args([*TINY, *options])), datasets.digits())


@pytest.fixture(scope="module", autouse=True)
def tiny_network():
    with experiments.tiny_network():
        yield


@pytest.fixture(scope="module")
def finished(tiny_network, tmp_path_factory):
    """A finished run of two epochs, to be copied."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert experiments.run(*TINY, "--epochs", 2, "--out", folder) == (0, "")
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


# --- one writer -------------------------------------------------------------------------------------------------------


def test_a_run_in_use_is_refused(folder):
    one = RunFolder.read(folder)
    one.hold()
    before = experiments.content(folder)
    status, message = experiments.run("--resume", folder)
    assert (status, message) == (2, f"another process is using {folder}; wait until it ends, or stop it")
    assert experiments.content(folder) == before
    one.lock.release()
    assert experiments.run("--resume", folder) == (0, "")


def test_a_run_that_another_process_has_changed_since_it_was_read_is_refused(folder):
    one = RunFolder.read(folder)
    assert experiments.run("--resume", folder, "--epochs", 3) == (0, "")
    with pytest.raises(UserError, match="another process has changed its config.json meanwhile; try again"):
        one.hold()
    RunFolder.read(folder).hold()  # it is not locked


def test_a_run_that_may_not_be_read_is_not_called_damaged(folder, monkeypatch):
    monkeypatch.setattr("alexnet.run.read_regular", mock.Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(UserError, match="config.json: no permission to read it$"):
        RunFolder.read(folder)


def test_a_run_that_is_damaged_after_it_was_read_is_not_locked(folder):
    one, config = RunFolder.read(folder), (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(b"x")
    with pytest.raises(UserError, match="config.json is damaged"):
        one.hold()
    (folder / "config.json").write_bytes(config)
    RunFolder.read(folder).hold()


def hold_until_told(lock, pipe):
    pipe.send("holding")
    pipe.recv()


def test_a_process_that_receives_the_lock_holds_it_too(tmp_path):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    lock = FolderLock()
    lock.acquire(tmp_path)
    process = context.Process(target=hold_until_told, args=(lock, theirs))
    process.start()
    assert ours.recv() == "holding"
    lock.release()
    with pytest.raises(UserError, match="another process is using"):
        FolderLock().acquire(tmp_path)
    ours.send("end")
    process.join()
    lock.acquire(tmp_path)
    lock.release()


@LINUX
def test_a_worker_that_outlives_its_run_keeps_it_locked(tmp_path):
    """The parent of two workers is killed while the first is suspended: it could still write."""
    options = ["--data", "digits", "--devices", "0,1", "--epochs", "500", "--limit-train", "64", "--limit-test", "10"]
    command = [sys.executable, ROOT / "train.py"]
    parent = subprocess.Popen([*command, *options, "--out", "run"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    workers = []
    try:
        processes.wait_for_epochs(parent, tmp_path / "run")
        again = subprocess.run([*command, "--resume", "run"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert again.returncode == 2 and again.stderr.startswith("train.py: error: another process is using run;")
        workers = processes.workers(parent.pid)
        os.kill(workers[0], signal.SIGSTOP)
        while "(stopped)" not in Path(f"/proc/{workers[0]}/status").read_text():  # until then its other threads still run
            time.sleep(0.01)
        parent.kill()
        parent.wait()
        with pytest.raises(UserError, match="another process is using"):
            RunFolder.read(tmp_path / "run").hold()
    finally:
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        parent.kill()
    deadline = time.monotonic() + 10
    while True:
        try:
            held = RunFolder.read(tmp_path / "run")
            held.hold()
            break
        except UserError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    held.lock.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr(lock.fcntl, "flock", mock.Mock(side_effect=OSError(number, "")))
    assert train.main([*TINY, "--epochs", "1", "--out", str(tmp_path / "a")]) == 0
    assert "warning: there are no file locks for" in capsys.readouterr().err


def test_a_system_without_locks_leaves_the_run_unlocked(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    assert not RunFolder.create(tmp_path / "a", config()).locked


def test_a_lock_that_cannot_be_made_is_an_error(folder, monkeypatch):
    (folder / ".lock").unlink()
    (folder / ".lock").mkdir()
    assert experiments.run("--resume", folder) == (2, f"{folder}: cannot write there: Is a directory")


# --- it is made atomically --------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_leaves_nothing(tmp_path):
    """Each step of it is made to fail."""
    for function in ("alexnet.run.os.rename", "alexnet.run.replacing", "alexnet.run.FolderLock.acquire"):
        with mock.patch(function, side_effect=OSError(errno.ENOSPC, "No space left on device", "x")):
            status, message = experiments.run(*TINY, "--out", tmp_path / "new" / "a")
        assert (status, message) == (2, f"{tmp_path}/new/a: cannot make x: No space left on device")
        assert not list(tmp_path.iterdir())


def test_unfinished_folders_of_killed_runs_are_removed(tmp_path):
    for name in ("killed", "at-work", "just-begun", "long-ago"):
        (tmp_path / f".minidl-{name}.part").mkdir()
    (tmp_path / ".minidl-killed.part/.lock").touch()
    (tmp_path / ".minidl-killed.part/config.json").touch()
    os.utime(tmp_path / ".minidl-long-ago.part", (0, 0))
    at_work = FolderLock()
    at_work.acquire(tmp_path / ".minidl-at-work.part")
    RunFolder.create(tmp_path / "a", config())
    at_work.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".minidl-at-work.part", ".minidl-just-begun.part", "a"]


@LINUX
def test_a_kill_at_any_step_leaves_a_complete_run_or_none(tmp_path):
    """The process kills itself at its n-th change of the file system: then the folder is a complete run or does not exist."""
    code = (
        "import os, signal, sys\n"
        "from alexnet.commands import train\nfrom alexnet.run import RunFolder\nfrom pathlib import Path\n"
        "config = train.config(train.parser().parse_args(['--data', 'digits']))\n"
        "left = int(sys.argv[1])\n"
        "def watch(event, arguments):\n"
        "    global left\n"
        "    if event in ('os.mkdir', 'os.rename', 'open') and '/proc' not in str(arguments[0]):\n"
        "        if not left: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        left -= 1\n"
        "sys.addaudithook(watch)\n"
        "RunFolder.create(Path('runs/a'), config)\n"
    )
    for n in itertools.count():
        killed = subprocess.run([sys.executable, "-c", code, str(n)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
        if (tmp_path / "runs/a").exists():
            RunFolder.read(tmp_path / "runs/a").hold()
            assert (tmp_path / "runs/a/checkpoints").is_dir()
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL
    assert n >= 5
    for left in (tmp_path / "runs").glob(".minidl-*"):  # without a lock it may still be in use for an hour
        assert not list(left.iterdir())


def test_an_existing_empty_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="exists already"):
        RunFolder.create(tmp_path / "a", config())
    assert not list((tmp_path / "a").iterdir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run.time, "strftime", lambda form: "now")
    names = [RunFolder.create(None, config()).path.name for _ in range(3)]
    assert names == ["tiny-digits-digits-now", "tiny-digits-digits-now-2", "tiny-digits-digits-now-3"]


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_file_modes_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        assert experiments.run(*TINY, "--epochs", 1, "--out", tmp_path / "a") == (0, "")
        assert experiments.run("--resume", tmp_path / "a", "--epochs", 2) == (0, "")
    finally:
        os.umask(before)
    for path in [tmp_path / "a", *(tmp_path / "a").rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (0o777 if path.is_dir() else 0o666) & ~umask, path


# --- written in its own place -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metrics.jsonl", "statistics.jsonl", "checkpoints", ".lock"])
def test_nothing_is_written_through_a_symbolic_link(folder, tmp_path, name):
    outside = (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(outside)
    before = experiments.content(tmp_path)
    status, message = experiments.run("--resume", folder, "--epochs", 3)
    assert status == 2 and message.startswith(f"{folder / name} is a symbolic link")
    assert experiments.content(tmp_path) == before


def test_links_are_replaced_by_files(folder, tmp_path):
    for name in ("config.json", "report.html"):
        outside = tmp_path / name
        outside.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"mine")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(outside)
    before = [(tmp_path / name).read_bytes() for name in ("config.json", "report.html")]
    with mock.patch("alexnet.reporter.report", report):
        assert train.main(["--resume", str(folder), "--epochs", "3"]) == 0
    assert [(tmp_path / name).read_bytes() for name in ("config.json", "report.html")] == before
    assert not (folder / "report.html").is_symlink() and (folder / "report.html").stat().st_size > 1e6
    assert not (folder / "config.json").is_symlink() and RunFolder.read(folder).config.recipe.epochs == 3


def test_a_link_to_a_run_is_a_run(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert experiments.run("--resume", tmp_path / "link") == (0, "")


@pytest.mark.parametrize("name", [".tmpx", "checkpoints/.tmp", "checkpoints/epoch-0000-step-000000.safetensors"])
def test_a_folder_in_the_place_of_a_file_is_left_alone(folder, name):
    (folder / name).mkdir()
    (folder / name / "mine").touch()
    assert experiments.run("--resume", folder, "--epochs", 3) == (0, "")
    assert (folder / name / "mine").exists()


def test_files_put_aside_are_kept(folder):
    newest = experiments.checkpoints(folder)[-1]
    newest.write_bytes(b"damaged")
    Path(f"{newest}.damaged").mkdir()
    (Path(f"{newest}.damaged") / "mine").touch()
    assert experiments.run("--resume", folder) == (0, "")
    assert (Path(f"{newest}.damaged") / "mine").exists() and Path(f"{newest}.damaged.damaged").read_bytes() == b"damaged"


def test_a_checkpoint_that_claims_to_be_huge_is_not_used(finished, folder):
    """Its header names a tensor of 1 TiB, and the file is sparse and of that size."""
    newest = experiments.checkpoints(folder)[-1]
    tensor = {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}
    header = json.dumps({"__metadata__": {"facts": "{}"}, "x": tensor}).encode()
    with open(newest, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + (1 << 40))
    assert experiments.run("--resume", folder) == (0, "")
    assert experiments.metrics(folder) == experiments.metrics(finished)


@LINUX
def test_a_run_whose_lock_is_removed_stops_saving(tmp_path):
    folder = RunFolder.create(tmp_path / "a", config("--epochs", "1"))
    (tmp_path / "a/.lock").unlink()
    other = RunFolder.read(tmp_path / "a")
    other.hold()
    with pytest.raises(TrainingError, match=r"cannot save in .*: its .lock was removed, and another process may be using it"):
        fitting.fit(folder, datasets.digits())
    other.lock.check(tmp_path / "a")
    for one in (folder, other):
        one.lock.release()


@LINUX
def test_a_run_waits_for_a_lock_that_is_held_briefly(folder, monkeypatch):
    """The lock is released while the run waits for the second time."""
    looking, waits = FolderLock(), []
    looking.acquire(folder)

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            looking.release()

    monkeypatch.setattr(lock, "time", SimpleNamespace(sleep=wait))
    assert experiments.run("--resume", folder) == (0, "") and waits == [0.1, 0.1]


def test_the_rest_of_killed_saves_is_removed(folder):
    for name in (".tmpA1b2", ".config.json.00112233.part", "checkpoints/.tmpX", "checkpoints/.epoch-0001.0011.part"):
        (folder / name).write_bytes(bytes(1000))
    (folder / "notes.txt").touch()
    assert experiments.run("--resume", folder) == (0, "")
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"] and (folder / "notes.txt").exists()


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    folder = RunFolder.create(tmp_path / "a", config())
    row = dict(zip(run.Metrics.__struct_fields__, [1, 1.0, 0.5, 1.0, 0.5, 1.0, 1.0, 0.1, 0.5, 1.0], strict=True))
    step = 0
    for epoch, accuracy in enumerate([0.2, 0.6, 0.4, 0.6, 0.5], 1):
        for _ in range(2):  # within the epoch
            step += 1
            folder.save_checkpoint({"x": np.zeros(2)}, {}, epoch - 1, step)
        step += 1
        folder.add_metrics(row | {"epoch": epoch, "test_accuracy": accuracy})
        folder.save_checkpoint({"x": np.zeros(2)}, {}, epoch, step)
    names = [file.name for file in folder.checkpoints()]
    assert names == [f"epoch-{place}.safetensors" for place in ("0002-step-000006", "0004-step-000014", "0005-step-000015")]


def test_checkpoints_are_saved_every_so_many_minutes(finished, tmp_path, monkeypatch):
    """A run that is killed after any of them, and resumed, ends the same."""
    saved = []
    save_checkpoint = RunFolder.save_checkpoint

    def save(folder, arrays, facts, epoch, step):
        save_checkpoint(folder, arrays, facts, epoch, step)
        shutil.copytree(folder.path, tmp_path / f"after {len(saved)}")
        saved.append((epoch, step))

    monkeypatch.setattr(RunFolder, "save_checkpoint", save)
    assert experiments.run(*TINY, "--epochs", 2, "--save-minutes", 1e-9, "--out", tmp_path / "a") == (0, "")
    assert saved == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 5), (1, 6), (1, 7), (1, 8), (1, 9), (1, 10), (2, 10)]
    monkeypatch.undo()
    for n in range(len(saved)):
        assert experiments.run("--resume", tmp_path / f"after {n}", "--save-minutes", 10) == (0, "")
        assert experiments.metrics(tmp_path / f"after {n}") == experiments.metrics(finished)
        assert experiments.weights(tmp_path / f"after {n}") == experiments.weights(finished)
    assert experiments.run(*TINY, "--epochs", 2, "--save-minutes", 100, "--out", tmp_path / "b") == (0, "")
    assert len(experiments.checkpoints(tmp_path / "b")) == 2


def test_a_stop_before_the_first_step_saves(finished, tmp_path):
    folder = RunFolder.create(tmp_path / "a", config("--epochs", "2"))
    with pytest.raises(training.Stopped):
        fitting.fit(folder, datasets.digits(), stop=lambda: True)
    assert [file.name for file in folder.checkpoints()] == ["epoch-0000-step-000000.safetensors"]
    folder.lock.release()
    assert experiments.run("--resume", tmp_path / "a") == (0, "")
    assert experiments.metrics(tmp_path / "a") == experiments.metrics(finished)


@pytest.mark.parametrize("damage", ["cut", "bits", "zeros", "data zeros"])
def test_after_a_damaged_checkpoint_the_previous_one_is_used(finished, folder, capsys, damage):
    newest = experiments.checkpoints(folder)[-1]
    content = newest.read_bytes()
    half = len(content) // 2
    newest.write_bytes(
        {
            "cut": content[:half],
            "bits": content[:half] + bytes([content[half] ^ 4]) + content[half + 1 :],
            "zeros": bytes(len(content)),
            "data zeros": content[:half] + bytes(len(content) - half),
        }[damage]
    )
    damaged = newest.read_bytes()
    assert train.main(["--resume", str(folder)]) == 0
    told = capsys.readouterr().err
    assert f"{newest} is not a checkpoint, or is damaged" in told and told.count("\n") == 1
    assert "resuming from epoch-0001-step-000005.safetensors" in told
    assert experiments.metrics(folder) == experiments.metrics(finished)
    assert experiments.weights(folder) == experiments.weights(finished)
    assert Path(f"{newest}.damaged").read_bytes() == damaged


def test_the_layers_are_measured_in_one_step_of_20(folder):
    """Also after the run was resumed; an epoch has 5 steps."""
    assert experiments.run("--resume", folder, "--epochs", 5) == (0, "")
    rows = [json.loads(line) for line in (folder / "statistics.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 1), (5, 21)]


def test_a_checkpoint_holds_the_whole_state_of_the_run(folder):
    arrays, facts = checkpoint.load(experiments.checkpoints(folder)[-1])
    names = {name.split(".", 1)[0] for name in arrays}
    assert names == {"model", "velocity"} and "model.bn1.running_mean" in arrays
    assert facts["config"] == json.loads((folder / "config.json").read_text())
    assert (facts["progress"]["epoch"], facts["progress"]["step"]) == (2, 10) and len(facts["rates"]) == 6


def test_other_images_are_refused(folder):
    changed = datasets.digits()
    changed.test.images[7, 0, 3, 3] ^= 1
    with mock.patch("alexnet.datasets.digits", return_value=changed):
        status, message = experiments.run("--resume", folder)
    assert status == 2 and "it was trained on other images than these" in message


@pytest.mark.parametrize("recipe", ["deck", "default", "alexnet-2012"])
def test_a_finished_run_can_be_trained_longer(tmp_path, recipe):
    """It equals a run that was longer from the start, if the learning rate does not depend on the number of epochs."""
    options = [*TINY, "--recipe", recipe]
    assert experiments.run(*options, "--epochs", 4, "--out", tmp_path / "long") == (0, "")
    assert experiments.run(*options, "--epochs", 2, "--out", tmp_path / "short") == (0, "")
    assert experiments.run("--resume", tmp_path / "short", "--epochs", 4) == (0, "")
    rows = [experiments.metrics(tmp_path / name) for name in ("long", "short")]
    assert [row["epoch"] for row in rows[1]] == [1, 2, 3, 4]
    assert [row["lr"] for row in rows[1][2:]] == [row["lr"] for row in rows[0][2:]]
    assert (rows[0] == rows[1]) == (recipe != "default")
    assert RunFolder.read(tmp_path / "short").config.recipe.epochs == 4
    status, message = experiments.run("--resume", tmp_path / "short", "--epochs", 3)
    assert status == 2 and message.startswith("--epochs 3: this run has 4 epochs")


def test_resuming_a_finished_run_says_so(folder, capsys):
    """And gives the same result, which is still the last line on standard output."""
    before = experiments.metrics(folder)
    assert train.main(["--resume", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert err == "train.py: the run is finished, 2 of 2 epochs; --epochs 3 trains it longer\n"
    row = before[-1]
    assert out.splitlines()[-1] == f"test loss: {row['test_loss']:.4f} - accuracy: {row['test_accuracy']:.4f}"
    assert experiments.metrics(folder) == before
    assert train.main(["--resume", str(folder), "--epochs", "3"]) == 0
    assert "finished" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "key, change", [("threads", lambda threads: threads + 1), ("devices", lambda _: [1]), ("epochs", lambda _: 3)]
)
def test_changes_in_config_json_are_reported(folder, capsys, key, change):
    """The settings are compared with those in the checkpoint."""
    settings = json.loads((folder / "config.json").read_text())
    before, settings[key] = settings[key], change(settings[key])
    (folder / "config.json").write_text(json.dumps(settings))
    assert train.main(["--resume", str(folder)]) == 0
    assert f"{key} {settings[key]} (before: {before})" in capsys.readouterr().err


def with_epochs(folder, in_config, in_checkpoints):
    """Change the number of epochs in config.json and in the checkpoints, whose checksums are right."""
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"epochs": in_config}))
    for file in experiments.checkpoints(folder):
        arrays, facts = checkpoint.load(file)
        facts["config"]["epochs"] = in_checkpoints
        checkpoint.save(file, arrays, facts)


def test_fewer_epochs_in_config_json_than_the_run_has_are_refused(folder):
    with_epochs(folder, 1, 2)
    status, message = experiments.run("--resume", folder)
    assert status == 2 and "it is from a run of 2 epochs, but config.json has 1" in message


def test_a_checkpoint_of_more_epochs_than_the_run_has_is_not_used(folder, capsys):
    with_epochs(folder, 1, 1)
    assert train.main(["--resume", str(folder)]) == 0
    told = capsys.readouterr().err
    assert "it has more epochs than the run's 1" in told and "resuming from epoch-0001-step-000005.safetensors" in told


def test_changed_settings_and_versions_are_reported(folder, capsys, monkeypatch):
    monkeypatch.setattr(train, "VERSIONS", train.VERSIONS | {"numpy": "9.9"})
    monkeypatch.setattr(train.minidl, "get_num_threads", lambda: 7)
    before = RunFolder.read(folder).config
    assert train.main(["--resume", str(folder), "--epochs", "3"]) == 0
    told = capsys.readouterr().err
    assert f"resuming with {before.threads} threads, as in config.json; a new run here has 7" in told
    assert f"resuming with epochs 3 (before: 2), version of numpy 9.9 (before: {np.__version__})" in told


@pytest.mark.parametrize("name", ["append", "checkpoint.save"])
def test_a_failed_save_ends_the_run(tmp_path, name):
    with mock.patch(f"alexnet.run.{name}", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        status, message = experiments.run(*TINY, "--epochs", 1, "--out", tmp_path / "a")
    assert (status, message) == (1, f"cannot save in {tmp_path / 'a'}: No space left on device")
    assert experiments.run("--resume", tmp_path / "a") == (0, "")


def test_a_line_of_metrics_that_cannot_be_written_ends_the_run(tmp_path):
    folder = RunFolder.create(tmp_path / "a", config("--epochs", "1"))
    (tmp_path / "a/metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match="cannot save in"):
        fitting.fit(folder, datasets.digits())


def test_a_run_whose_metrics_are_damaged_meanwhile_keeps_its_folder(tmp_path, monkeypatch):
    add = RunFolder.add_metrics

    def add_and_damage(folder, row):
        add(folder, row)
        if row["epoch"] == 2:
            append(folder.path / "metrics.jsonl", b"\n")

    folder = tmp_path / "a"
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "add_metrics", add_and_damage)
        status, message = experiments.run(*TINY, "--epochs", 2, "--out", folder)
    assert status == 1 and "metrics.jsonl is damaged" in message
    (folder / "metrics.jsonl").write_bytes((folder / "metrics.jsonl").read_bytes().rstrip(b"\n") + b"\n")
    assert experiments.run("--resume", folder) == (0, "")


def test_a_finished_run_is_kept_if_its_metrics_are_damaged_before_the_pictures(tmp_path, monkeypatch):
    """A UserError removes the folder of a new run, but not its checkpoints."""
    told = []
    monkeypatch.setattr("alexnet.entry.tell", told.append)
    monkeypatch.setattr(fitting.Reporter, "_close", lambda self: append(self.folder.path / "metrics.jsonl", b"\n"))
    assert experiments.run(*TINY, "--epochs", 1, "--out", tmp_path / "a") == (0, "")
    assert len(told) == 2 and all(re.search("warning: cannot write .*: .*metrics.jsonl is damaged", line) for line in told)
    (tmp_path / "a/metrics.jsonl").write_bytes((tmp_path / "a/metrics.jsonl").read_bytes().rstrip(b"\n") + b"\n")
    assert experiments.run("--resume", tmp_path / "a", "--epochs", 2)[0] == 0


def test_a_new_run_with_a_checkpoint_is_not_removed(tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("it cannot go on")

    monkeypatch.setattr(fitting.Reporter, "end", fail)
    assert experiments.run(*TINY, "--epochs", 1, "--out", tmp_path / "a") == (2, "it cannot go on")
    monkeypatch.undo()
    assert experiments.run("--resume", tmp_path / "a", "--epochs", 2)[0] == 0


def test_the_result_is_printed_before_pictures_are_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fitting.Reporter, "end", lambda *_: print("drawn"))
    assert train.main([*TINY, "--epochs", "1", "--out", str(tmp_path / "a")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.index("drawn") == len(lines) - 1 and lines[-2].startswith("test loss: ")
