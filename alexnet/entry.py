"""The way into every command: it ends with an exit status and at most one line on standard error, never a traceback.

This needs the standard library only, and is at work before the rest is imported, which takes a second.
"""

import contextlib
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

COMMANDS = {
    "train": "train a network (as python train.py does)",
    "report": "write the report of a run again",
    "compare": "write a page that shows runs side by side",
    "predict": "tell what is on images",
    "evaluate": "test a network on images whose classes are known",
    "reproduce": "run what the deck and the paper claim, and say what of it holds",
    "export": "write a network's weights to a file, for other programs too",
}
# Those that ask a program to end; what it inherited as ignored, as under nohup, stays ignored.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
THREAD_BYTES = 256 << 20  # of address space that a thread takes: stack, heap and OpenBLAS's buffer
SAME_SIGNAL = 0.2  # seconds in which a signal may come twice and be meant once

_name = "train.py"


def main(arguments: list[str]) -> int:
    """python -m alexnet COMMAND ...: returns the exit status."""
    usage = "python -m alexnet COMMAND ..., where COMMAND is one of:\n" + "".join(
        f"    {command:<10}{what}\n" for command, what in COMMANDS.items()
    )
    if arguments[:1] in (["--help"], ["-h"]):
        prepare_streams()
        print(usage + "Each of them takes --help.")
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        prepare_streams()
        asked = f"there is no command {arguments[0]}" if arguments else "a command is missing"
        tell(f"error: {asked}; there are {', '.join(COMMANDS)} (python -m alexnet --help)", "alexnet")
        return 2
    return run(arguments[0], arguments[1:])


def run(command: str, arguments: list[str]) -> int:
    """Import a command's module in alexnet/commands, call its main, and return the exit status."""
    global _name
    handle_signals(end_at_once, end_at_once)
    _name = "train.py" if command == "train" else f"alexnet {command}"
    prepare_streams()
    limit_threads()
    sys.unraisablehook = _end_all_the_same
    try:
        try:
            status, line = _call(command, arguments)
        finally:
            ignore_signals()
    except Interrupted as error:
        status, line = 128 + error.signum, "stopped before anything was begun"
    if line:
        tell(line)
    return status


def _call(command: str, arguments: list[str]) -> tuple[int, str]:
    """The exit status, and what is to be told on standard error."""
    try:
        from minidl.errors import TrainingError, UserError
        from minidl.parallel import mpi

        module = importlib.import_module(f".commands.{command}", __package__)
    except Exception as error:
        return 2, f"error: cannot start: {describe(error)}"
    handle_signals(clean_up_and_end, end_at_once)
    try:
        return module.main(arguments), ""
    except UserError as error:
        return 2, f"error: {error}" if mpi.first_on_machine() else ""  # all ranks have the same to say
    except TrainingError as error:
        return 1, f"training failed: {error}"
    except OSError as error:  # of a name that was given, before there was a run
        return 2, f"error: {error.strerror or error}: {error.filename or 'the current folder'}"
    except Exception as error:
        return 1, f"unexpected error: {describe(error)}"


def tell(message: str, name: str | None = None) -> None:
    """A line on standard error; what would begin another line, or cannot be shown, is escaped."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    print(f"{name or _name}: {line}", file=sys.stderr, flush=True)


def describe(error: BaseException) -> str:
    """What went wrong first, in a line. With MINIDL_TRACEBACK=1 the traceback is printed, too."""
    if os.environ.get("MINIDL_TRACEBACK"):
        traceback.print_exception(error)
    while before := error.__cause__ or error.__context__:
        error = before
    if isinstance(error, MemoryError):
        return "the memory is full; end other programs, or raise the limit (ulimit -v)"
    return f"{type(error).__name__}: {error} (MINIDL_TRACEBACK=1 tells where)"


def limit_threads() -> None:
    """Where memory (ulimit -v) or processes (ulimit -u) are scarce, OpenBLAS starts as many threads as it has room for.

    Else it prints four lines, and sends SIGINT to its own process.
    """
    with contextlib.suppress(ImportError):  # there are no limits on Windows
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        wanted = os.cpu_count() or 1
        threads = wanted if limit == resource.RLIM_INFINITY else min(wanted, max(1, limit // THREAD_BYTES))
        threads = _threads_to_start(threads)
        if threads < wanted:
            os.environ.setdefault("OPENBLAS_NUM_THREADS", str(threads))


def _threads_to_start(wanted: int) -> int:
    """How many threads there may be in this process, of so many (ulimit -u)."""
    done, threads = threading.Event(), [threading.Thread(target=lambda: done.wait()) for _ in range(wanted - 1)]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
    except RuntimeError:
        pass
    done.set()
    for thread in started:
        thread.join()
    return 1 + len(started)


# --- signals ----------------------------------------------------------------------------------------------------------


_first: tuple[int, float] | None = None  # the first signal to stop, and when it came


def handle_signals(first: Callable[[int], object], again: Callable[[int], object]) -> None:
    """From here on, call first(signum) at the first signal to stop, and again(signum) at each after it; not at those ignored.

    `timeout` sends its signal to the program and to the group that this is in: both together are one.
    """

    def handler(signum: int, frame: FrameType | None) -> None:
        global _first
        now = time.monotonic()
        if _first is None:
            _first = signum, now
            first(signum)
        elif signum != _first[0] or now > _first[1] + SAME_SIGNAL:
            again(signum)

    for signum in STOP_SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, handler)


def ignore_signals() -> None:
    """How the program ends is decided, and only to be told. Python takes a while to end, and would then die of a signal."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


class Interrupted(BaseException):
    """A signal asked the program to end before it has begun anything that could be gone on with."""

    def __init__(self, signum: int):
        self.signum = signum


def end_at_once(signum: int) -> None:
    """During the imports, say: there is nothing to save, and nothing to clean up."""
    os._exit(128 + signum)


def clean_up_and_end(signum: int) -> None:
    """Whoever is writing a file removes it on the way out."""
    raise Interrupted(signum)


def end_with(message: str, status: int) -> NoReturn:
    """End the process, in a signal handler: a stream may be half-way through a line there."""
    with contextlib.suppress(OSError):
        os.write(2, f"{_name}: {message}\n".encode())
    os._exit(status)


def _end_all_the_same(unraisable: Any) -> None:
    """Python drops what is raised in a destructor or callback that a signal has interrupted."""
    if isinstance(unraisable.exc_value, Interrupted):
        os._exit(128 + unraisable.exc_value.signum)
    sys.__unraisablehook__(unraisable)


# --- streams ----------------------------------------------------------------------------------------------------------


class Output:
    """A standard stream for which it is no failure that nobody reads it, or that it is full: then the rest is given up."""

    def __init__(self, stream: Any):
        self.stream, self.given_up = stream, False
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # for what the terminal's encoding lacks

    def write(self, text: str) -> int:
        self._unless_given_up("write", text)
        return len(text)

    def flush(self) -> None:
        self._unless_given_up("flush")

    def _unless_given_up(self, method: str, *args: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            if not self.given_up:
                self.given_up = True
                getattr(self.stream, method)(*args)
                self.given_up = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def prepare_streams() -> None:
    """Give standard output and error to Output, and the numbers 0 to 2 to nothing else, such as a file of the run."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Output):
            setattr(sys, name, Output(stream or open(os.devnull, "w")))  # noqa: SIM115
