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
from minidl.functional.activation import ReLU
from minidl.kernels import numpy_kernels
from minidl.parallel import ALONE, launch
from minidl.selftest import devices, kernels
from minidl.selftest.devices import main, trained

from ..helpers import ranks


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


def wrong_kernel(monkeypatch):
    tanh = numpy_kernels.tanh
    monkeypatch.setattr(numpy_kernels, "tanh", lambda x: 1.01 * tanh(x))


def wrong_mask(monkeypatch):
    dropout_mask = numpy_kernels.dropout_mask

    def wrong(shape, *args):
        mask = dropout_mask(shape, *args)
        mask[-1:] += 1
        return mask

    monkeypatch.setattr(numpy_kernels, "dropout_mask", wrong)


def wrong_backward(monkeypatch):
    backward = ReLU.backward
    monkeypatch.setattr(ReLU, "backward", lambda self, grad: 1.01 * backward(self, grad))


def wrong_training(monkeypatch):
    """The first call of relu is wrong. It is in the training run that the others are compared with, so they differ."""
    relu = numpy_kernels.relu
    calls = []

    def wrong(x):
        calls.append(x)
        return relu(x) + (0.1 if len(calls) == 1 else 0)

    monkeypatch.setattr(numpy_kernels, "relu", wrong)


@pytest.mark.parametrize(
    "fault, names",
    [
        (wrong_kernel, ["kernel tanh, float32", "kernel tanh, float64"]),
        (wrong_mask, ["dropout masks"]),
        (wrong_backward, ["gradient check"]),
        (wrong_training, ["5 steps against one CPU, data"]),
    ],
)
def test_a_fault_is_found_by_its_own_check(tmp_path, monkeypatch, capsys, fault, names):
    fault(monkeypatch)
    assert main(["--json", str(tmp_path / "report.json"), "--megabytes", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    wrong = [line for line in lines if line.startswith("WRONG ")]
    for line, name in zip(wrong, names, strict=True):
        assert line.startswith(f"WRONG numpy, rank 0: {name}: ")
        if "largest difference" in line:
            assert float(line.rpartition(" ")[2]) > 1e-4
    assert f" checks passed, {len(names)} failed;" in lines[-1]


@pytest.mark.parametrize("name, message", [("all_reduce", "sum over ranks, {}"), ("exchange", "exchange between ranks, {}")])
@pytest.mark.parametrize("rank", [0, 1])
def test_wrong_collectives_are_found_by_their_own_checks(name, message, rank):
    report = launch(2, ranks.selftest_with_a_wrong, name, rank, trained(ALONE, "numpy"))
    wrong = {(check["device"], check["name"]) for check in report["checks"] if not check["ok"]}
    wrong = {(device, name) for device, name in wrong if "steps against one CPU" not in name}
    assert wrong == {(f"numpy, rank {rank}", message.format(which)) for which in ("gradients", "main")}


class Spoiled:
    """The fast kernels, but of one of them the i-th array that it returns or updates has a wrong element.

    called: the names of the kernels that were called, with the numbers of their arrays.
    """

    def __init__(self, spoiled=None, i=0):
        self.spoiled, self.i, self.called = spoiled, i, {}

    def __getattr__(self, name):
        kernel = getattr(numpy_kernels, name)

        def call(*args):
            result = kernel(*args)
            given = args if result is None else result if isinstance(result, tuple | list) else [result]
            floats = [array for array in given if isinstance(array, np.ndarray) and array.dtype.kind == "f"]
            arrays = [array for array in floats if np.isfinite(array).any()]
            self.called[name] = len(arrays)
            if name == self.spoiled:
                array = arrays[self.i]
                place = np.unravel_index(np.where(np.isfinite(array), np.abs(array), -1).argmax(), array.shape)
                array[place] += 1e-3 * max(1, abs(array[place]))
            return result

        return call


@pytest.mark.parametrize("dtype", kernels.TOLERANCE)
@pytest.mark.parametrize("name", kernels.CALLS)
def test_a_wrong_element_of_any_kernel_is_found(monkeypatch, name, dtype):
    """Of each array that a kernel returns."""
    whole = Spoiled()
    monkeypatch.setattr(kernels, "fast_kernels", lambda device: whole)
    assert kernels.difference(name, "numpy", dtype) <= kernels.TOLERANCE[dtype]
    for kernel, count in whole.called.items():
        for i in range(count):
            spoiled = Spoiled(kernel, i)
            monkeypatch.setattr(kernels, "fast_kernels", lambda device, spoiled=spoiled: spoiled)
            assert kernels.difference(name, "numpy", dtype) > kernels.TOLERANCE[dtype], (kernel, i)


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


def test_a_number_in_the_place_of_nan_is_found(monkeypatch):
    relu = numpy_kernels.relu
    monkeypatch.setattr(numpy_kernels, "relu", lambda x: np.nan_to_num(relu(x), posinf=np.inf))
    assert np.isnan(kernels.difference("relu of special values", "numpy", "float64"))
    assert kernels.difference("relu", "numpy", "float64") <= kernels.TOLERANCE["float64"]


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
