"""Compares one process with several on the same cores: python benchmarks/workers.py [--workload W1] [--workers 2]

Measures images per second of a training step of W1 (cifar-bn) or W3 (alexnet-2012; see bench.py), with

    one worker with one thread
    one worker with a thread for each core, the default
    --workers workers, which divide the cores among them: data parallel, and hybrid (see docs/parallel.md)

In each of --rounds rounds all take their turn, and the ratios are taken in each round; quote their median. Also printed, for
rank 0: the bytes that a worker keeps (weights, gradients and velocities) and the bytes that it sends in a step.
"""

import argparse
import statistics
import time

import numpy as np
from contenders import WORKLOADS

import alexnet
import minidl.functional as F
from minidl import Tensor, get_num_threads, random, set_num_threads
from minidl.kernels.layout import from_batch_last
from minidl.optim import SGD
from minidl.parallel import DataParallel, hybrid, launch
from minidl.partition import shard


def steps(communicators, stop, workload, way, threads, batch, count):
    """(seconds of each of `count` steps, after two that are not counted; bytes kept; bytes sent in a step), of rank 0."""
    set_num_threads(threads)
    model, classes, size, _ = WORKLOADS[workload]
    net = alexnet.create(model, classes, image_size=size)
    if way == "hybrid":
        hybrid(net, communicators.main)
    optimizer = SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    parallel = DataParallel(net, optimizer, communicators)
    mine = shard(batch, communicators.rank, communicators.size)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((3, size, size, batch)).astype(np.float32)[..., mine]
    x = Tensor(from_batch_last(np.ascontiguousarray(images)))
    labels = rng.integers(0, classes, batch)[mine]
    seconds, sent = [], 0
    for step in range(count + 2):
        start, sent = time.perf_counter(), communicators.sent
        with random.context(0, step, mine.start):
            loss = F.cross_entropy(net(x), labels, reduction="sum") / batch
        optimizer.zero_grad()
        loss.backward()
        parallel.synchronize()
        optimizer.step()
        sent = communicators.sent - sent
        communicators.main.barrier()
        seconds.append(time.perf_counter() - start)
    kept = sum(p.data.nbytes + p.grad.nbytes for p in optimizer.parameters)
    return seconds[2:], kept + sum(v.nbytes for v in optimizer.momentum_buffers), sent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=["W1", "W3"], default="W1")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, help="images in a step (default: 128 for W1, 32 for W3)")
    parser.add_argument("--steps", type=int, default=5, help="counted steps in a turn (default 5)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender (default 5)")
    options = parser.parse_args()
    batch = options.batch_size or WORKLOADS[options.workload][3]
    cores, workers = get_num_threads(), options.workers
    threads = max(1, cores // workers)
    contenders = {
        "one worker, one thread": (1, "data", 1),
        f"one worker, {cores} threads": (1, "data", cores),
        f"{workers} workers, {threads} thread(s) each, data": (workers, "data", threads),
        f"{workers} workers, {threads} thread(s) each, hybrid": (workers, "hybrid", threads),
    }
    rates, volumes = {name: [] for name in contenders}, {}
    order = list(contenders)
    for _ in range(options.rounds):
        for name in order:
            size, way, threads = contenders[name]
            seconds, *volumes[name] = launch(size, steps, options.workload, way, threads, batch, options.steps)
            rates[name].append(batch / statistics.median(seconds))
        order.append(order.pop(0))
    base = rates["one worker, one thread"]
    for name, values in rates.items():
        ratios = [value / other for value, other in zip(values, base, strict=True)]
        kept, sent = volumes[name]
        print(
            f"{name:<38} {statistics.median(values):6.1f} images/s ({min(values):.1f} to {max(values):.1f}), "
            f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f}); "
            f"keeps {kept / 1e6:.1f} MB, sends {sent / 1e6:.1f} MB a step"
        )
    data, hybrid_ = (rates[name] for name in list(contenders)[2:])
    ratios = [one / other for one, other in zip(hybrid_, data, strict=True)]
    print(f"hybrid against data: {statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
