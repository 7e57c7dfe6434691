"""Stops a run before each line that it executes in train.py, entry.py and launch.py: one run for each line.

    python -m tests.helpers.every_line [STEP]

Prints a line for each run that ends with a wrong status, with more than one line on standard error, or with a folder that
should not be there; then the number of runs. STEP: only every STEP-th line. The training itself is replaced by a function
that returns at once. The runs are forked from a process that has imported everything, so each takes little time.
"""

import os
import re
import runpy
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from alexnet import datasets, entry, launch
from alexnet.commands import train as train  # imported before all runs
from alexnet.training import Evaluation, Stopped
from minidl.errors import TrainingError, UserError

TRAIN = str(Path(__file__).parents[2] / "train.py")
FILES = {TRAIN, entry.__file__, launch.__file__}
FIRST = 4  # the lines of train.py before this one may end in a traceback: they take a few microseconds
RUN = ["--data", "digits", "--out", "a"]
OPTIONS = {"option": ["--lr", "no"], "help": ["--help"]}
# How a run ends if it is not stopped, and its exit status.
ENDINGS = {"done": 0, "failed": 1, "crashed": 1, "refused": 2, "option": 2, "help": 0}
SIGNALS = [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT], [signal.SIGHUP, signal.SIGTERM]]


def training(ending):
    """Takes the place of fit."""

    def fit(folder, dataset, *, stop, **options):
        if stop():
            raise Stopped
        if ending == "failed":
            raise TrainingError("the loss is nan")
        if ending == "crashed":
            raise ZeroDivisionError
        if ending == "refused":
            raise UserError("there is no such GPU")
        print("test loss: 1.0000 - accuracy: 0.5000", flush=True)
        return Evaluation(1.0, 0.5, 0.9, None, None, None)

    return fit


class Tracer:
    """A trace function that counts lines, and sends signals before the line with the given number."""

    def __init__(self, line, signums):
        self.line, self.signums, self.count = line, signums, 0

    def __call__(self, frame, event, argument):
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            self.count += 1
            if self.count - 1 == self.line:
                for signum in self.signums:
                    os.kill(os.getpid(), signum)
        return self


def run(ending, line, signums, folder):
    """Run train.py in this process, and end the process with its status."""
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    launch.fit = training(ending)
    sys.argv = ["train.py", *OPTIONS.get(ending, RUN)]
    tracer = Tracer(line, signums)
    sys.settrace(tracer)
    try:
        runpy.run_path(TRAIN, run_name="__main__")
    except SystemExit as leaving:
        sys.settrace(None)
        Path("count").write_text(str(tracer.count))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(leaving.code)


def stopped_at(ending, line, signums):
    """Run in a forked process. Returns (number of lines executed, what is wrong)."""
    folder = Path(tempfile.mkdtemp())
    try:
        child = os.fork()
        if not child:
            try:
                run(ending, line, signums, folder)
            except BaseException:
                sys.settrace(None)
                sys.excepthook(*sys.exc_info())
            os._exit(99)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        count = int((folder / "count").read_text()) if (folder / "count").exists() else 0
        return count, wrong(ending, signums, status, folder)
    finally:
        shutil.rmtree(folder)


def wrong(ending, signums, status, folder):
    """What is wrong with the end of a run; the signals may have come too late to stop it."""
    output, errors, kept = (folder / "out").read_text(), (folder / "err").read_text(), (folder / "a").exists()
    done = output.startswith("test loss")  # the pictures are still drawn then: only a second signal stops that
    if errors.count("\n") > 1 or "Traceback" in errors or (done and status not in (0, *[128 + n for n in signums[1:]])):
        return f"status {status}, output {output[-60:]!r}, errors {errors}"
    if status == ENDINGS[ending]:
        return f"status {status}, and a folder: {kept}" if kept != (ending in ("done", "failed", "crashed")) else ""
    if status in [-signum for signum in signums]:  # before the signals are handled
        return f"died by the signal, after {output!r}, {errors!r}" if output or errors or kept else ""
    if status not in [128 + signum for signum in signums]:
        return f"status {status}"
    return f"a folder is left, with {errors!r}" if kept and not re.search("resume with|--resume continues", errors) else ""


def main():
    runs, step = 0, int(sys.argv[1]) if len(sys.argv) > 1 else 1
    datasets.digits()  # once, so that all its imports are done
    for ending in ENDINGS:
        count, found = stopped_at(ending, -1, [])
        assert count > FIRST and not found, found
        for signums in SIGNALS:
            for line in range(FIRST, count, step):
                _, found = stopped_at(ending, line, signums)
                runs += 1
                if found:
                    print(f"{ending}, {signums}, line {line}: {found}", flush=True)
    print(runs)


if __name__ == "__main__":
    main()
