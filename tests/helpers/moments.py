"""An experiment: a run is stopped by a signal at some moment, and must leave nothing incomplete.

    python -m tests.helpers.moments COUNT DEVICES SEED

stops COUNT runs, at moments spread over the length of a run, and prints a line for each after which something is wrong.
"""

import contextlib
import dataclasses
import functools
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = "--data digits --model small-bn --limit-train 40 --limit-test 20 --epochs 1 --batch-size 20".split()
CLOSING_LINE = re.compile(r"test loss: \d+\.\d{4} - accuracy: [01]\.\d{4}")
STOPPED = re.compile(r"train\.py: stopped( (?!and saved).*| and saved; resume with: python train\.py --resume a)\n")
FINISHED = "train.py: the run is finished, 1 of 1 epochs; --epochs 2 trains it longer\n"
# Before the program's first line Python itself raises KeyboardInterrupt; the traceback then names only Python's own files.
OF_PYTHON = re.compile(r"Traceback|Fatal Python error: init_import_site|KeyboardInterrupt")


@dataclasses.dataclass(frozen=True)
class Stop:
    """A signal to a run on `devices`, at the moment `part`: 0 is the start of the run, 1 its end.

    to: "process"; "group", as from a terminal; or "both", one after the other, as from `timeout`.
    """

    signum: int
    part: float
    to: str = "process"
    devices: str = "0"


def experiment(stop: Stop) -> str:
    """What was wrong with the way a run stopped; an empty string if nothing was."""
    with tempfile.TemporaryDirectory() as folder:
        process = start([*RUN, "--devices", stop.devices, "--out", "a"], folder)
        try:
            time.sleep(stop.part * whole_run(stop.devices)[1])
            with contextlib.suppress(ProcessLookupError):
                if stop.to != "group":
                    os.kill(process.pid, stop.signum)
                if stop.to != "process":
                    os.killpg(process.pid, stop.signum)
            output, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            return "it does not end"
        finally:
            left = end_group(process)
        wrong = judge(stop, process.returncode, output, errors)
        if left:
            wrong.append(f"processes are left: {left}")
        wrong += half_made(Path(folder), stop)
    return "; ".join(wrong)


def start(arguments, folder, **environment):
    """Start train.py in a session of its own, with its output in text pipes."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=folder,
        env={**os.environ, "MPLCONFIGDIR": tempfile.gettempdir(), **environment},
        text=True,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def end_group(process) -> list[int]:
    """Kill the processes of a session that still run 5 s after its leader has ended; returns their ids."""
    deadline = time.monotonic() + 5
    while (left := members(process.pid)) and process.poll() is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return left


def members(session: int) -> list[int]:
    """The ids of the processes of a session, without zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                state, _, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(of) == session and state != "Z":
                    found.append(int(entry.name))
    return found


def judge(stop: Stop, status: int, output: str, errors: str) -> list[str]:
    """What is wrong with the exit status and the output."""
    told = f"status {status}, output {output[-100:]!r}, errors {errors!r}"
    if stop.signum == signal.SIGKILL:
        return [] if status in (-signal.SIGKILL, 0) and not errors else [told]
    if output and CLOSING_LINE.fullmatch(output.splitlines()[-1]):
        return [] if status == 0 and not errors else [f"it was done, but: {told}"]
    if status == 128 + stop.signum and (not errors or STOPPED.fullmatch(errors)):
        return []
    started = "alexnet" in errors or output
    if status == -stop.signum and not errors and not started:
        return []
    if stop.signum == signal.SIGINT and OF_PYTHON.search(errors) and not started and "train.py" not in errors:
        return []
    return [told]


def half_made(folder: Path, stop: Stop) -> list[str]:
    """What is wrong with the files that are left. Right is: no run, or one that can be resumed to its end.

    A kill may leave partial files, which are removed when the run is resumed.
    """
    killed = stop.signum == signal.SIGKILL
    if not killed and (parts := parts_in(folder)):
        return [f"{parts} are left"]
    if not (folder / "a").exists():
        return [f"{path} is left" for path in folder.iterdir() if not (killed and path.name.endswith(".part"))]
    process = start(["--resume", "a"], folder)
    output, errors = process.communicate(timeout=120)
    if process.returncode or not CLOSING_LINE.fullmatch(output.splitlines()[-1]) or errors not in ("", FINISHED):
        return [f"it cannot be resumed: {errors}"]
    if output.splitlines()[-1] != whole_run(stop.devices)[0]:
        return [f"resumed, it ends with {output.splitlines()[-1]}"]
    return [f"{part} is left after it was resumed" for part in parts_in(folder / "a")]


def parts_in(folder: Path) -> list[str]:
    """The files that an unfinished save leaves."""
    return [str(path) for path in folder.rglob("*") if ".part" in path.name or path.name.startswith(".tmp")]


@functools.cache
def whole_run(devices: str) -> tuple[str, float]:
    """(closing line, seconds) of a run that is not stopped."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        output, _ = start([*RUN, "--devices", devices], folder).communicate(timeout=120)
        return output.splitlines()[-1], time.monotonic() - started


def stops(count: int, devices: str, seed: int) -> list[Stop]:
    """Random stops, spread over the length of a run."""
    rng = random.Random(seed)
    signums = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    return [
        Stop(rng.choice(signums), (i + rng.random()) / count, rng.choice(["process", "group", "both"]), devices)
        for i in range(count)
    ]


if __name__ == "__main__":
    for stop in stops(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])):
        if found := experiment(stop):
            print(f"{stop}: {found}", flush=True)
