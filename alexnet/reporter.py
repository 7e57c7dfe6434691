"""Write a run's report, its event files for TensorBoard, and its pictures at the end."""

from collections.abc import Callable
from typing import Any

from minidl.data import DataLoader
from minidl.nn import Module

from . import entry, findings, pictures, report
from .run import RunFolder, reason
from .tensorboard import TensorBoard
from .training import Evaluation


class Reporter:
    """Keeps the report and the event files up to date. If one cannot be written, it prints a warning, and is not tried again.

    step: the number of steps that the run has done.
    """

    def __init__(self, folder: RunFolder, classes: tuple[str, ...], loader: DataLoader, step: int):
        self.folder, self.classes, self.loader = folder, classes, loader
        self._given_up: set[str] = set()
        self._found: findings.Findings | None = None  # after the last epoch
        self._events: TensorBoard | None = None
        if folder.config.tensorboard:
            self._try("tensorboard", lambda: self._open_events(step + 1))

    def _open_events(self, first_step: int) -> None:
        self._events = TensorBoard(self.folder.path / "tensorboard", first_step)

    def sample(self, row: dict[str, Any]) -> None:
        """Record a line of the layers' statistics."""
        if events := self._events:
            self._try("tensorboard", lambda: events.add_statistics(row))

    def metrics(self, row: dict[str, Any], step: int) -> None:
        """Record an epoch that ended with this step."""
        if events := self._events:
            self._try("tensorboard", lambda: events.add_metrics(row, step))

    def update(self, evaluation: Evaluation, network: Module) -> None:
        """Update the report after an epoch that is not the last. network: the whole network, as it was evaluated."""
        self._report(evaluation, network, running=True)

    def end(self, evaluation: Evaluation, network: Module) -> None:
        """Write the report and the pictures of a finished run. network: the whole network."""
        self._close()
        self._try("curves.png", lambda: self._draw(evaluation, network))
        self._report(evaluation, network, running=False)

    def _draw(self, evaluation: Evaluation, network: Module) -> None:
        rows, labels = self.folder.metrics(), self.loader.labels
        problems = pictures.draw(self.folder.path, rows, labels, evaluation.predictions, self.classes, network)
        for name, error in problems.items():
            self._warn(name, error)

    def stop(self) -> None:
        """Write the report of a run that was stopped during an epoch."""
        self._close()
        self._report(None, None, running=False)

    def _close(self) -> None:
        if self._events:
            self._try("tensorboard", self._events.close)

    def _report(self, evaluation: Evaluation | None, network: Module | None, running: bool) -> None:
        def write() -> None:
            metrics, statistics = self.folder.metrics(), self.folder.statistics()
            if evaluation is not None and network is not None:
                self._found = findings.find(network, self.classes, self.loader, evaluation)
            note = "" if self._found else "There are no pictures of the network before the end of an epoch."
            path, config = self.folder.path / "report.html", self.folder.config.flat()
            report.write(path, config, metrics, statistics, self._found, running=running, note=note)

        self._try("report.html", write)

    def _try(self, name: str, action: Callable[[], object]) -> None:
        if name not in self._given_up:
            try:
                action()
            except Exception as error:
                self._given_up.add(name)
                self._warn(name, error)

    def _warn(self, name: str, error: Exception) -> None:
        entry.tell(f"warning: cannot write {self.folder.path / name}: {reason(error)}")
