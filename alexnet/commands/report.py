"""Write the report of a run again: RUN/report.html, from the files in the run's folder.

    python -m alexnet report runs/NAME

The network of its newest checkpoint is tested again on the test images, so these must be there; without them, or before the
first checkpoint, the report has no pictures, and it does not replace one that has. A run in progress writes its report itself,
after every epoch.
The last line on standard output is the report's path. Exit status: 0 done, 2 wrong usage or a damaged run.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from minidl.errors import TrainingError, UserError

from .. import entry, findings, report
from ..builders import build_loaders, moved, opened
from ..fitting import load_network
from ..run import RunFolder
from ..training import evaluate
from .arguments import Parser


def main(arguments: list[str]) -> int:
    """Write the report, and return the exit status. Raises UserError for an error that the user can fix."""
    p = Parser("-m alexnet report", __doc__)
    p.usage = "python -m alexnet report [-h] [--data-dir DIR] RUN"
    p.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    p.add_argument("--data-dir", metavar="DIR", help="where CIFAR-10 or the folder of images is now (default: where it was)")
    args = p.parse_args(arguments)
    folder = RunFolder.read(args.run)
    if "data_dir" in args:
        folder.config = moved(folder.config, args.data_dir)
    with _held(folder):
        path = _write(folder)
    print(path, flush=True)
    return 0


@contextlib.contextmanager
def _held(folder: RunFolder) -> Iterator[None]:
    """Hold the folder's lock."""
    try:
        folder.lock.acquire(folder.path)
    except UserError:
        raise UserError(f"{folder.path} is in use; the run there writes its report itself, after every epoch") from None
    except OSError as error:
        raise UserError(f"{folder.path}: cannot write there: {error.strerror}") from None
    try:
        yield
    finally:
        folder.lock.release()


def _write(folder: RunFolder) -> Path:
    """Write the report, and return its path."""
    metrics, statistics = folder.metrics(), folder.statistics()
    path, found, note = folder.path / "report.html", None, ""
    try:
        found = _find(folder)
    except (UserError, TrainingError) as error:
        if report.has_pictures(path):
            raise UserError(f"{path} has pictures, which cannot be drawn again ({error}); rename it, and try again") from None
        note = f"There are no pictures: {error}."
        entry.tell(f"warning: the report has no pictures: {error}")
    try:
        report.write(path, folder.config.flat(), metrics, statistics, found, note=note)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _find(folder: RunFolder) -> findings.Findings:
    """Test the network of the newest checkpoint, and collect what the report shows of it."""
    if not folder.checkpoints():
        raise UserError("there is no checkpoint")
    with opened(folder.config, download=False) as (folder.config, dataset):
        model, _ = load_network(folder, dataset)
        _, loader = build_loaders(folder.config, dataset, 0, 1)
        return findings.find(model, dataset.classes, loader, evaluate(model, loader)[0])
