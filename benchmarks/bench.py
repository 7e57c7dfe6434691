"""A training step of AlexNet for CIFAR-10 here and in PyTorch, taken in turns: make bench

A step is forward, cross-entropy, backward and the update (SGD, momentum .9, decay 5e-4), of a batch of 128 images.

    W1  cifar-bn   batch normalisation after every convolution
    W2  cifar-lrn  local response normalisation after conv1 and conv2

Each contender lives in a process of its own and waits while the others work. In a round each does one step, one after the
other, so that a machine that slows down slows all; the ratio is taken round by round. Quote the median of the ratios, with
its spread, the machine and n. Peak memory is that of the whole process, its children included.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

WORKLOADS = {"W1": "cifar-bn", "W2": "cifar-lrn"}
BATCH = 128
OURS, EAGER, CHANNELS_LAST = "minidl", "PyTorch eager", "PyTorch channels_last"


def minidl_step(workload):
    """A function that does one training step."""
    import alexnet
    import minidl.functional as F
    from minidl import Tensor, random
    from minidl.backend import from_batch_last
    from minidl.optim import SGD

    net = alexnet.create(WORKLOADS[workload], 10)
    optimizer = SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    rng = np.random.default_rng(0)
    images = from_batch_last(rng.standard_normal((3, 32, 32, BATCH)).astype(np.float32))
    labels = rng.integers(0, 10, BATCH)
    count = 0

    def step():
        nonlocal count
        count += 1
        with random.context(0, count):
            loss = F.cross_entropy(net(Tensor(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def torch_step(workload, channels_last):
    """The same in PyTorch."""
    import torch
    from torch import nn

    def block(inputs, outputs, kernel, local):
        yield nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        if workload == "W1":
            yield nn.BatchNorm2d(outputs)
        yield nn.ReLU()
        if workload == "W2" and local:
            yield nn.LocalResponseNorm(5, 1e-4, 0.75, 2.0)

    net = nn.Sequential(
        *block(3, 96, 5, True),
        nn.MaxPool2d(3, 2),
        *block(96, 256, 5, True),
        nn.MaxPool2d(3, 2),
        *block(256, 384, 3, False),
        *block(384, 384, 3, False),
        *block(384, 256, 3, False),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        *(nn.Linear(2304, 4096), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(4096, 10),
    )
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))
    if channels_last:
        net, images = net.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def step():
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def worker(contender, workload):
    """Serve a contender: for each line read, do a step, and answer with its seconds and the peak memory in MB."""
    step = minidl_step(workload) if contender == OURS else torch_step(workload, contender == CHANNELS_LAST)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - start
        peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
        print(json.dumps({"seconds": seconds, "peak": peak, "loss": loss}), flush=True)


class Contender:
    """A worker process."""

    def __init__(self, name, workload):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", name, workload], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def step(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"bench.py: {self.name} ended with status {self.process.wait()}")
        return json.loads(answer)

    def close(self):
        self.process.communicate()


def sgemm_rate():
    """GFLOP/s of NumPy's float32 matrix product, 4096 x 4096, on all threads: how fast the machine is at this moment."""
    a = np.ones((4096, 4096), np.float32)
    out = np.empty_like(a)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        np.matmul(a, a, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * 4096**3 / best / 1e9


def spread(values, form):
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def measure(workload, names, rounds, warmup):
    """Steps in turns; prints the table, and returns the figures."""
    contenders = [Contender(name, workload) for name in names]
    seconds = {name: [] for name in names}
    peak = {}
    for i in range(warmup + rounds):
        for contender in contenders:
            answer = contender.step()
            peak[contender.name] = answer["peak"]
            if i >= warmup:
                seconds[contender.name].append(answer["seconds"])
    for contender in contenders:
        contender.close()
    print(f"\n{workload} ({WORKLOADS[workload]}), batch {BATCH}, float32; n = {rounds} after {warmup} to warm up")
    for name in names:
        print(f"  {name:<22} {spread([1000 * s for s in seconds[name]], '.0f'):>24} ms a step   peak {peak[name]:5.0f} MB")
    figures = {"seconds": seconds, "peak_mb": peak}
    others = [name for name in names if name != OURS]
    if others:
        better = min(others, key=lambda name: statistics.median(seconds[name]))
        ratios = [ours / theirs for ours, theirs in zip(seconds[OURS], seconds[better], strict=True)]
        print(f"  {OURS} / {better}: {spread(ratios, '.2f')} times as long")
        figures |= {"better": better, "ratios": ratios}
    return figures


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main():
    if sys.argv[1:2] == ["--worker"]:
        return worker(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=9, help="counted steps of each contender (default 9)")
    parser.add_argument("--warmup", type=int, default=2, help="steps not counted, first (default 2)")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    names = [OURS]
    if importlib.util.find_spec("torch"):
        names += [EAGER, CHANNELS_LAST]
    else:
        print("PyTorch is not installed (make bench installs it): measuring minidl alone")
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    if len(names) > 1:
        versions["torch"] = importlib.metadata.version("torch")
    before = sgemm_rate()
    print(
        f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores; " + ", ".join(f"{k} {v}" for k, v in versions.items())
    )
    results = {workload: measure(workload, names, options.rounds, options.warmup) for workload in options.workloads}
    after = sgemm_rate()
    print(f"\nsgemm 4096: {before:.0f} GFLOP/s before, {after:.0f} after")
    if options.json:
        facts = {"processor": processor(), "cores": os.cpu_count(), "versions": versions, "sgemm": [before, after]}
        options.json.write_text(json.dumps(facts | {"workloads": results}, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
