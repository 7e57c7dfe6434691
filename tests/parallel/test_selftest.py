"""python -m minidl.selftest: its report, and that it finds wrong kernels."""

import json
import subprocess
import sys

import numpy as np
import pytest

from minidl.kernels import numpy_kernels
from minidl.selftest import kernels
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
        (["--json", "/nowhere/report.json"], "cannot write there"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, arguments, message):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
