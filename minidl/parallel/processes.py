"""One process a device: start them, watch them, and end them all as soon as one fails."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ..errors import CommunicationError, TrainingError, UserError
from . import shared_memory
from .communicator import ALONE, Communicators

GRACE = 2.0  # seconds in which the others may tell what they noticed, once one has failed
TICK = 0.2  # seconds between two looks at `stop`


def launch(size: int, target: Callable[..., Any], *args, stop: Callable[[], bool] = lambda: False, timeout: float = 120.0) -> Any:
    """Call target(communicators, stop, *args) in `size` processes of this machine, and return what rank 0's call returns.

    target and args must be picklable: target a function of a module. In rank 0, the stop given to target becomes true after
    the one given here. timeout: seconds that a rank waits for the others in a collective.

    A UserError in a process is raised here. Whatever else ends one raises TrainingError, which names its rank and the
    signal or the traceback. No process is left when this returns or raises, and the processes end when this one does.
    """
    if size == 1:
        return target(ALONE, stop, *args)
    context = multiprocessing.get_context("spawn")
    points = [shared_memory.endpoints(size) for _ in Communicators._fields]
    processes: list[BaseProcess] = []
    controls: list[Connection] = []
    try:
        for rank in range(size):
            control, other_end = context.Pipe()
            own = tuple(endpoints[rank] for endpoints in points)
            process = context.Process(target=_work, args=(own, timeout, other_end, target, args), name=f"rank {rank}")
            process.start()
            other_end.close()
            for endpoint in own:
                endpoint.close()
            processes.append(process)
            controls.append(control)
        return _watch(processes, controls, stop)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        for control in controls:
            control.close()


def _watch(processes: list[BaseProcess], controls: list[Connection], stop: Callable[[], bool]) -> Any:
    """Wait for all to be done, and return rank 0's result."""
    reports: dict[int, tuple[str, Any]] = {}
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
                reports[rank] = _report(processes[rank], controls[rank])
                if reports[rank][0] != "done" and deadline is None:
                    deadline = time.monotonic() + GRACE
    failures = [(kind, rank, what) for rank, (kind, what) in sorted(reports.items()) if kind != "done"]
    if not failures:
        return reports[0][1]
    # What the others noticed only follows from what went wrong first.
    kind, rank, what = min(failures, key=lambda failure: ("ended", "wrong", "failed", "raised", "lost").index(failure[0]))
    if kind == "wrong":
        raise UserError(what)
    raise TrainingError(what if kind == "failed" else f"rank {rank} {what}")


def _report(process: BaseProcess, control: Connection) -> tuple[str, Any]:
    """What a process says of its end; that it was killed, if it says nothing."""
    try:
        return control.recv()
    except (EOFError, OSError):
        process.join(GRACE)
        code = process.exitcode
    if code is None:
        return "ended", "has closed its pipe and hangs"
    return "ended", f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"


def _tell(control: Connection, message: str) -> None:
    with contextlib.suppress(OSError):  # if it has ended, _watch will see it
        control.send(message)


def _work(endpoints, timeout: float, control: Connection, target: Callable[..., Any], args: tuple) -> None:
    """What each process does. Ctrl-C goes to all of them, but is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopped = threading.Event()
    threading.Thread(target=_listen, args=(control, stopped), daemon=True).start()
    try:
        communicators = Communicators(*(shared_memory.SharedMemoryCommunicator(endpoint, timeout) for endpoint in endpoints))
        report = "done", target(communicators, stopped.is_set, *args)
    except UserError as error:
        report = "wrong", str(error)
    except CommunicationError as error:
        report = "lost", f"has lost the others: {error}"
    except TrainingError as error:
        report = "failed", str(error)
    except BaseException:
        report = "raised", f"raised an exception\n{traceback.format_exc().rstrip()}"
    control.send(report)


def _listen(control: Connection, stopped: threading.Event) -> None:
    """Take the parent's word to stop, and end when the parent has ended."""
    try:
        while True:
            control.recv()
            stopped.set()
    except (EOFError, OSError):
        os._exit(1)
