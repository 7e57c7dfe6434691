"""A signal at any moment: the run saves and ends, and leaves nothing incomplete."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..helpers import moments

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


@LINUX
@pytest.mark.parametrize("devices, count", [("0", 8), ("0,1", 4)])
def test_a_run_can_be_stopped_at_any_moment(devices, count):
    stops = moments.stops(count, devices, seed=1)
    moments.whole_run(devices)
    with ThreadPoolExecutor(2) as pool:
        wrong = [f"{stop}: {found}" for stop, found in zip(stops, pool.map(moments.experiment, stops), strict=True) if found]
    assert not wrong, "\n".join(wrong)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its runs")
def test_a_run_can_be_stopped_before_any_line():
    """Before every 17th line of train.py, entry.py and launch.py: about 200 runs."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.every_line", "17"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.stderr == "" and done.stdout.strip().isdecimal(), done.stdout + done.stderr
    assert int(done.stdout) > 100


def test_ignored_signals_stay_ignored(tmp_path):
    """nohup makes a program ignore SIGHUP, and a shell makes background programs ignore SIGINT."""

    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *moments.RUN, "--out", "a"],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=ignore,
    )
    for line in process.stdout:
        if "files in" in line:
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGINT)
            break
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "") and output.splitlines()[-1].startswith("test loss")


@pytest.mark.parametrize(
    "command, told",
    [("train", "train.py: stopped before anything began\n"), ("predict", "alexnet predict: stopped before it was done\n")],
)
def test_a_command_says_how_far_it_came(command, told):
    code = (
        f"import os, signal, sys, time; from alexnet import entry; from alexnet.commands import {command} as module; "
        "module.main = lambda arguments: (print('an answer'), os.kill(os.getpid(), signal.SIGINT), time.sleep(60)); "
        f"sys.exit(entry.run({command!r}, []))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "an answer\n", told)
