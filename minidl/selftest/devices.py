"""Check minidl on this machine's devices, and write a report.

    python -m minidl.selftest                                  one CPU process
    python -m minidl.selftest --devices 0,1                    two CPU processes
    python -m minidl.selftest --backend cupy --devices 0,1     two GPUs

On each device: every kernel against NumPy in float64, matrix products in lower precision, dropout masks bit for bit, and a
gradient check of a small network. Between devices: sums and exchanges of known values, and five training steps, data parallel
and hybrid, against one CPU. Then the speed of each device. The results are written to a JSON file; please attach it to a bug
report.

Exit status: 0 if all checks pass, 1 if one fails, 2 for wrong usage or a missing device.
"""

import argparse
import contextlib
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from .. import functional as F
from .. import nn, random
from ..autodiff import Tensor
from ..backend import PRECISIONS, device_of, get_array_module, set_matmul_precision, to_device, to_numpy, use_device
from ..errors import TrainingError, UserError
from ..files import replacing
from ..inspection import gradcheck
from ..kernels import kernels_for
from ..optim import SGD
from ..parallel import ALONE, Communicators, DataParallel, hybrid, launch
from ..parallel.communicator import timeout
from ..parallel.sharding import sharded_parameters, whole_arrays
from ..partition import shard
from .kernels import CALLS, TOLERANCE, difference, masks_are_equal

STEPS, BATCH, SIZE = 5, 7, 12  # SIZE: the height and width of the images
MOST_RANKS = 16  # the most ranks among which a layer is divided
PACKAGES = "minidl numpy cupy-cuda12x cupy-cuda13x cupy-rocm-7-0 nvidia-nccl-cu12 nvidia-nccl-cu13 mpi4py".split()


def network() -> nn.Module:
    """A small network with every kind of layer of AlexNet, and one convolution by Winograd's algorithm."""
    random.manual_seed(0)
    layers = {
        "conv1": nn.Conv2d(3, 16, 5, stride=2, padding=2),
        "bn1": nn.BatchNorm2d(16),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(16, 16, 3, padding=1),
        "lrn2": nn.LocalResponseNorm(5, alpha=0.1, k=2.0),
        "pool2": nn.MaxPool2d(3, 2),
        "flatten": nn.Flatten(),
        "fc3": nn.Linear(16 * 4, 50),
        "relu3": nn.ReLU(),
        "drop3": nn.Dropout(0.3),
        "fc4": nn.Linear(50, MOST_RANKS),
    }
    return nn.Sequential(layers).to(dtype="float64")


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(step)
    return rng.standard_normal((BATCH, 3, SIZE, SIZE)), rng.integers(0, 5, BATCH)


def trained(communicators: Communicators, device: str, way: str = "data") -> list[np.ndarray]:
    """The network's state, on rank 0, after STEPS training steps on the shards of the ranks."""
    model = network().to(device)
    if way == "hybrid":
        hybrid(model, communicators.main)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    parallel = DataParallel(model, optimizer, communicators, bucket_bytes=1 << 12)
    for step in range(STEPS):
        images, labels = batch(step)
        mine = shard(BATCH, communicators.rank, communicators.size)
        with random.context(0, step, mine.start):
            logits = model(Tensor(to_device(images[mine], device)))
        loss = F.cross_entropy(logits, labels[mine], reduction="sum") / BATCH
        optimizer.zero_grad()
        loss.backward()
        parallel.synchronize()
        optimizer.step()
    whole = whole_arrays(model.state_dict(), sharded_parameters(model), communicators.main)
    return [to_numpy(array) for array in whole.values()]


def gradient_error(device: str) -> str:
    """An empty string if backward agrees with finite differences, else the report."""
    model = network().to(device)
    images, labels = batch(0)
    inputs = [Tensor(to_device(images, device), requires_grad=True), *model.parameters()]

    def loss(x, *parameters):
        with random.context(0, 0):
            return F.cross_entropy(model(x), labels)

    try:
        gradcheck(loss, inputs, mode="directions", directions=1)
    except AssertionError as error:
        return str(error)
    return ""


def seconds(work: Callable[[], Any], wait: Callable[[], Any]) -> float:
    """The median time of five calls, after one call to warm up."""
    times = []
    for _ in range(6):
        wait()
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def check(communicators: Communicators, stop, backend: str, devices: list[int], expected: list[np.ndarray], megabytes: int):
    """The checks of one rank. Rank 0 returns those of all ranks: {"checks": [{name, ok, detail}], "speed": {...}}."""
    host, rank = communicators, communicators.rank
    device = "numpy" if backend == "numpy" else f"cupy:{devices[rank]}"
    use_device(device)
    if backend == "cupy" and host.size > 1:
        from ..parallel import nccl

        communicators = nccl.communicators(host, timeout())
    checks: list[dict[str, Any]] = []

    def add(name: str, ok: bool, detail: str) -> None:
        checks.append({"device": f"{device}, rank {rank}", "name": name, "ok": bool(ok), "detail": detail})

    for dtype, tolerance in TOLERANCE.items():
        for name in CALLS:
            largest = difference(name, device, dtype)
            add(f"kernel {name}, {dtype}", largest <= tolerance, f"largest difference {largest:.1e}")
    for precision in PRECISIONS[1:] if backend == "cupy" else ():
        try:
            set_matmul_precision(precision)
        except UserError as reason:
            add(f"products in {precision}", True, f"not available: {reason}")
            continue
        largest = difference("linear", device, "float32")
        add(f"products in {precision}", largest <= 2e-3, f"largest difference {largest:.1e}")
    set_matmul_precision("fp32")
    add("dropout masks", masks_are_equal(device), "equal bit for bit")
    error = gradient_error(device)
    add("gradient check", not error, error or "agrees with finite differences")
    for which, communicator in zip(Communicators._fields, communicators, strict=True):
        array = to_device(np.arange(1000, dtype=np.float32) + rank, device)
        communicator.all_reduce(array, async_op=True).wait()
        total = host.size * np.arange(1000) + sum(range(host.size))
        add(f"sum over ranks, {which}", np.array_equal(to_numpy(array), total), f"{host.size} ranks")
        own = to_device(np.arange(1000, dtype=np.float32) + 1000 * rank, device)
        parts = communicator.exchange([own[q:] for q in range(host.size)], [[1000 - q for q in range(host.size)]] * host.size)
        right = all(np.array_equal(to_numpy(part), np.arange(rank, 1000) + 1000 * p) for p, part in enumerate(parts))
        add(f"exchange between ranks, {which}", right, f"{host.size} ranks")
    for way in ("data", "hybrid") if 1 < host.size <= MOST_RANKS else ("data",):
        state = trained(communicators, device, way)
        if rank == 0:
            pairs = zip(state, expected, strict=True)
            largest = float(np.max([np.abs(a - b).max() / max(1e-3, np.abs(b).max()) for a, b in pairs]))
            add(f"{STEPS} steps against one CPU, {way}", largest <= 1e-9, f"largest difference {largest:.1e}")
    return gathered(host, {"checks": checks, "speed": speed(communicators, device, megabytes)})


def speed(communicators: Communicators, device: str, megabytes: int) -> dict[str, Any]:
    host = np.ones(megabytes << 18, np.float32)
    there = to_device(host, device)
    xp = get_array_module(there)
    wait = (lambda: None) if xp is np else (lambda: xp.cuda.Device().synchronize())
    side = to_device(np.ones((1024, 1024), np.float32), device)
    figures: dict[str, Any] = {"device": device_of(there)}
    for precision in PRECISIONS if xp is not np else PRECISIONS[:1]:
        with contextlib.suppress(UserError):
            set_matmul_precision(precision)
            took = seconds(lambda: kernels_for(side).linear(side, side, None), wait)
            figures[f"{precision}_gemm_gflops"] = 2 * 1024**3 / took / 1e9
    set_matmul_precision("fp32")
    if xp is not np:
        properties = xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)
        figures["name"] = properties["name"].decode()
        figures["host_to_device_gb_per_s"] = host.nbytes / seconds(lambda: to_device(host, device), wait) / 1e9
        count = xp.cuda.runtime.getDeviceCount()
        own = xp.cuda.Device().id
        figures["peer_access"] = [
            other for other in range(count) if other != own and xp.cuda.runtime.deviceCanAccessPeer(own, other)
        ]
    if communicators.size > 1:
        took = seconds(lambda: communicators.gradients.all_reduce(there, async_op=True).wait(), wait)
        figures["all_reduce_megabytes"], figures["all_reduce_gb_per_s"] = megabytes, host.nbytes / took / 1e9
    return figures


def gathered(communicators: Communicators, report: dict[str, Any]) -> dict[str, Any]:
    """The reports of all ranks joined into one."""
    text = np.frombuffer(json.dumps(report).encode(), np.uint8)
    sizes = communicators.main.all_gather(np.array([text.size]))[:, 0]
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: text.size] = text
    rows = communicators.main.all_gather(padded)
    reports = [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]
    return {"checks": [c for report in reports for c in report["checks"]], "speed": [report["speed"] for report in reports]}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class Parser(argparse.ArgumentParser):
    """A parser that raises UserError for a wrong command line, and also for `--json=--`.

    Python 3.12 and older parse that as an empty list.
    """

    def parse_args(self, *args, **options):
        parsed = super().parse_args(*args, **options)
        for name, value in vars(parsed).items():
            if value == []:
                self.error(f"argument --{name}: expected one argument")
        return parsed

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def main(arguments=None) -> int:
    parser = Parser(
        prog="python -m minidl.selftest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--backend", choices=["numpy", "cupy"], default="numpy")
    parser.add_argument("--devices", default="0", metavar="0,1", help="numbers of GPUs; or one for each CPU process (default 0)")
    parser.add_argument("--megabytes", type=int, default=64, help="size of the array for the transfer test (default 64)")
    parser.add_argument("--json", type=Path, default=Path("minidl-selftest.json"), help="the file for the report")
    try:
        options = parser.parse_args(arguments)
        devices = [int(device) for device in options.devices.split(",")]
        if len(set(devices)) < len(devices) or min(devices) < 0 or options.megabytes < 1:
            raise ValueError
        if not options.json.parent.is_dir() or (options.json.exists() and not options.json.is_file()):
            parser.error(f"--json {options.json}: cannot write there: give a file in a folder that exists")
    except UserError as error:
        print(f"minidl.selftest: error: {error} (--help lists the options)", file=sys.stderr)
        return 2
    except ValueError:
        print(
            "minidl.selftest: error: --devices takes different numbers such as 0 or 0,1, and --megabytes a number above 0",
            file=sys.stderr,
        )
        return 2
    report: dict[str, Any] = {"versions": versions(), "backend": options.backend, "devices": devices}
    try:
        expected = trained(ALONE, "numpy")
        settings = options.backend, devices, expected, options.megabytes
        report |= launch(len(devices), check, *settings, timeout=timeout())
    except UserError as error:
        print(f"minidl.selftest: error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        detail = str(error) if isinstance(error, TrainingError) else f"{type(error).__name__}: {error}"
        report |= {"checks": [{"device": "all", "name": "the run", "ok": False, "detail": detail}], "speed": []}
    for line in report["checks"]:
        print(f"{'ok   ' if line['ok'] else 'WRONG'} {line['device']}: {line['name']}: {line['detail']}")
    for line in [report["versions"], *report["speed"]]:
        print(", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in line.items()))
    wrong = sum(not line["ok"] for line in report["checks"])
    try:
        with replacing(options.json) as part:
            part.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        print(f"minidl.selftest: error: --json {options.json}: cannot write there: {error.strerror}", file=sys.stderr)
        return 2
    print(f"{len(report['checks']) - wrong} checks passed, {wrong} failed; the report is in {options.json}")
    return 1 if wrong else 0
