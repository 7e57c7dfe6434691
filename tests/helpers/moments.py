"""An experiment: a run is told to stop at some moment, and must then leave nothing half-made."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = ["--data", "digits", "--limit-train", "40", "--limit-test", "20", "--epochs", "1", "--batch-size", "20"]
CLOSING_LINE = re.compile(r"test loss: \d+\.\d{4} - accuracy: [01]\.\d{4}")
STOPPED = re.compile(r"train\.py: stopped( .*|, and saved; go on with: python train\.py --resume a)\n")
# Python itself raises KeyboardInterrupt before the program's first line; all files it names are Python's own.
OF_PYTHON = re.compile(r"Traceback|Fatal Python error: init_import_site|KeyboardInterrupt")


@dataclasses.dataclass(frozen=True)
class Stop:
    """`signum` is sent `seconds` after the start of a run on `devices`: to the process, or to all of its group."""

    signum: int
    seconds: float
    group: bool = False
    devices: str = "0"


def experiment(stop: Stop) -> str:
    """What was wrong with how a run stopped; nothing if all was well."""
    with tempfile.TemporaryDirectory() as folder:
        process = start([*RUN, "--devices", stop.devices, "--out", "a"], folder)
        try:
            time.sleep(stop.seconds)
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if stop.group else os.kill)(process.pid, stop.signum)
            output, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            return "it does not end"
        finally:
            left = end_group(process)
        wrong = judge(stop, process.returncode, output, errors)
        if left:
            wrong.append(f"processes are left: {left}")
        wrong += half_made(Path(folder), stop.devices)
    return "; ".join(wrong)


def start(arguments, folder, **environment):
    """train.py in a session of its own, with its output in text pipes."""
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
    """Kill what is left of a session a moment after its leader has ended; returns its process ids."""
    deadline = time.monotonic() + 5
    while (left := members(process.pid)) and process.poll() is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return left


def members(session: int) -> list[int]:
    """The processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                state, _, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(of) == session and state != "Z":
                    found.append(int(entry.name))
    return found


def judge(stop: Stop, status: int, output: str, errors: str) -> list[str]:
    """What is wrong with a status and what was printed."""
    told = f"status {status}, output {output[-100:]!r}, errors {errors!r}"
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


def half_made(folder: Path, devices: str) -> list[str]:
    """What is wrong with the files that are left: there is no run, or one that goes on to its end."""
    parts = [str(path) for path in folder.rglob("*") if ".part" in path.name]
    if parts:
        return [f"{parts} are left"]
    if not (folder / "a").exists():
        return [f"{path} is left" for path in folder.iterdir()]
    process = start(["--resume", "a"], folder)
    output, errors = process.communicate(timeout=120)
    if process.returncode or not CLOSING_LINE.fullmatch(output.splitlines()[-1]) or errors:
        return [f"it cannot be resumed: {errors}"]
    if output.splitlines()[-1] != closing_line(devices):
        return [f"resumed, it ends with {output.splitlines()[-1]}"]
    return []


_closing_lines: dict[str, str] = {}


def closing_line(devices: str) -> str:
    """That of a run that nobody stops."""
    if devices not in _closing_lines:
        with tempfile.TemporaryDirectory() as folder:
            output, _ = start([*RUN, "--devices", devices], folder).communicate(timeout=120)
        _closing_lines[devices] = output.splitlines()[-1]
    return _closing_lines[devices]
