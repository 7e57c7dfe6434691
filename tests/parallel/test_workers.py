"""Workers: processes that fill rows of an array."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.errors import TrainingError, UserError
from minidl.parallel import workers
from minidl.parallel.workers import Failure, Workers

ROOT = Path(__file__).parents[2]


def fill(task, row):
    """Fill the row with the number `task`, and return twice the number."""
    if task == "end":
        os._exit(3)
    if task == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "memory":
        raise MemoryError
    if task == "wait":
        time.sleep(60)
    if task == "about":
        return os.getpid(), os.nice(0), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    if task < 0:
        raise ValueError(f"no {task}" if task > -10 else "")
    time.sleep(task % 3 / 1000)
    row[...] = task
    return 2 * task


def check(pool, tasks):
    out = np.full((len(tasks), *pool.shape[2:]), 7, pool.dtype)
    results = pool.map(tasks, out)
    for task, row, result in zip(tasks, out, results, strict=True):
        assert result == (2 * task if task >= 0 else Failure(f"no {task}")) and (row == (task if task >= 0 else 7)).all()


@pytest.fixture(scope="module")
def pools():
    pools = [Workers(1, fill, (2, 3)), Workers(3, fill, (4,), np.float64)]
    yield pools
    for pool in pools:
        pool.close()


@settings(max_examples=20, deadline=None)
@given(tasks=st.lists(st.integers(-9, 255), max_size=20))
def test_every_task_is_done_once_and_fills_its_row(pools, tasks):
    for pool in pools:
        check(pool, tasks)


def test_calls_on_several_threads_share_the_processes(pools):
    problems = []

    def call(first):
        try:
            for _ in range(5):
                check(pools[1], list(range(first, first + 30)))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=call, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


def test_a_failure_without_a_message_has_the_name_of_its_exception(pools):
    assert pools[1].map([-10], np.zeros((1, 4))) == [Failure("ValueError")]


def test_workers_have_a_lower_priority_and_block_signals():
    with Workers(2, fill, (1,), nice=3) as pool:
        pid, nice, blocked = pool.map(["about"], np.zeros((1, 1)))[0]
        assert pid != os.getpid() and nice == min(19, os.nice(0) + 3)
        assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= blocked


@pytest.mark.parametrize(
    "task, how",
    [("end", "ended with exit status 3"), ("kill", "was killed by SIGKILL"), ("memory", "ended with exit status 137")],
)
def test_a_worker_that_ends_is_an_error_for_all_calls(task, how):
    pool = Workers(2, fill, (1,), name="reader")
    waiting = []

    def wait():
        with pytest.raises(TrainingError, match=how):
            pool.map(["wait"], np.zeros((1, 1)))
        waiting.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.5)
    start = time.monotonic()
    with pytest.raises(TrainingError, match=f"^reader [01] {how}: it is one of those that prepare the input$"):
        pool.map([1, 2, task, 3], np.zeros((4, 1)))
    thread.join()
    assert time.monotonic() - start < 30 and waiting  # "wait" takes 60 s
    with pytest.raises(TrainingError, match=how):
        pool.map([1], np.zeros((1, 1)))
    pool.close()


def test_errors_in_this_process_are_raised():
    for tasks, out, message in [([lambda: 0], np.zeros((1, 1)), "pickle"), ([1], np.zeros((1, 2, 3)), "broadcast|shape")]:
        pool = Workers(1, fill, (5,))
        with pytest.raises(TrainingError, match=message):
            pool.map(tasks, out)
        pool.close()


def test_close_ends_calls_and_processes_and_leaves_no_open_files():
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(2):
        pool = Workers(2, fill, (1,))
        pool.map([1, 2, 3], np.zeros((3, 1)))
        processes = pool._processes
        pool.close()
        pool.close()
        assert not any(process.is_alive() for process in processes)
        del processes
        with pytest.raises(TrainingError, match="the processes that prepare the input were closed"):
            pool.map([1], np.zeros((1, 1)))
    if before:
        deadline = time.monotonic() + 5
        while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
            time.sleep(0.05)  # until the threads have closed their ends
        assert len(os.listdir("/proc/self/fd")) <= before


def test_after_an_interrupted_call_the_workers_continue(monkeypatch):
    with Workers(1, fill, (1,)) as pool:
        check(pool, [1])
        monkeypatch.setattr(workers.threading, "Event", Interrupting)
        out = np.zeros((50, 1), np.uint8)
        with pytest.raises(KeyboardInterrupt):
            pool.map([5] * 50, out)
        monkeypatch.undo()
        check(pool, [1])  # after the task that the only worker was doing
        before = out.copy()
        assert (before == 5).sum() < 50
        check(pool, [1, 2, 3])
        np.testing.assert_array_equal(out, before)  # nothing is written there afterwards


class Interrupting(threading.Event().__class__):
    def wait(self, timeout=None):
        raise KeyboardInterrupt


def test_workers_that_cannot_be_started_are_an_error(monkeypatch):
    monkeypatch.setattr(workers, "allocate", lambda *args: (_ for _ in ()).throw(OSError(12, "Cannot allocate memory")))
    pool = Workers(2, fill, (1,))
    with pytest.raises(UserError, match=r"cannot start 2 processes \(Cannot allocate memory\)"):
        pool.map([1], np.zeros((1, 1)))


PROGRAM = """
import os, signal, sys, time
import numpy as np
from minidl.parallel.workers import Workers
from tests.parallel.test_workers import fill

if __name__ == "__main__":
    pool = Workers(2, fill, (1,))
    pool.map([1, 2, 3], np.zeros((3, 1)))
    print(*[process.pid for process in pool._processes], flush=True)
    {end}
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at /proc")
@pytest.mark.parametrize(
    "end, status",
    [
        ("pass", 0),
        ("raise SystemExit(5)", 5),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os._exit(6)", 6),
    ],
)
def test_workers_end_with_their_parent(tmp_path, end, status):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(end=end))
    ended = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert ended.returncode == status, ended.stderr
    deadline = time.monotonic() + 10
    for pid in map(int, ended.stdout.split()):
        while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.05)
