"""The command line in unusual environments: it runs, or says in one line why it cannot."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from alexnet import entry
from alexnet.commands import train
from alexnet.entry import Output
from minidl.errors import UserError

from ..helpers import moments

ROOT = Path(__file__).parents[2]
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs a shell")
TRAIN = f"{sys.executable} {ROOT / 'train.py'}"
RUN = f"{TRAIN} {' '.join(moments.RUN)} --out a"


def shell(command, folder, **environment):
    """(exit status, standard output, standard error) of a shell command, in an empty folder."""
    folder.mkdir(exist_ok=True)
    hidden = ("MINIDL_DATA", "PYTHONPATH", "PYTHONIOENCODING", "OPENBLAS_NUM_THREADS")
    settings = {key: value for key, value in os.environ.items() if key not in hidden} | environment
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=settings, stdin=subprocess.DEVNULL, capture_output=True, timeout=120
    )
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def in_pairs(function, cases):
    """The results of function(case), two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(cases, pool.map(function, cases), strict=True))


# --- runs that succeed ------------------------------------------------------------------------------------------------


@POSIX
def test_unusual_streams_and_names_are_no_failure(tmp_path):
    """Streams that are closed, full or not read, an ASCII terminal, and unusual file names."""
    ascii_only = "LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0 PYTHONIOENCODING=ascii"
    cases = [
        f"{RUN} --devices 0,1 <&- >&- 2>&-",
        f"{RUN} >/dev/full 2>/dev/full",
        f"{RUN} 2>&- | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}",
        f"{ascii_only} {RUN} --out ñandú",
        f"{RUN} --out $'two\\nlines\\xff'",
        f"ulimit -n 16; {RUN}",
        f"MPLBACKEND=module://of_a.notebook HOME=/proc/nowhere XDG_CACHE_HOME=/proc/nowhere {RUN}",
        f"MPLBACKEND=nonsense env -u HOME {RUN}",
    ]
    folders = {case: tmp_path / str(i) for i, case in enumerate(cases)}
    for case, (status, output, errors) in in_pairs(lambda case: shell(case, folders[case]), cases).items():
        assert (status, errors) == (0, ""), case
        (folder,) = folders[case].iterdir()
        assert len(list(folder.glob("checkpoints/*.safetensors"))) == 1, case
        assert not output or moments.CLOSING_LINE.fullmatch(output.splitlines()[-1]), case


@POSIX
def test_a_closed_terminal_is_no_failure(tmp_path):
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, str(ROOT / "train.py"), *moments.RUN, "--out", "a"]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"files in" not in shown:
        shown += os.read(ours, 4096)
    os.close(ours)
    assert process.wait(60) == 0
    assert len(list((tmp_path / "a" / "checkpoints").iterdir())) == 1


class Broken:
    """A stream in which every write fails."""

    def __init__(self, error):
        self.error, self.tried = error, 0

    def write(self, text):
        self.tried += 1
        raise self.error

    flush = property(lambda self: lambda: self.write(""))


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "Input/output error"), ValueError("I/O on closed file")])
def test_a_stream_is_not_used_after_its_first_error(error):
    stream = Broken(error)
    output = Output(stream)
    output.flush()
    assert output.write("lost") == 4
    print("lost", file=output, flush=True)
    assert stream.tried == 1


# --- what is refused, or fails ----------------------------------------------------------------------------------------


def blocked(module, code):
    """The start of a command that replaces a module by this code."""
    return f"mkdir m; echo {code!r} >m/{module}.py; PYTHONPATH=m"


LONG = "$(printf 'x/%.0s' {1..2200})"
MPI = "env -u PMI_FD -u OMPI_COMM_WORLD_SIZE -u SLURM_STEP_NUM_TASKS"
# (command, exit status, part of its one line)
REFUSED = [
    (f"ulimit -n 7; {RUN} --devices 0,1", 2, "cannot start 2 processes (Too many open files); use fewer devices"),
    (f"ulimit -n 12; {RUN} --devices 0,1", 2, "cannot start 2 processes (Too many open files); use fewer devices"),
    (f"ulimit -f 0; {RUN}", 2, "a: cannot make it: File too large"),
    (f"ulimit -v 30000; {RUN}", 2, "cannot start: ImportError: "),
    (f"{blocked('numpy', 'import nothing_like_it')} {RUN}", 2, "cannot start: ModuleNotFoundError: No module named"),
    (f"{blocked('numpy', 'no Python')} {RUN}", 2, "cannot start: SyntaxError: invalid syntax"),
    (f"{blocked('mpi4py', 'import nothing_like_it')} PMI_SIZE=2 {MPI} {RUN}", 2, "mpi4py does not work (No module named"),
    (f"PMI_SIZE={'9' * 5000} {MPI} {RUN}", 2, "is not a number of processes: unset PMI_SIZE"),
    (f"PMI_SIZE=٣ PMI_RANK=x {MPI} {RUN}", 2, "PMI_SIZE=٣ is not a number of processes"),
    (f"SLURM_LOCALID=7 {TRAIN} --lr no", 2, "argument --lr: 'no' is not a number above 0"),
    (f"mkdir gone; cd gone; rmdir ../gone; {TRAIN} --data-dir here", 2, "No such file or directory"),
    (f"mkdir gone; cd gone; rmdir ../gone; {RUN}", 2, "a: cannot make "),
    (f"{RUN} --out {LONG}", 2, "File name too long"),
    (f"{TRAIN} --resume {LONG}", 2, "File name too long"),
    (f"{TRAIN} --data {LONG}", 2, "no such data set"),
    (f"{TRAIN} --data $'two\\nlines\\xff\\x1b[1m'", 2, r"--data two\nlines\udcff\x1b[1m: there is no such data set"),
    (f"cd {ROOT}; {sys.executable} -m alexnet", 2, "alexnet: error: a command is missing; there are "),
    (f"cd {ROOT}; {sys.executable} -m alexnet $'two\\nlines\\xff'", 2, r"there is no command two\nlines\udcff; there are "),
]


@POSIX
def test_impossible_environments_are_one_line(tmp_path):
    commands = [command for command, _, _ in REFUSED]
    folders = {command: tmp_path / str(i) for i, command in enumerate(commands)}
    ends = in_pairs(lambda command: shell(command, folders[command], PYTHONDONTWRITEBYTECODE="1"), commands)
    for command, status, message in REFUSED:
        told, output, errors = ends[command]
        assert (told, output) == (status, ""), (command, told, errors)
        assert message in errors and re.match(r"(train\.py|alexnet): error: ", errors), (command, errors)
        assert errors.count("\n") == 1, command
        assert [path.name for path in folders[command].iterdir()] in ([], ["m"]), f"{command} leaves something"


@pytest.mark.parametrize(
    "error, status, line",
    [
        (ZeroDivisionError("so it goes"), 1, "unexpected error: ZeroDivisionError: so it goes (MINIDL_TRACEBACK=1 shows where)"),
        (MemoryError(), 1, "unexpected error: the memory is full; end other programs, or raise the limit (ulimit -v)"),
        (FileNotFoundError(2, "No such file or directory", "a/b"), 2, "error: No such file or directory: a/b"),
        (FileNotFoundError(2, "No such file or directory"), 2, "error: No such file or directory: the current folder"),
    ],
)
def test_an_unforeseen_error_is_one_line(monkeypatch, capsys, error, status, line):
    """Outside a run. With MINIDL_TRACEBACK=1 its traceback is printed before, unless it is the system's."""
    monkeypatch.setattr(entry, "handle_signals", lambda *_: None)
    monkeypatch.setattr(train, "main", mock.Mock(side_effect=error))
    for shown in (False, True):
        if shown:
            monkeypatch.setenv("MINIDL_TRACEBACK", "1")
        assert entry._call("train", []) == (status, line)
        assert capsys.readouterr().err.startswith("Traceback") == (shown and status == 1)


def test_a_signal_counts_also_if_another_error_comes_in_its_place(monkeypatch):
    """A compiled module, in whose import a signal comes, raises ImportError, which a command reports as a missing package."""

    def main(arguments):
        try:
            try:
                entry.clean_up_and_end(signal.SIGINT)
            except entry.Interrupted as error:
                raise ImportError("initialization failed") from error
        except ImportError:
            raise UserError("pip install it first") from None

    monkeypatch.setattr(entry, "handle_signals", lambda *_: None)
    monkeypatch.setattr(train, "main", main)
    with pytest.raises(entry.Interrupted) as interrupted:
        entry._call("train", [])
    assert interrupted.value.signum == signal.SIGINT


def test_only_as_many_threads_are_used_as_can_be_started(monkeypatch):
    """Tested with a mock, because `ulimit -u` does not apply to root."""
    start, started = threading.Thread.start, []

    def start_two(thread):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    assert entry._threads_to_start(5) == 5 and entry._threads_to_start(1) == 1
    monkeypatch.setattr(threading.Thread, "start", start_two)
    assert entry._threads_to_start(5) == 3 and not any(thread.is_alive() for thread in started)


@POSIX
def test_an_answer_that_cannot_be_written_is_an_error(tmp_path):
    """A reader that has seen enough, such as head, is none."""
    assert shell(RUN, tmp_path)[0] == 0
    ask = f"cd {ROOT}; {sys.executable} -m alexnet evaluate {tmp_path}/a --json"
    full, enough = in_pairs(lambda command: shell(command, tmp_path), [f"{ask} > /dev/full", f"{ask} | true"]).values()
    assert full == (2, "", "alexnet evaluate: error: cannot write to standard output: No space left on device\n")
    assert enough == (0, "", "")


def test_messages_that_cannot_be_written_are_no_traceback(tmp_path):
    cases = {
        f"{TRAIN} --lr no 2>&-": 2,
        f"{TRAIN} --lr no 2>/dev/full": 2,
        f"{TRAIN} --help >/dev/full": 0,
        f"{TRAIN} --help | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}": 0,
        f"cd {ROOT}; {sys.executable} -m alexnet --help >&-": 0,
        f"cd {ROOT}; {sys.executable} -m alexnet 2>&-": 2,
    }
    for command, (status, output, errors) in in_pairs(lambda command: shell(command, tmp_path), cases).items():
        assert (status, output, errors) == (cases[command], "", ""), command


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_too_little_memory_to_start_is_one_line(tmp_path):
    """OpenBLAS prints its own lines, of which at most one is shown. Some of the limits leave enough memory to start."""
    cases = [f"ulimit -v {megabytes * 1024}; {TRAIN} --lr no" for megabytes in (50, 90, 126, 132, 150)]
    for case, (status, output, errors) in in_pairs(lambda case: shell(case, tmp_path), cases).items():
        assert status in (1, 2) and not output and errors.count("\n") == 1 and "Traceback" not in errors, (case, status, errors)


NUMBERS = ["", " ", "-", "--", "-1", "9" * 5000, "-" + "9" * 5000, "nan", "inf", "-inf", "1e400", "0x10", "²", "1.5.2"]
ODD = ["1_000", " 3", "+3", "٣", "1e3", "0.5"]  # Python accepts some of them as numbers


@pytest.mark.parametrize("option", ["--epochs", "--batch-size", "--limit-train", "--limit-test", "--seed", "--lr", "--devices"])
def test_absurd_numbers_are_refused(option):
    for text in NUMBERS:
        with pytest.raises(UserError, match=r"\Aargument " + option + r": [^\n]*\Z"):
            train.parser().parse_args([f"{option}={text}"])
    for text in ODD:
        with contextlib.suppress(UserError):
            assert vars(train.parser().parse_args([f"{option}={text}"]))
