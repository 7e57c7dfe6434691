"""Runs that a test has started as processes: their workers, and waiting for their epochs."""

import contextlib
import time
from pathlib import Path


def children(pid: int) -> list[int]:
    """The ids of a process's children."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def workers(pid: int) -> list[int]:
    """The children that multiprocessing has started, in the order of their start; without its resource tracker."""
    found = []
    for child in children(pid):
        with contextlib.suppress(OSError):  # it has ended since
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def wait_for_epochs(process, run: Path, epochs: int = 1, seconds: float = 120) -> None:
    """Wait until the run in this folder has so many epochs. The process must not end before."""
    file, deadline = run / "metrics.jsonl", time.monotonic() + seconds
    while not (file.exists() and len(file.read_text().splitlines()) >= epochs):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"it has not reached epoch {epochs}: {process.communicate()}")
        time.sleep(0.02)
