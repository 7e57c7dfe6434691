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

GRACE = 2.0  # seconds in which the others may still report, after one has failed
TICK = 0.2  # seconds between two checks of `stop`
BEAT = 1.0  # seconds between two signs of life
START = 120.0  # seconds that a process has for its imports
# Signals that a terminal, or `timeout`, sends to all processes of a group; the parent handles them for all.
OF_THE_PARENT = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class RemoteTraceback(Exception):
    """The traceback of an exception in another process; the cause of the TrainingError that reports it."""


def launch(size: int, target: Callable[..., Any], *args, stop: Callable[[], bool] = lambda: False, timeout: float = 120.0) -> Any:
    """Call target(communicators, stop, *args) in `size` processes on this machine. Returns what rank 0's call returns.

    target and args must be picklable: target is a function of a module. stop: once it returns true here, the stop() that rank
    0's target gets returns true as well. timeout: seconds that a rank waits for the others in a collective.

    A UserError in a process is raised here as well. Raises UserError too if the system does not let the processes start. If a
    process ends in any other way, raises TrainingError, which names its rank and the signal or the exception; the traceback is
    its cause. No process is left when this returns or raises, and the processes end when this one ends. Signals that ask to
    stop do not reach them.
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
    """Start a process for each rank, and append it and the parent's end of its pipe to the lists."""
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as copies:  # of the parent: while it has them, ranks do not notice that one has ended
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
    """Block the signals that ask to stop until the end of the block. A process that is started inside never gets them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_THE_PARENT)
    try:
        resource_tracker.ensure_running()  # this unblocks some of the signals
        signal.pthread_sigmask(signal.SIG_BLOCK, OF_THE_PARENT)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(processes: list[BaseProcess], controls: list[Connection], stop: Callable[[], bool], timeout: float) -> Any:
    """Wait until all processes are done. Returns rank 0's result."""
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
                    silence[rank] = Patience(timeout + 2 * GRACE)  # the others time out earlier, and report more
                    continue
            elif silence[rank].ended():
                report = "ended", f"has given no sign of life for {timeout:g} s (set by MINIDL_TIMEOUT): it is stopped or hangs"
            else:
                continue
            reports[rank] = report
            if report[0] != "done" and deadline is None:
                deadline = time.monotonic() + GRACE
    failures = [(kind, rank, what) for rank, (kind, what) in sorted(reports.items()) if kind != "done"]
    if not failures:
        return reports[0][1]
    # The first failure makes other ranks fail too: report the cause.
    kind, rank, what = min(failures, key=lambda failure: ("ended", "wrong", "failed", "raised", "lost").index(failure[0]))
    if kind == "wrong":
        raise UserError(what)
    if kind == "raised":
        line, details = what
        raise TrainingError(f"rank {rank} raised {line}") from RemoteTraceback(details)
    raise TrainingError(what if kind == "failed" else f"rank {rank} {what}")


def _report(process: BaseProcess, control: Connection) -> tuple[str, Any]:
    """The next report of a process: alive, or how it ended. If it has closed its pipe without one: its exit status."""
    try:
        return control.recv()
    except (EOFError, OSError):
        process.join(GRACE)
        code = process.exitcode
    return "ended", how_it_ended(code)


def how_it_ended(code: int | None) -> str:
    """How a process has ended, in words. code: its exit code, None if it still runs."""
    if code is None:
        return "has closed its pipe and hangs"
    names = {-signum: signum.name for signum in signal.Signals}
    return f"was killed by {names.get(code, f'signal {-code}')}" if code < 0 else f"ended with exit status {code}"


def _tell(control: Connection, message: Any) -> None:
    with contextlib.suppress(OSError):  # if the other process has ended, its parent or child notices that
        control.send(message)


def _work(endpoints, timeout: float, control: Connection, target: Callable[..., Any], args: tuple) -> None:
    """The main function of a process. Signals to stop are blocked; if the system cannot do that, Ctrl-C is ignored."""
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
        report = "lost", f"has lost the other ranks: {error}"
    except TrainingError as error:
        report = "failed", str(error)
    except BaseException as error:
        report = "raised", (f"{type(error).__name__}: {error}", traceback.format_exc().rstrip())
    with sending:
        _tell(control, report)


def _listen(control: Connection, stopped: threading.Event, sending: threading.Lock) -> None:
    """Send signs of life, set `stopped` when the parent asks to stop, and end the process when the parent has ended."""
    try:
        while True:
            with sending:
                control.send(("alive", None))
            if control.poll(BEAT):
                control.recv()
                stopped.set()
    except (EOFError, OSError):
        os._exit(1)
