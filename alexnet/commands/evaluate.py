"""Test a trained network on images whose classes are known.

    python -m alexnet evaluate runs/NAME                          on the run's own test images, as the run did
    python -m alexnet evaluate runs/NAME --data FOLDER            on FOLDER/val, or FOLDER itself: one folder per class
    python -m alexnet evaluate runs/NAME --ten-crop --out a.png   average ten views of each image, and draw the errors

Exit status: 0 done, 1 a device failed, 2 wrong usage, damaged files or missing data.
"""

import json
import multiprocessing
from pathlib import Path

from minidl.errors import UserError
from minidl.parallel import launch
from minidl.parallel.communicator import timeout

from .. import entry, evaluation, pictures, weights
from ..recipes import MOST
from ..views import VIEWS
from .arguments import Parser, add_devices, add_source, check_picture, number, refuse_mpi


def main(arguments: list[str]) -> int:
    """Evaluate, and return the exit status. Raises UserError for an error that the user can fix."""
    p = Parser("-m alexnet evaluate", __doc__)
    p.usage = "python -m alexnet evaluate [options] RUN|FILE"
    count = number(int, 1, MOST, "an integer from 1 to 1,000,000")
    add_source(p)
    p.add_argument("--data", metavar="cifar10|digits|FOLDER", help="images to test on (default: the run's test images)")
    p.add_argument("--data-dir", metavar="DIR", help="where CIFAR-10 or the run's folder of images is now")
    p.add_argument(
        "--views",
        type=int,
        choices=VIEWS,
        help="views of each image to average, reflections only if the network trained with them (default 1, its centre)",
    )
    p.add_argument("--ten-crop", dest="views", action="store_const", const=10, help="the same as --views 10")
    p.add_argument("--json", action="store_true", help="print a JSON object")
    p.add_argument("--out", type=Path, metavar="FILE.png", help="draw the confusion matrix and the most certain wrong answers")
    p.add_argument("--batch-size", type=count, metavar="N", help="images in a batch (default: the run's)")
    add_devices(p, "GPUs, or processes that share the CPU; they divide the images")
    args = vars(p.parse_args(arguments))
    refuse_mpi("evaluate")
    as_json, out = args.pop("json", False), args.pop("out", None)
    if out is not None:
        check_picture("--out", out)
    job = evaluation.Job(**args)
    job.check()
    entry.handle_signals(_end, _end)
    loaded = weights.read(job.source, job.checkpoint)
    found = launch(len(job.devices), evaluation.evaluate, job, loaded, timeout=timeout())
    if out is not None:
        try:
            pictures.draw_evaluation(out, found.labels, found.evaluation.predictions, found.classes, found.mistakes)
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror or error}") from None
    print(json.dumps(found.summary()) if as_json else _text(found), flush=True)
    return 0


def _end(signum: int) -> None:
    for process in multiprocessing.active_children():
        process.kill()
    entry.clean_up_and_end(signum)


def _text(found: evaluation.Found) -> str:
    """A table of the classes, then the result."""
    summary = found.summary()
    width = max(len("class"), *map(len, summary["classes"]))
    lines = [f"{'class':<{width}}  images  right"]
    for name, counts in summary["classes"].items():
        lines.append(f"{name:<{width}}  {counts['images']:>6}  {counts['right']:>5}")
    lines.append(f"{summary['images']:,} images, top-1 {summary['top1']:.4f}, top-5 {summary['top5']:.4f}")
    return "\n".join([*lines, f"test loss: {summary['loss']:.4f} - accuracy: {summary['top1']:.4f}"])
