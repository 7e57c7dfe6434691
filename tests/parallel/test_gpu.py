"""Training on GPUs, real or simulated (make test-simgpu), compared with NumPy; and errors that must be noticed."""

import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl.functional as F
from alexnet.commands import train
from minidl import Tensor
from minidl.backend import set_matmul_precision, to_device, use_device
from minidl.errors import TrainingError, UserError
from minidl.kernels.layout import from_batch_last
from minidl.parallel import launch
from minidl.selftest.kernels import difference

from ..helpers import folders, ranks

ROOT = Path(__file__).parents[2]
SIMULATED = "SIMGPU_DEVICES" in os.environ
BATCH, STEPS, FEW_STEPS = 5, 20, 4


@pytest.fixture(scope="module", autouse=True)
def cupy():
    try:
        use_device("cupy:0")
    except UserError as reason:
        pytest.skip(str(reason))
    import cupy

    return cupy


@pytest.fixture
def gpus(cupy):
    """gpus(n) skips the test if there are fewer than n GPUs."""

    def gpus(n):
        if cupy.cuda.runtime.getDeviceCount() < n:
            pytest.skip(f"this needs {n} GPUs")

    return gpus


def config(model, backend, devices, dtype="float64", precision="fp32", steps=STEPS, parallel="data"):
    """A short run; its last batch has two images, fewer than three devices."""
    options = ["--precision", precision, "--parallel", parallel]
    options += ["--data", "digits", "--model", model, "--dtype", dtype, "--batch-size", str(BATCH)]
    options += ["--limit-train", str(BATCH * (steps - 1) + 2), "--backend", backend, "--devices", ",".join(map(str, devices))]
    return dataclasses.replace(train.config(train.parser().parse_args(options)), threads=1)


@functools.cache
def on_a_cpu(model, steps):
    return launch(1, ranks.train, config(model, "numpy", [0], steps=steps))


def compare_with_a_cpu(model, devices, steps, parallel="data"):
    expected = on_a_cpu(model, steps)
    result = launch(len(devices), ranks.train, config(model, "cupy", devices, steps=steps, parallel=parallel))
    assert result["correct"] == expected["correct"]
    for name in expected:
        atol = 1e-9 * max(1e-3, np.abs(expected[name]).max())
        np.testing.assert_allclose(result[name], expected[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("model", ["cifar-bn", "cifar-lrn"])
def test_a_gpu_gives_the_result_of_a_cpu(model):
    compare_with_a_cpu(model, [0], FEW_STEPS)


@pytest.mark.parametrize("model", ["small-bn", "small-lrn"])
@pytest.mark.parametrize("devices", [[0], [1, 0], [0, 1, 2]], ids=str)
def test_gpus_give_the_result_of_a_cpu(gpus, model, devices):
    gpus(max(devices) + 1)
    compare_with_a_cpu(model, devices, STEPS)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", ranks.COLLECTIVES)
def test_collectives_of_gpus_and_their_gradients(gpus, kind, size):
    """Rank 0's shard is empty."""
    gpus(size)
    assert launch(size, ranks.collective_is_its_definition, kind, size - 2, 2, "cupy") < 1e-8


@pytest.mark.parametrize("model, devices", [("cifar-bn", [0, 1, 2]), ("cifar-lrn", [1, 0])], ids=str)
def test_hybrid_gpus_give_the_result_of_a_cpu(gpus, model, devices):
    gpus(max(devices) + 1)
    compare_with_a_cpu(model, devices, FEW_STEPS, parallel="hybrid")


def test_two_gpus_as_towers_give_the_result_of_a_cpu(gpus, tmp_path):
    """Two steps of net-145; the last batch has one image."""
    gpus(2)
    data = folders.split(tmp_path, {"red": 3, "green": 3}, {"red": 6, "green": 5})

    def settings(backend, devices, parallel):
        options = ["--data", str(data), "--image-size", "64", "--model", "net-145", "--dtype", "float64", "--batch-size", "5"]
        options += ["--backend", backend, "--devices", devices, "--parallel", parallel]
        return dataclasses.replace(train.config(train.parser().parse_args(options)), threads=1)

    expected = launch(1, ranks.train, settings("numpy", "0", "data"))
    result = launch(2, ranks.train, settings("cupy", "1,0", "towers"))
    for name in expected:
        atol = 1e-9 * max(1e-3, np.abs(expected[name]).max())
        np.testing.assert_allclose(result[name], expected[name], rtol=0, atol=atol, err_msg=name)


@pytest.fixture
def fp16(cupy):
    set_matmul_precision("fp16")
    yield
    set_matmul_precision("fp32")


@pytest.mark.parametrize("name", ["linear", "conv2d", "conv2d with groups"])
def test_products_in_fp16_have_its_accuracy(fp16, name):
    """The factors have 11 significant bits, the sums have more."""
    assert 2e-5 < difference(name, "cupy:0", "float32") < 2e-3
    assert difference(name, "cupy:0", "float64") < 1e-12


def test_fp16_products_do_not_lose_small_or_large_numbers(cupy, fp16):
    from minidl.kernels.cupy_kernels import linear

    rng = np.random.default_rng(0)
    x, weight = (cupy.asarray(rng.standard_normal(shape), np.float32) for shape in ((20, 40), (30, 40)))
    product = linear(x, weight, None)
    for shift in (-60.0, 60.0):  # powers of two
        np.testing.assert_array_equal(linear(x * 2**shift, weight, None).get(), (product * 2**shift).get())
    assert not linear(x * 0, weight, None).any()
    # The smallest normal numbers. CuPy compiles its kernels so that NVIDIA's GPUs round smaller ones to 0.
    huge, tiny = cupy.array([[2e38, 1]], np.float32), cupy.array([[1.2e-38, 1.2e-38]], np.float32)
    assert linear(tiny, huge, None).get() == pytest.approx(2.4, rel=1e-3)
    assert not cupy.isfinite(linear(x * np.float32(np.inf), weight, None)).any()


def test_convolutions_in_low_precision_use_im2col(cupy, fp16):
    """Winograd's convolution amplifies the rounding of its factors, a thousand times with the largest tiles."""
    from minidl.kernels import cupy_kernels

    geometry = (32, 32), (64, 64, 3, 3), (1, 1), (1, 1), 1, np.float32
    assert cupy_kernels.winograd_tile(*geometry) is None
    set_matmul_precision("fp32")
    assert cupy_kernels.winograd_tile(*geometry) is not None


def test_cublas_is_asked_for_tf32(cupy, monkeypatch):
    """The simulator has no tf32; with it, the test checks the arguments that cuBLAS gets."""
    from minidl.kernels import cuda

    cublas, kinds = cuda.cublas, []

    class Watched:
        def __getattr__(self, name):
            return getattr(cublas, name)

        def gemmStridedBatchedEx(self, *args):
            kinds.append(args[-2])
            cublas.gemmStridedBatchedEx(*args[:-2], cupy.cuda.runtime.CUDA_R_32F, args[-1])

    if SIMULATED:
        with pytest.raises(UserError, match=r"tf32 needs an NVIDIA GPU of compute capability 8.0 or more, which cupy:0 is not"):
            set_matmul_precision("tf32")
        monkeypatch.setattr(cuda, "cublas", Watched())
        monkeypatch.setattr("minidl.backend._precision", "tf32")
        assert difference("linear", "cupy:0", "float32") < 2e-5
        assert kinds and set(kinds) == {cublas.CUBLAS_COMPUTE_32F_FAST_TF32}
        kinds.clear()
        assert difference("linear", "cupy:0", "float64") < 1e-12
        assert set(kinds) == {cupy.cuda.runtime.CUDA_R_64F}
    else:
        monkeypatch.setattr("minidl.backend._precision", "fp32")
        set_matmul_precision("tf32")
        assert difference("linear", "cupy:0", "float32") < 2e-3  # cuBLAS may use tf32, but need not


def test_training_in_half_precision(gpus):
    """Only two steps: after more, runs in float32 diverge."""
    gpus(2)
    expected = launch(1, ranks.train, config("cifar-bn", "numpy", [0], "float32", steps=2))
    result = launch(2, ranks.train, config("cifar-bn", "cupy", [0, 1], "float32", "fp16", steps=2))
    assert abs(result["loss"] / expected["loss"] - 1) < 1e-3
    errors = {
        name: np.linalg.norm(result[name] - expected[name]) / np.linalg.norm(expected[name])
        for name in expected
        if name.startswith("velocity") and name.endswith("weight")
    }
    assert 1e-4 < max(errors.values()) < 0.1, errors


def test_collectives_of_gpus(gpus):
    gpus(2)
    for dtype in ("float32", "float64", "int64"):
        launch(2, ranks.sums_of_gpus, [(), (0,), (7, 5), (1000, 300)], dtype)


@pytest.mark.parametrize(
    "bug",
    [
        "the sum begins too early",
        "the sum is read too early",
        "a batch is overwritten",
        "a batch is read too early",
        "a buffer is freed too early",
    ],
)
def test_a_planted_bug_is_noticed(gpus, bug):
    """Each bug removes a wait or a reference. On a real GPU it may not show for a long time."""
    if not SIMULATED:
        pytest.skip("needs the simulator's adversarial order of work")
    gpus(2)
    settings = config("cifar-lrn", "cupy", [0, 1], steps=FEW_STEPS)
    expected = on_a_cpu("cifar-lrn", FEW_STEPS)
    try:
        result = launch(2, ranks.train_with, bug, settings)
    except TrainingError as error:  # the simulator fills memory with NaN, and catches some accesses
        if not re.search("the loss is nan|CUDARuntimeError|hipError", str(error)):
            raise
        return
    assert any(not np.allclose(result[name], expected[name], rtol=0, atol=1e-9) for name in expected), "the bug went unnoticed"


def test_collectives_in_different_orders_are_noticed(gpus):
    if not SIMULATED:
        pytest.skip("real GPUs wait for ever")
    gpus(2)
    with pytest.raises(TrainingError):
        launch(2, ranks.gpus_out_of_order, timeout=20)


def test_a_rank_that_does_not_join_is_noticed(gpus, monkeypatch):
    gpus(2)
    monkeypatch.setenv("MINIDL_TIMEOUT", "4")
    with pytest.raises(TrainingError):
        launch(2, ranks.a_gpu_is_missing, timeout=4)


@pytest.mark.parametrize("devices, parallel", [([0], "data"), ([0, 1], "hybrid")])
def test_a_step_does_not_wait_for_the_gpu(gpus, devices, parallel):
    """Neither for a stream, a device nor a copy: sums are read one step later, after an event."""
    gpus(len(devices))
    if not SIMULATED:
        pytest.skip("needs the simulator's count of waits")
    settings = config("cifar-bn", "cupy", devices, "float32", steps=FEW_STEPS, parallel=parallel)
    assert launch(len(devices), ranks.waits_of_steps, settings) == [0] * (FEW_STEPS - 1)


def test_without_nccl_an_error_says_what_to_install(monkeypatch):
    """NCCL is a separate package, and CuPy works without it."""
    from minidl.parallel import nccl

    monkeypatch.setattr(nccl, "nccl", None)
    with pytest.raises(UserError, match="several GPUs need NCCL, which is not installed: pip install nvidia-nccl-cu12"):
        nccl.communicators(None, 1.0)


def test_arrays_of_two_gpus_are_refused(cupy, gpus):
    gpus(2)
    from minidl.kernels import cupy_kernels

    here, there = to_device(np.ones((2, 2)), "cupy:0"), to_device(np.ones((2, 2)), "cupy:1")
    with pytest.raises(ValueError, match="arrays on cupy:1 and cupy:0"):
        cupy_kernels.linear(here, there, None)
    with pytest.raises(ValueError, match="x is on cupy:1, but the current device is cupy:0"):
        cupy_kernels.relu(from_batch_last(there))
    with pytest.raises(ValueError, match="linear takes tensors on one device; got x on cupy:0, weight on cupy:1"):
        F.linear(Tensor(here), Tensor(there))


def test_a_kernel_launch_checks_its_arguments(cupy):
    from minidl.kernels import cuda

    x = cupy.ones((4, 4), np.float32)

    def relu(x, y):
        cuda.each("relu", np.dtype(np.float32), 8, x=x, y=y)

    with pytest.raises(ValueError, match=r"relu of float32 was given float32 \(4, 2\) with strides .* as x"):
        relu(x[:, ::2], x)
    with pytest.raises(ValueError, match="relu of float32 was given float16"):
        relu(x, x.astype(np.float16))
    with pytest.raises(ValueError, match="relu of float32 was given float64 .* for float32"):
        relu(x.astype(np.float64), x)
    with pytest.raises(ValueError, match=r"relu of float32 was given ndarray as x, for real\*"):
        relu(np.ones(8, np.float32), x)
    with pytest.raises(TypeError, match="relu takes x, y, count; it was given count, x$"):
        cuda.each("relu", x.dtype, 8, x=x)
    labels = {"rows": x, "labels": cupy.zeros(4, np.int64), "value": 1.0}
    with pytest.raises(ValueError, match="subtract_at_labels of float32 was given str as classes, for int"):
        cuda.each("subtract_at_labels", x.dtype, 8, **labels, classes="8")
    with pytest.raises(OverflowError):
        cuda.each("subtract_at_labels", x.dtype, 8, **labels, classes=2**31)


def test_a_label_that_is_no_class_has_a_loss_of_nan(cupy):
    losses = F.cross_entropy(Tensor(cupy.zeros((4, 3))), cupy.array([0, 3, -1, 2]), reduction="none")
    np.testing.assert_allclose(losses.data.get(), np.log([3, np.nan, np.nan, 3]))


def test_a_missing_gpu_is_one_line(tmp_path):
    command = [sys.executable, ROOT / "train.py", "--backend", "cupy", "--data", "digits", "--devices"]
    for devices in ("7", "0,7"):
        done = subprocess.run([*command, devices], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 2 and done.stdout == ""
        assert re.fullmatch(r"train.py: error: cupy:7: there is no such GPU; there are \d+, numbered from 0\n", done.stderr)
    if SIMULATED:
        done = subprocess.run([*command, "0", "--precision", "tf32"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2 and done.stderr.startswith("train.py: error: tf32 needs an NVIDIA GPU")
        assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mpi", [False, True], ids=["alone", "under MPI"])
def test_train_py_on_two_gpus_ends_as_on_the_cpu(gpus, tmp_path, mpi):
    """Under MPI, MPI sends NCCL's identifiers, and NCCL sums the gradients."""
    gpus(2)
    if mpi:
        pytest.importorskip("mpi4py")
    launcher = [Path(sys.executable).parent / "mpiexec", "-n", "2"] if mpi else []
    options = ["--data", "digits", "--model", "cifar-lrn", "--epochs", "1", "--limit-train", "20", "--limit-test", "11"]
    options += ["--batch-size", "8", "--dtype", "float64", "--lr", "0.01"]
    lines = []
    for start, device in ((launcher, ["--backend", "cupy", "--devices", "0,1"]), ([], [])):
        command = [*start, sys.executable, ROOT / "train.py", *options, *device]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout.splitlines()[-1])
    assert lines[0] == lines[1] and lines[0].startswith("test loss: ")


def test_a_run_can_move_from_the_cpu_to_gpus_and_back(gpus, tmp_path):
    gpus(2)
    options = ["--data", "digits", "--recipe", "deck", "--limit-train", "8", "--limit-test", "5", "--batch-size", "4"]

    def train(*arguments):
        command = [sys.executable, ROOT / "train.py", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    whole = train(*options, "--dtype", "float64", "--epochs", "3", "--out", "whole")
    train(*options, "--dtype", "float64", "--epochs", "1", "--out", "parts")
    train("--resume", "parts", "--epochs", "2", "--backend", "cupy", "--devices", "0,1")
    assert train("--resume", "parts", "--epochs", "3", "--backend", "numpy", "--devices", "0") == whole
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()] for name in ("whole", "parts")
    ]
    for one, other in zip(*rows, strict=True):
        for key in ("train_loss", "test_loss", "lr"):
            assert one[key] == pytest.approx(other[key], rel=1e-9)
