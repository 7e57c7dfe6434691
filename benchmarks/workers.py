"""One process against several on the same cores: python benchmarks/workers.py [--workers 2] [--batch-size 128]

Images per second of W1's training step (cifar-bn; see bench.py), by

    one worker with one thread
    one worker with a thread a core, the default
    as many workers as --workers says, with their shares of the cores, the batch divided between them

Each takes its turn, `rounds` times over. The ratios are taken round by round; quote their median.
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
from minidl.parallel import DataParallel, launch
from minidl.threads import shard


def steps(communicators, stop, threads, batch, count):
    """Seconds of each of `count` steps, after two."""
    set_num_threads(threads)
    model, classes, size, _ = WORKLOADS["W1"]
    net = alexnet.create(model, classes)
    optimizer = SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    parallel = DataParallel(net, optimizer, communicators)
    mine = shard(batch, communicators.rank, communicators.size)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((3, size, size, batch)).astype(np.float32)[..., mine]
    x = Tensor(from_batch_last(np.ascontiguousarray(images)))
    labels = rng.integers(0, classes, batch)[mine]
    seconds = []
    for step in range(count + 2):
        start = time.perf_counter()
        with random.context(0, step, mine.start):
            loss = F.cross_entropy(net(x), labels, reduction="sum") / batch
        optimizer.zero_grad()
        loss.backward()
        parallel.synchronize()
        optimizer.step()
        communicators.main.barrier()
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5, help="counted steps of a turn (default 5)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default 5)")
    options = parser.parse_args()
    cores = get_num_threads()
    contenders = {
        "one worker, one thread": (1, 1),
        f"one worker, {cores} threads": (1, cores),
        f"{options.workers} workers, {max(1, cores // options.workers)} thread(s) each": (
            options.workers,
            max(1, cores // options.workers),
        ),
    }
    rates = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(options.rounds):
        for name in order:
            size, threads = contenders[name]
            seconds = launch(size, steps, threads, options.batch_size, options.steps)
            rates[name].append(options.batch_size / statistics.median(seconds))
        order.append(order.pop(0))
    base = rates["one worker, one thread"]
    for name, values in rates.items():
        ratios = [value / other for value, other in zip(values, base, strict=True)]
        print(
            f"{name:<32} {statistics.median(values):6.1f} images/s ({min(values):.1f} to {max(values):.1f}), "
            f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
