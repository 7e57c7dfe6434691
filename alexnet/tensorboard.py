"""Event files for TensorBoard, written by tensorboardX.

SummaryWriter is not used: it writes in a thread, where an error such as a full disk is not noticed, and the training then waits
for ever. Here the error is raised.
"""

import contextlib
import re
import time
from pathlib import Path
from typing import Any

from minidl.errors import UserError

NAME = "events.out.tfevents.{:010d}"  # TensorBoard reads the files of a folder in the order of their names
NOT_CURVES = {"epoch"}  # keys of a row of metrics


def check_installed() -> None:
    """Raise UserError if event files cannot be written."""
    try:
        import tensorboardX.proto.event_pb2  # noqa: F401
    except ImportError:
        raise UserError("--tensorboard: tensorboardX is not installed: pip install -e '.[tensorboard]'") from None


class TensorBoard:
    """Writes a run's metrics and its layers' statistics to a new event file in a folder, which is made if it does not exist.

    first_step: the run's next step, counted from 1. TensorBoard then ignores this step and later ones in earlier files, so that
    nothing is shown twice.

    The constructor and all methods raise OSError if the file cannot be written, which is then closed.
    """

    def __init__(self, folder: Path, first_step: int = 1):
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(exist_ok=True)
        self._new_event = Event
        self._file = RecordWriter(str((folder / _next_name(folder)).absolute()))
        self._write(0, file_version="brain.Event:2")
        self._write(first_step, session_log=SessionLog(status=SessionLog.START))

    def add_metrics(self, row: dict[str, Any], step: int) -> None:
        """Add a line of metrics.jsonl, of the epoch that ended with this step."""
        self._add({_curve(key): value for key, value in row.items() if key not in NOT_CURVES}, step)

    def add_statistics(self, row: dict[str, Any]) -> None:
        """Add a line of statistics.jsonl."""
        values = {f"layers_{key}/{layer}": value for layer, of_one in row["layers"].items() for key, value in of_one.items()}
        self._add(values, row["step"])

    def close(self) -> None:
        self._file.close()

    def _add(self, values: dict[str, float], step: int) -> None:
        self._write(step, summary={"value": [{"tag": tag, "simple_value": value} for tag, value in values.items()]})

    def _write(self, step: int, **content: Any) -> None:
        try:
            self._file.write(self._new_event(wall_time=time.time(), step=step, **content).SerializeToString())
            self._file.flush()
        except OSError:
            with contextlib.suppress(OSError):  # if left open, Python would try again at its end, and print an error
                self.close()
            raise


def _next_name(folder: Path) -> str:
    """A name that sorts after those of the existing files."""
    numbers = [int(re.sub(r"\D", "", file.name) or 0) for file in folder.glob("events.out.tfevents.*")]
    return NAME.format(max(numbers, default=0) + 1)


def _curve(key: str) -> str:
    """The tag of a metric, such as loss/train: this puts training and test values side by side."""
    part, _, what = key.partition("_")
    return f"{what}/{part}" if part in ("train", "test") else f"run/{key}"
