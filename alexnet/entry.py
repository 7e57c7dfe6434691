"""The entry point of every command: it ends with an exit status and at most one line on standard error, never a traceback.

This module needs the standard library only. It handles signals and errors before the rest is imported, which takes a second.
"""

import contextlib
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

COMMANDS = {
    "train": "train a network (as python train.py does)",
    "report": "write the report of a run again",
    "compare": "write a page that shows runs side by side",
    "predict": "classify images",
    "evaluate": "test a network on images whose classes are known",
    "reproduce": "test the claims of the AlexNet paper and of the study deck",
    "export": "write a network's weights to a file, for other programs too",
}
# Signals that ask a program to end. One that is ignored from the start, as under nohup, stays ignored.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
THREAD_BYTES = 256 << 20  # address space of a thread: stack, heap and OpenBLAS's buffer
SAME_SIGNAL = 0.2  # seconds within which a signal that comes twice counts once
NAME = "MINIDL_PROGRAM"  # environment variable: the program's name in messages, also for the processes that it starts


def main(arguments: list[str]) -> int:
    """python -m alexnet COMMAND ...: returns the exit status."""
    usage = "python -m alexnet COMMAND ..., where COMMAND is one of:\n" + "".join(
        f"    {command:<10}{what}\n" for command, what in COMMANDS.items()
    )
    if arguments[:1] in (["--help"], ["-h"]):
        prepare_streams()
        print(usage + "Each command has a --help of its own.")
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        prepare_streams()
        asked = f"there is no command {arguments[0]}" if arguments else "a command is missing"
        tell(f"error: {asked}; there are {', '.join(COMMANDS)} (python -m alexnet --help)", "alexnet")
        return 2
    return run(arguments[0], arguments[1:])


def run(command: str, arguments: list[str]) -> int:
    """Import a command's module in alexnet/commands, call its main, and return the exit status."""
    handle_signals(end_at_once, end_at_once)
    os.environ[NAME] = "train.py" if command == "train" else f"alexnet {command}"
    prepare_streams()
    limit_threads()
    sys.unraisablehook = _end_all_the_same
    try:
        try:
            status, line = _call(command, arguments)
        finally:
            ignore_signals()
    except Interrupted as error:
        status = 128 + error.signum
        line = "stopped before anything began" if command == "train" else "stopped before it was done"
    lost = getattr(sys.stdout, "error", None)
    if status == 0 and command != "train" and isinstance(lost, OSError) and not isinstance(lost, BrokenPipeError):
        status, line = 2, f"error: cannot write to standard output: {lost.strerror or lost}"
    if line:
        tell(line)
    return status


def _call(command: str, arguments: list[str]) -> tuple[int, str]:
    """(exit status, line for standard error; "" for none)."""
    try:
        from minidl.errors import TrainingError, UserError
        from minidl.parallel import mpi

        module = importlib.import_module(f".commands.{command}", __package__)
    except Exception as error:
        return 2, f"error: cannot start: {describe(error)}"
    handle_signals(clean_up_and_end, end_at_once)
    try:
        with _interrupted_all_the_same():
            return module.main(arguments), ""
    except UserError as error:
        return 2, f"error: {error}" if mpi.first_on_machine() else ""  # all ranks have the same error
    except TrainingError as error:
        return 1, f"{'training failed' if command in ('train', 'reproduce') else 'error'}: {error}"
    except OSError as error:  # a path on the command line, before there was a run
        return 2, f"error: {error.strerror or error}: {error.filename or 'the current folder'}"
    except Exception as error:
        return 1, f"unexpected error: {describe(error)}"


def tell(message: str, name: str | None = None) -> None:
    """Print one line on standard error; line breaks and unprintable characters are escaped."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    print(f"{name or _name()}: {line}", file=sys.stderr, flush=True)


def _name() -> str:
    return os.environ.get(NAME, "train.py")


def describe(error: BaseException) -> str:
    """The first error of the chain, in one line. With MINIDL_TRACEBACK=1, also print the traceback."""
    if os.environ.get("MINIDL_TRACEBACK"):
        traceback.print_exception(error)
    while before := error.__cause__ or error.__context__:
        error = before
    if isinstance(error, MemoryError):
        return "the memory is full; end other programs, or raise the limit (ulimit -v)"
    return f"{type(error).__name__}: {error} (MINIDL_TRACEBACK=1 shows where)"


def limit_threads() -> None:
    """If memory (ulimit -v) or processes (ulimit -u) are limited, let OpenBLAS start only as many threads as there is room for.

    With too many, OpenBLAS prints four lines, and sends SIGINT to its own process.
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
    """How many threads this process can have, up to `wanted` (ulimit -u)."""
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
    """From now on, call first(signum) at the first stop signal and again(signum) at each later one. Ignored signals stay ignored.

    `timeout` sends its signal to the program and to its process group: these two count as one.
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


def stopped() -> int:
    """The exit status for the first stop signal so far; 0 if none has come."""
    return 128 + _first[0] if _first else 0


def ignore_signals() -> None:
    """Ignore stop signals once the exit status is decided: Python takes a while to end, and a signal would change the status."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


class Interrupted(BaseException):
    """A signal asked the program to end before there was a run that could be resumed."""

    def __init__(self, signum: int):
        self.signum = signum


def end_at_once(signum: int) -> None:
    """End the process if there is nothing to save or to clean up, as during the imports."""
    os._exit(128 + signum)


def clean_up_and_end(signum: int) -> None:
    """Raise Interrupted, so that a function that is writing a file removes it."""
    raise Interrupted(signum)


@contextlib.contextmanager
def _interrupted_all_the_same() -> Iterator[None]:
    """Raise Interrupted also if another error came in its place: in its import, a compiled module turns any into ImportError."""
    try:
        yield
    except Exception as error:
        before: BaseException | None = error
        while before and not isinstance(before, Interrupted):
            before = before.__cause__ or before.__context__
        if before:
            raise before from None
        raise


def end_with(message: str, status: int) -> NoReturn:
    """End the process in a signal handler. It writes to the file descriptor, as the stream may be in the middle of a line."""
    with contextlib.suppress(OSError):
        os.write(2, f"{_name()}: {message}\n".encode())
    os._exit(status)


def _end_all_the_same(unraisable: Any) -> None:
    """End the process also if a signal comes in a destructor or callback, where Python ignores exceptions."""
    if isinstance(unraisable.exc_value, Interrupted):
        os._exit(128 + unraisable.exc_value.signum)
    sys.__unraisablehook__(unraisable)


# --- streams ----------------------------------------------------------------------------------------------------------


class Output:
    """A standard stream that raises no error if its reader has gone or its disk is full: it drops the rest of the output."""

    def __init__(self, stream: Any):
        self.stream, self.given_up = stream, False
        self.error: Exception | None = None  # the reason
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # for characters that the terminal's encoding lacks

    def write(self, text: str) -> int:
        self._unless_given_up("write", text)
        return len(text)

    def flush(self) -> None:
        self._unless_given_up("flush")

    def _unless_given_up(self, method: str, *args: str) -> None:
        if not self.given_up:
            self.given_up = True
            try:
                getattr(self.stream, method)(*args)
            except (OSError, ValueError) as error:
                self.error = error
            else:
                self.given_up = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def prepare_streams() -> None:
    """Wrap standard output and error in Output. Open file descriptors 0 to 2, so that no file of the run gets their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Output):
            setattr(sys, name, Output(stream or open(os.devnull, "w")))  # noqa: SIM115
