"""python -m minidl.selftest: its report, and that it finds wrong kernels."""

import errno
import json
import runpy
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest

from minidl.errors import TrainingError
from minidl.kernels import numpy_kernels
from minidl.selftest import devices, kernels
from minidl.selftest.devices import main


def run(*arguments, cwd):
    command = [sys.executable, "-m", "minidl.selftest", "--megabytes", "1", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("devices", ["0", "0,1,2"])
def test_all_checks_are_right_on_cpu_processes(tmp_path, devices):
    done = run("--devices", devices, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    report = json.loads((tmp_path / "minidl-selftest.json").read_text())
    checks, count = report["checks"], devices.count(",") + 1
    assert all(check["ok"] for check in checks)
    assert {check["device"] for check in checks} == {f"numpy, rank {rank}" for rank in range(count)}
    assert len(report["speed"]) == count and report["versions"]["numpy"]
    assert done.stdout.splitlines()[-1] == f"{len(checks)} checks passed, 0 failed; the report is in minidl-selftest.json"


def test_a_wrong_kernel_is_found(tmp_path, monkeypatch, capsys):
    """The first call of relu is wrong. It is in the training run that the others are compared with, so they differ."""
    relu = numpy_kernels.relu
    calls = []

    def wrong(x):
        calls.append(x)
        return relu(x) + (0.1 if len(calls) == 1 else 0)

    monkeypatch.setattr(numpy_kernels, "relu", wrong)
    assert main(["--json", str(tmp_path / "report.json"), "--megabytes", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("WRONG") for line in lines) >= 1


@pytest.mark.parametrize(
    "error, told", [(MemoryError("full"), "MemoryError: full"), (TrainingError("rank 1 ended"), "rank 1 ended")]
)
def test_an_error_in_the_checks_is_reported(tmp_path, monkeypatch, capsys, error, told):
    monkeypatch.setattr(devices, "speed", Mock(side_effect=error))
    assert main(["--json", str(tmp_path / "report.json")]) == 1
    assert f"WRONG all: the run: {told}" in capsys.readouterr().out.splitlines()
    assert json.loads((tmp_path / "report.json").read_text())["checks"] == [
        {"device": "all", "name": "the run", "ok": False, "detail": told}
    ]


def test_a_report_is_replaced_only_by_a_complete_one(tmp_path, monkeypatch, capsys):
    def disk_is_full(path, text):
        path.write_bytes(b"")
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "report.json").write_text("an earlier report")
    monkeypatch.setattr(devices, "trained", Mock(side_effect=MemoryError))
    monkeypatch.setattr("pathlib.Path.write_text", disk_is_full)
    assert main(["--json", str(tmp_path / "report.json")]) == 2
    assert "cannot write there: No space left on device" in capsys.readouterr().err
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"an earlier report"]


@pytest.mark.parametrize("where", ["trained", "launch"])
def test_ctrl_c_ends_without_a_traceback(monkeypatch, capsys, where):
    monkeypatch.setattr(devices, where, Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr(sys, "argv", ["selftest"])
    with pytest.raises(SystemExit, match="130"):
        runpy.run_module("minidl.selftest", run_name="__main__")
    assert capsys.readouterr() == ("", "")


def test_nan_is_found(monkeypatch):
    scale_and_shift = numpy_kernels.scale_and_shift
    assert kernels.difference("batch_norm", "numpy", "float32") < 1e-6

    def wrong(x, *args):
        return scale_and_shift(x, *args) * (np.nan if x.dtype == np.float32 else 1)

    monkeypatch.setattr(numpy_kernels, "scale_and_shift", wrong)
    assert np.isnan(kernels.difference("batch_norm", "numpy", "float32"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--devices", "0,0"], "--devices takes different numbers"),
        (["--devices", "a"], "--devices takes different numbers"),
        (["--device", "0"], "unrecognized arguments: --device 0"),
        (["--backend", "tpu"], "invalid choice: 'tpu'"),
        (["--json", "/nowhere/report.json"], "cannot write there: give a file in a folder that exists"),
        (["--json", "/dev/null"], "cannot write there: give a file in a folder that exists"),
        (["--json=--"], "argument --json: expected one argument"),
        (["--devices=--"], "argument --devices: expected one argument"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, arguments, message):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
