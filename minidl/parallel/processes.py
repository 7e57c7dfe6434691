"""One process for each device: start the processes, watch them, and end all of them as soon as one fails."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ..errors import CommunicationError, TrainingError, UserError
from . import shared_memory
from .communicator import ALONE, Communicators, Patience

GRACE = 2.0  # seconds in which the other processes may report, after one has failed
TICK = 0.2  # seconds between two checks of `stop`
BEAT = 1.0  # seconds between two messages that a process is alive
START = 120.0  # seconds that a process has for its imports
# Signals that a terminal, or `timeout`, sends to all processes of a group. The parent handles them for all.
OF_THE_PARENT = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class RemoteTraceback(Exception):
    """The traceback of an exception in another process; it is the cause of the TrainingError that reports it."""


def launch(size: int, target: Callable[..., Any], *args, stop: Callable[[], bool] = lambda: False, timeout: float = 120.0) -> Any:
    """Call target(communicators, stop, *args) in `size` processes of this machine, and return the result of rank 0.

    target and args must be picklable, so target is a function of a module. When `stop` becomes true, the stop given to target
    becomes true in rank 0. timeout: seconds that a rank waits for the others in a collective.

    A UserError or TrainingError in a process is raised here too, and a UserError is raised if the system cannot start the
    processes. Any other failure of a process raises TrainingError, which names the rank and the signal or exception; the
    traceback is its cause.
    No process is left when this returns or raises, and the processes end when this one ends. They do not receive the signals
    that ask to stop.
    """
    if size == 1:
        return target(ALONE, stop, *args)
    processes: list[BaseProcess] = []
    controls: list[Connection] = []
    try:
        try:
            with signals_wait():
                _start(size, timeout, target, args, processes, controls)
        except OSError as error:
            raise UserError(f"cannot start {size} processes ({error.strerror or error}); use fewer devices") from None
        return _watch(processes, controls, stop, timeout)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        for control in controls:
            control.close()


def _start(
    size: int,
    timeout: float,
    target: Callable[..., Any],
    args: tuple,
    processes: list[BaseProcess],
    controls: list[Connection],
) -> None:
    """Start a process for each rank, and add it and the parent's end of its pipe to the lists."""
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as copies:  # closed in the parent, so that the other ranks notice when a rank ends
        points = [shared_memory.endpoints(size, copies) for _ in Communicators._fields]
        for rank in range(size):
            control, other_end = context.Pipe()
            controls.append(control)
            copies.enter_context(other_end)
            own = tuple(endpoints[rank] for endpoints in points)
            process = context.Process(target=_work, args=(own, timeout, other_end, target, args), name=f"rank {rank}")
            process.start()
            processes.append(process)


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Block the signals that ask to stop inside this context; processes that are started inside never receive them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_THE_PARENT)
    try:
        resource_tracker.ensure_running()  # it unblocks some of them, so they are blocked again
        signal.pthread_sigmask(signal.SIG_BLOCK, OF_THE_PARENT)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(processes: list[BaseProcess], controls: list[Connection], stop: Callable[[], bool], timeout: float) -> Any:
    """Wait for all processes to finish, and return rank 0's result."""
    reports: dict[int, tuple[str, Any]] = {}
    silence = [Patience(max(START, timeout)) for _ in processes]
    told = False
    deadline = None
    while len(reports) < len(processes) and (deadline is None or time.monotonic() < deadline):
        if stop() and not told:
            told = True
            _tell(controls[0], "stop")
        waiting = [rank for rank in range(len(processes)) if rank not in reports]
        connection.wait([controls[rank] for rank in waiting], TICK)
        for rank in waiting:
            if controls[rank].poll():
                report = _report(processes[rank], controls[rank])
                if report[0] == "alive":
                    silence[rank] = Patience(timeout + 2 * GRACE)  # the other ranks time out first: they say more
                    continue
            elif silence[rank].ended():
                seconds = silence[rank].seconds
                report = "ended", f"did not respond for {seconds:g} s (set by MINIDL_TIMEOUT): it is stopped or hangs"
            else:
                continue
            reports[rank] = report
            if report[0] != "done" and deadline is None:
                deadline = time.monotonic() + GRACE
    failures = [(kind, rank, what) for rank, (kind, what) in sorted(reports.items()) if kind != "done"]
    if not failures:
        return reports[0][1]
    # Report the failure that came first; those of the other processes follow from it.
    kind, rank, what = min(failures, key=lambda failure: ("ended", "wrong", "failed", "raised", "lost").index(failure[0]))
    if kind == "wrong":
        raise UserError(what)
    if kind == "raised":
        line, details = what
        raise TrainingError(f"rank {rank} raised {line}") from RemoteTraceback(details)
    raise what if kind == "failed" else TrainingError(f"rank {rank} {what}")


def _report(process: BaseProcess, control: Connection) -> tuple[str, Any]:
    """The report of a process: that it is alive, or how it ended. If it has sent none, its exit code tells how it ended."""
    try:
        return control.recv()
    except (EOFError, OSError):
        process.join(GRACE)
        code = process.exitcode
    return "ended", how_it_ended(code)


def how_it_ended(code: int | None) -> str:
    """The end of a process in words, from its exit code, which is None if it has not ended."""
    if code is None:
        return "has closed its pipe and hangs"
    names = {-signum: signum.name for signum in signal.Signals}
    return f"was killed by {names.get(code, f'signal {-code}')}" if code < 0 else f"ended with exit status {code}"


def _tell(control: Connection, message: Any) -> None:
    with contextlib.suppress(OSError):  # the end of the other process is reported elsewhere
        control.send(message)


def _work(endpoints, timeout: float, control: Connection, target: Callable[..., Any], args: tuple) -> None:
    """The main function of each process. The signals of the parent are blocked in it; on Windows, Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopped, sending = threading.Event(), threading.Lock()
    threading.Thread(target=_listen, args=(control, stopped, sending), daemon=True).start()
    report: tuple[str, Any]
    try:
        communicators = Communicators(*(shared_memory.SharedMemoryCommunicator(endpoint, timeout) for endpoint in endpoints))
        report = "done", target(communicators, stopped.is_set, *args)
    except UserError as error:
        report = "wrong", str(error)
    except CommunicationError as error:
        report = "lost", f"lost contact with the other ranks: {error}"
    except TrainingError as error:
        report = "failed", error
    except BaseException as error:
        report = "raised", (f"{type(error).__name__}: {error}", traceback.format_exc().rstrip())
    with sending:
        _tell(control, report)


def _listen(control: Connection, stopped: threading.Event, sending: threading.Lock) -> None:
    """Report that this process is alive, receive the parent's request to stop, and end when the parent has ended."""
    try:
        while True:
            with sending:
                control.send(("alive", None))
            if control.poll(BEAT):
                control.recv()
                stopped.set()
    except (EOFError, OSError):
        os._exit(1)
