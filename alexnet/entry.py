"""The way into every command: it ends with an exit status and at most one line on standard error, never a traceback.

This needs the standard library only, and is at work before the rest is imported, which takes a second.
"""

import contextlib
import importlib
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Any, NoReturn

COMMANDS = {
    "train": "train a network (as python train.py does)",
    "report": "write the report of a run again",
    "compare": "write a page that shows runs side by side",
}
# Those that ask a program to end; what it inherited as ignored, as under nohup, stays ignored.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

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
    _name = "train.py" if command == "train" else f"alexnet {command}"
    prepare_streams()
    handle_signals(end_at_once)
    sys.unraisablehook = _end_all_the_same
    try:
        from minidl.errors import TrainingError, UserError
        from minidl.parallel import mpi

        module = importlib.import_module(f".commands.{command}", __package__)
    except Exception as error:
        tell(f"error: cannot start: {describe(error)}")
        return 2
    handle_signals(clean_up_and_end)
    try:
        return module.main(arguments)
    except Interrupted as error:
        tell("stopped before anything was begun")
        return 128 + error.signum
    except UserError as error:
        if mpi.first_on_machine():  # all ranks have the same to say
            tell(f"error: {error}")
        return 2
    except TrainingError as error:
        tell(f"training failed: {error}")
        return 1
    except Exception as error:
        tell(f"unexpected error: {describe(error)}")
        return 1
    finally:
        handle_signals(end_at_once)


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
        return "the memory is full; a smaller --batch-size needs less"
    return f"{type(error).__name__}: {error} (MINIDL_TRACEBACK=1 tells where)"


# --- signals ----------------------------------------------------------------------------------------------------------


def handle_signals(handler: Any) -> None:
    """What happens at a signal to stop from here on, but for those that are ignored."""
    for signum in STOP_SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, handler)


class Interrupted(BaseException):
    """A signal asked the program to end before it has begun anything that could be gone on with."""

    def __init__(self, signum: int):
        self.signum = signum


def end_at_once(signum: int, frame: FrameType | None) -> None:
    """During the imports, and when all is done: there is nothing to save, and nothing to clean up."""
    os._exit(128 + signum)


def clean_up_and_end(signum: int, frame: FrameType | None) -> None:
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
        self.stream = stream
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # for what the terminal's encoding lacks

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _give_up(self) -> None:
        """What is still in the buffer goes nowhere, and so does all that follows."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self.stream.fileno())
        except (OSError, ValueError):
            self.stream = open(os.devnull, "w")  # noqa: SIM115
        finally:
            os.close(nowhere)


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
