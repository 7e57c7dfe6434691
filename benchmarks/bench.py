"""Times AlexNet's training step and forward pass in minidl and in other frameworks, in turns: make bench

A step is forward, cross-entropy, backward and the update; the forward pass is that of evaluation, without recording.

    W1  cifar-bn, 128 images      batch normalisation after every convolution
    W2  cifar-lrn, 128 images     local response normalisation after conv1 and conv2
    W3  alexnet-2012, 32 images   the network of Krizhevsky 2012: 3 x 227 x 227, 1000 classes

Each contender is a process of its own, and waits while the others work. In a round each does one step, one after the other;
in the next round the first one is last. So a slow phase of the machine slows all contenders, and the ratio is taken in each
round. Quote the median of the ratios, with its spread, the machine and n. Peak memory is that of the process, after the
training steps; no contender starts other processes. To write the table into README: python benchmarks/bench.py --readme README.md
"""

import argparse
import contextlib
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
import tempfile
import time
from pathlib import Path

import contenders
import numpy as np
from contenders import WORKLOADS

OURS = "minidl"
PYTORCH = {"PyTorch eager": False, "PyTorch channels_last": True}  # name: whether channels_last
TENSORFLOW = "TensorFlow"
GFLOP = {"W1": (82.8, 246.6), "W2": (82.8, 246.6), "W3": (46.4, 132.3)}  # of the matrix products, in forward and in a step
BATCHES = (32, 128, 512)
BEGIN, END = "<!-- benchmark: python benchmarks/bench.py --readme README.md -->", "<!-- end of benchmark -->"


def serve(name, workload, batch):
    """Run as a contender: for each input line, "train", "forward" or "layers", do it and answer with a line of JSON."""
    if name == OURS:
        train, forward, layers = contenders.minidl(workload, batch)
    elif name == TENSORFLOW:
        train, forward = contenders.tensorflow(workload, batch)
    else:
        train, forward = contenders.torch(workload, batch, PYTORCH[name])
    for line in sys.stdin:
        if line.strip() == "layers":
            answer = layers()
        else:
            start = time.perf_counter()
            (train if line.strip() == "train" else forward)()
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
            answer = {"seconds": seconds, "peak": peak}
        print(json.dumps(answer), flush=True)


class Contender:
    """The process of a contender, as a context."""

    def __init__(self, name, workload, batch=None):
        self.name, self.workload = name, workload
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  open as long as the process
        command = [sys.executable, __file__, "--serve", name, workload, str(batch or WORKLOADS[workload][3])]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        self.process = subprocess.Popen(command, text=True, **pipes)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()

    def do(self, task):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(task + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            status = self.process.wait()
            self.errors.seek(0)
            sys.exit(f"{self.errors.read()}bench.py: {self.name} on {self.workload} ended with status {status}")
        return json.loads(answer)


@contextlib.contextmanager
def contending(contenders):
    """{name: Contender}, as a context that ends all of them."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(contender) for name, contender in contenders.items()}


def take_turns(members, task, rounds, warmup):
    """({name: seconds of each round}, {name: peak memory in MB})."""
    seconds, peak = {name: [] for name in members}, {}
    order = list(members)
    for i in range(warmup + rounds):
        for name in order:
            answer = members[name].do(task)
            peak[name] = answer["peak"]
            if i >= warmup:
                seconds[name].append(answer["seconds"])
        order.append(order.pop(0))
    return seconds, peak


def ratios(seconds):
    """(the faster PyTorch, minidl's time divided by its time in each round); (None, []) without PyTorch."""
    others = [name for name in seconds if name in PYTORCH]
    if not others:
        return None, []
    better = min(others, key=lambda name: statistics.median(seconds[name]))
    return better, [ours / theirs for ours, theirs in zip(seconds[OURS], seconds[better], strict=True)]


def sgemm_rate():
    """The present speed of the machine: GFLOP/s of NumPy's float32 matrix product, 4096 x 4096, on all threads."""
    a = np.ones((4096, 4096), np.float32)
    out = np.empty_like(a)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        np.matmul(a, a, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * 4096**3 / best / 1e9


def spread(values, form, unit=""):
    return f"{statistics.median(values):{form}}{unit} ({min(values):{form}} to {max(values):{form}})"


def milliseconds(values):
    return spread([1000 * value for value in values], ".0f", " ms")


def measure(workload, names, rounds, warmup):
    """The results of a workload: {"train" and "forward": {name: seconds}, "peak": {name: MB}, "layers": minidl's, "sgemm"}."""
    rate = sgemm_rate()
    with contending({name: Contender(name, workload) for name in names}) as members:
        train, peak = take_turns(members, "train", rounds, warmup)
        forward, _ = take_turns(members, "forward", rounds, warmup)
        steps = [members[OURS].do("layers") for _ in range(rounds)]
    layers = {name: [statistics.median(step[name][i] for step in steps) for i in (0, 1)] for name in steps[0]}
    return {"train": train, "forward": forward, "peak": peak, "layers": layers, "sgemm": rate}


def row(title, seconds, peak=None):
    """A row of the Markdown table."""
    cells = [milliseconds(times) + (f", {peak[name]:.0f} MB" if peak else "") for name, times in seconds.items()]
    better, by_round = ratios(seconds)
    return "| " + " | ".join([title, *cells, *([f"**{spread(by_round, '.2f')}**"] if better else [])]) + " |"


def breakdown(workload, result):
    """minidl's time of each layer, and the ratio to the time of im2col's matrix products at the present sgemm rate."""
    rate = result["sgemm"]
    lines = [f"\n{workload} layer by layer, ms: forward, backward"]
    for name, (forward, back) in result["layers"].items():
        lines.append(f"  {name:<20} {1000 * forward:7.1f} {1000 * back:7.1f}")
    for kind, gflop in zip(("forward", "train"), GFLOP[workload], strict=True):
        bound, ours = gflop / rate, statistics.median(result[kind][OURS])
        lines.append(
            f"  {kind}: {1000 * ours:.0f} ms; {gflop} GFLOP as im2col's products at {rate:.0f} GFLOP/s: {1000 * bound:.0f} ms; "
            f"ratio {ours / bound:.2f}"
        )
    return "\n".join(lines)


def throughput(rounds, warmup):
    """Images per second of W1's training step at several batch sizes."""
    with contending({batch: Contender(OURS, "W1", batch) for batch in BATCHES}) as members:
        seconds, _ = take_turns(members, "train", rounds, warmup)
    return {batch: [batch / s for s in times] for batch, times in seconds.items()}


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def with_table(readme, table):
    """The file's text with this table between its two marks, included. Ends the program if it has no marks."""
    try:
        old = readme.read_text(encoding="utf-8")
    except OSError as error:
        sys.exit(f"bench.py: cannot read {readme}: {error.strerror}")
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        sys.exit(f"bench.py: {readme} lacks the marks {BEGIN} and {END}")
    return old.partition(BEGIN)[0] + table + old.partition(END)[2]


def write(path, text):
    """Write a file atomically."""
    from minidl.files import replacing  # here, because the other contenders do not load minidl

    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def main():
    if sys.argv[1:2] == ["--serve"]:
        return serve(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=9, help="counted steps of each contender (default 9)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them that are not counted (default 2)")
    parser.add_argument("--json", type=Path, help="write all figures into this file")
    parser.add_argument("--readme", type=Path, help="put the table into this file, between its two marks")
    options = parser.parse_args()
    if options.readme:
        with_table(options.readme, "")  # so that it ends here, not after the measurement
    if options.json and not options.json.parent.is_dir():
        sys.exit(f"bench.py: there is no folder {options.json.parent} for --json")
    installed = {package: importlib.util.find_spec(package) is not None for package in ("torch", "tensorflow")}
    names = [OURS, *(PYTORCH if installed["torch"] else ()), *([TENSORFLOW] if installed["tensorflow"] else ())]
    if not installed["torch"]:
        print("PyTorch is not installed (make bench installs it): no ratios")
    versions = {"Python": platform.python_version(), "NumPy": np.__version__}
    wheels = importlib.metadata.packages_distributions()  # TensorFlow's wheel may be tensorflow-cpu
    versions |= {name: importlib.metadata.version(wheels[name][0]) for name, there in installed.items() if there}

    results, table = {}, ["| | " + " | ".join(names) + (" | ratio to the better PyTorch" if installed["torch"] else "") + " |"]
    table.append("|---" * (table[0].count("|") - 1) + "|")
    for workload in options.workloads:
        result = results[workload] = measure(workload, names, options.rounds, options.warmup)
        model, _, _, batch = WORKLOADS[workload]
        table.append(row(f"{workload}, `{model}`, a step of {batch}", result["train"], result["peak"]))
        table.append(row(f"{workload}, forward only", result["forward"]))
        print(breakdown(workload, result), flush=True)
    with contending({name: Contender(name, "W3", 1) for name in names}) as single:
        one_image, _ = take_turns(single, "forward", 3 * options.rounds, options.warmup)
    table.append(row("one image through `alexnet-2012`", one_image))
    batches = throughput(options.rounds, options.warmup)
    rates = [result["sgemm"] for result in results.values()] + [sgemm_rate()]

    facts = (
        f"Medians with the smallest and largest of n = {options.rounds} after {options.warmup} to warm up (one image: "
        f"{3 * options.rounds}), and the peak memory of the process. {processor()}, {os.cpu_count()} cores; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f"; sgemm {min(rates):.0f} to {max(rates):.0f} GFLOP/s; {datetime.date.today():%d %B %Y}. Images per second of "
        + "W1's step in batches of "
        + ", ".join(f"{batch}: {spread(values, '.0f')}" for batch, values in batches.items())
        + "."
    )
    text = "\n".join([BEGIN, "", *table, "", facts, "", END])
    print("\n" + text)
    if options.json:
        figures = {"versions": versions, "processor": processor(), "cores": os.cpu_count()}
        figures |= {"workloads": results, "one image": one_image, "images per second": batches}
        write(options.json, json.dumps(figures, indent=2) + "\n")
    if options.readme:
        write(options.readme, with_table(options.readme, text))
    return None


if __name__ == "__main__":
    main()
