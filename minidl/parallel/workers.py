"""Processes that fill arrays: they receive tasks through pipes, and return the arrays through shared memory.

One thread for each process sends it tasks and receives the results. A process has two tasks at a time, so the next one is there
when it has finished one. Concurrent calls of `map` share the processes, and no process is idle while there are tasks.
"""

import collections
import contextlib
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Sequence
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np

from ..errors import TrainingError, UserError
from ..threads import set_num_threads
from .processes import GRACE, how_it_ended, signals_wait
from .shared_memory import Memory, allocate

AHEAD = 2  # tasks that a process has at a time
OUT_OF_MEMORY = 137  # exit status, as of a process that the system has killed when the memory was full


class Failure(NamedTuple):
    """The result of a task that raised an exception, with the text of the exception."""

    reason: str


class _Call:
    """A call of `map`: its output, its results, and how many of them are still missing."""

    def __init__(self, out: np.ndarray, count: int):
        self.out, self.results = out, [None] * count
        self.missing, self.done, self.given_up = count, threading.Event(), False
        self._lock = threading.Lock()

    def put(self, place: int, row: np.ndarray, result: Any) -> None:
        if not self.given_up:
            if not isinstance(result, Failure):
                self.out[place] = row
            self.results[place] = result
        with self._lock:
            self.missing -= 1
            if not self.missing:
                self.done.set()


class Workers:
    """`count` processes that call work(task, row). work fills row, an array of this shape and dtype, and returns a small object.

    work is a function of a module. The processes start at the first call. Each computes on one thread, with a niceness that is
    higher than this process's by `nice`. Signals that ask to stop do not reach them. They end with this process, in whatever
    way it ends. name: the word for one of them in messages.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[Any, np.ndarray], Any],
        shape: Sequence[int],
        dtype: Any = np.uint8,
        *,
        name: str = "worker",
        nice: int = 0,
    ):
        self.count, self.work, self.name, self.nice = count, work, name, nice
        self.shape, self.dtype = (count, AHEAD, *shape), np.dtype(dtype)
        self._starting = threading.Lock()
        self._tasks: queue.SimpleQueue[tuple[_Call, int, Any] | None] = queue.SimpleQueue()
        self._processes: list[BaseProcess] = []
        self._calls: set[_Call] = set()
        self._at_exit: Any = None
        self._ended: TrainingError | None = None  # how one of the processes has ended, or why none can start

    def map(self, tasks: Sequence[Any], out: np.ndarray) -> list[Any]:
        """Fill out[i] for tasks[i]. Returns the results of work, with a Failure for each task that raised an exception.

        May be called on several threads at the same time. Raises TrainingError if a process has ended, and UserError if the
        system does not let the processes start.
        """
        if not len(tasks):
            return []
        with self._starting:
            if not self._processes and not self._ended:
                self._start()
        call = _Call(out, len(tasks))
        self._calls.add(call)
        try:
            for place, task in enumerate(tasks):
                self._tasks.put((call, place, task))
            while not call.done.wait(1) and not self._ended:
                pass
        finally:
            call.given_up = True
            self._calls.discard(call)
        if call.missing and self._ended:
            raise TrainingError(str(self._ended))
        return call.results

    def close(self) -> None:
        """End the processes. Calls that are waiting raise TrainingError."""
        self._end(TrainingError("the processes that prepare the input were closed"))
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        self._processes = []
        if self._at_exit is not None:
            self._at_exit.cancel()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        # Python would end them by SIGTERM, which they have blocked.
        self._at_exit = util.Finalize(None, self.close, exitpriority=100)
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        try:
            with contextlib.ExitStack() as copies, signals_wait():
                memory = allocate(size, copies)
                buffer = memory.buffer() if isinstance(memory, Memory) else memory
                rows = np.frombuffer(buffer, self.dtype, size // self.dtype.itemsize).reshape(self.shape)
                for own in range(self.count):
                    connection, other_end = context.Pipe()
                    copies.enter_context(other_end)
                    settings = memory, self.shape, self.dtype, own, self.work, self.nice
                    process = context.Process(target=_work, args=(other_end, *settings), name=f"{self.name} {own}", daemon=True)
                    process.start()
                    self._processes.append(process)
                    threading.Thread(target=self._serve, args=(process, connection, rows[own]), daemon=True).start()
        except OSError as error:
            self.close()
            raise UserError(f"cannot start {self.count} processes ({error.strerror or error}); use fewer devices") from None

    def _serve(self, process: BaseProcess, connection: Connection, rows: np.ndarray) -> None:
        """The thread of one process: send it tasks, and receive the results."""
        given: collections.deque[tuple[_Call, int, int]] = collections.deque()
        slot = 0
        try:
            while not self._ended:
                while len(given) < AHEAD:
                    try:
                        task = self._tasks.get(block=not given)
                    except queue.Empty:
                        break
                    if task is None:
                        return
                    if not task[0].given_up:
                        connection.send((slot, task[2]))
                        given.append((task[0], task[1], slot))
                        slot = (slot + 1) % AHEAD
                result = connection.recv()
                call, place, filled = given.popleft()
                call.put(place, rows[filled], result)
        except (EOFError, OSError):
            process.join(GRACE)
            self._end(
                TrainingError(f"{process.name} {how_it_ended(process.exitcode)}: it is one of those that prepare the input")
            )
        except Exception as error:  # a task that cannot be pickled, or a row that does not fit into the output
            self._end(TrainingError(f"{type(error).__name__}: {error}"))
        finally:
            connection.close()

    def _end(self, why: TrainingError) -> None:
        """Send no more tasks to any process, and end the calls that wait."""
        self._ended = self._ended or why
        for _ in range(self.count):
            self._tasks.put(None)
        for call in list(self._calls):
            call.done.set()


def _work(connection: Connection, memory: Any, shape: tuple[int, ...], dtype: np.dtype, own: int, work: Any, nice: int) -> None:
    """The main function of a process, until the other end of its pipe is closed."""
    if nice and hasattr(os, "nice"):
        os.nice(nice)
    set_num_threads(1)
    rows = np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)[own]
    with contextlib.suppress(EOFError, OSError):
        while True:
            slot, task = connection.recv()
            try:
                result = work(task, rows[slot])
            except MemoryError:
                raise SystemExit(OUT_OF_MEMORY) from None  # not the task's fault
            except Exception as error:
                result = Failure(str(error) or type(error).__name__)
            connection.send(result)
