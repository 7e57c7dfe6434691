"""Classify images.

    python -m alexnet predict runs/NAME photo.jpg another.png     the five most probable classes of each
    python -m alexnet predict flowers.safetensors photos/         of all images in a folder, with a file of weights
    python -m alexnet predict runs/NAME *.jpg --json              for programs
    python -m alexnet predict runs/NAME photo.jpg --explain why   and draw into the folder why what each prediction depends on

Exit status: 0 done, 1 the network computes NaN, 2 wrong usage, a damaged run, or a file that is not an image; the other files are
classified first.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minidl import get_num_threads
from minidl.errors import UserError
from minidl.parallel import ALONE

from .. import entry, explanation, pictures, prediction, weights
from ..devices import join
from ..image_files import ImageError
from ..prediction import Prediction
from ..recipes import MOST
from ..views import VIEWS
from .arguments import Parser, add_devices, add_source, check_picture, number, refuse_mpi

MOST_IN_GRID = 100  # images


@np.errstate(over="ignore", invalid="ignore")  # NaN and infinity are reported with their file, not by warnings
def main(arguments: list[str]) -> int:
    """Predict, and return the exit status. Raises UserError for an error that the user can fix."""
    p = Parser("-m alexnet predict", __doc__)
    p.usage = "python -m alexnet predict [options] RUN|FILE IMAGE [IMAGE ...]"
    count = number(int, 1, MOST, "an integer from 1 to 1,000,000")
    add_source(p)
    p.add_argument("images", nargs="+", metavar="IMAGE", help="an image, a folder of images, or a pattern such as '*.jpg'")
    p.add_argument("--top", type=count, default=5, metavar="K", help="classes to print for each image (default 5)")
    p.add_argument("--json", action="store_true", help="print a JSON array")
    p.add_argument(
        "--views",
        type=int,
        choices=VIEWS,
        default=1,
        help="views of each image to average, reflections only if the network trained with them (default 1, its centre)",
    )
    p.add_argument("--classes", type=Path, metavar="FILE", help="names of the classes, one per line, in place of the network's")
    p.add_argument("--grid", type=Path, metavar="FILE.png", help="draw the images with their predictions")
    p.add_argument("--explain", type=Path, metavar="DIR", help="draw into this folder what each prediction depends on")
    p.add_argument("--batch-size", type=count, default=32, metavar="N", help="images in a batch (default 32)")
    add_devices(p, "number of the GPU")
    p.set_defaults(backend="numpy", devices=[0])
    args = p.parse_args(arguments)
    refuse_mpi("predict")
    grid, explain = getattr(args, "grid", None), getattr(args, "explain", None)
    if grid is not None:
        check_picture("--grid", grid)
    if len(args.devices) > 1:
        raise UserError("--devices: predict computes on one device; give one number")
    files = prediction.find_files(args.images)
    device, _ = join(args.backend, args.devices, "fp32", get_num_threads(), ALONE)
    loaded = weights.read(args.source, args.checkpoint)
    if "classes" in args:
        loaded.classes = prediction.read_classes(args.classes, len(loaded.classes))
    loaded.network.to(device)

    answers: list[dict[str, Any]] = []
    pictured: list[tuple[np.ndarray, str, float]] = []
    bad: list[tuple[str, ImageError]] = []
    with _writing():
        for answer in prediction.predict(loaded, files, args.views, args.batch_size):
            if not isinstance(answer, Prediction):
                bad.append(answer)
                continue
            top = answer.top(loaded.classes, args.top)
            answers.append({"file": answer.file, "predictions": [{"class": name, "probability": p} for name, p in top]})
            if not hasattr(args, "json"):
                print(answer.file, *(f"    {p:6.2%}  {name}" for name, p in top), sep="\n", flush=True)
            if explain is not None:
                explain.mkdir(parents=True, exist_ok=True)
                explanation.write(explain, len(answers), loaded, answer)
            if grid is not None and len(pictured) < MOST_IN_GRID:
                pictured.append((answer.image, *top[0]))
        if grid is not None and pictured:
            pictures.draw_grid(grid, pictured)
    if hasattr(args, "json"):
        print(json.dumps(answers), flush=True)
    for file, problem in bad:
        entry.tell(f"error: {file}: {problem}")
    return 2 if bad else 0


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Turn an OSError into a UserError of one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {error.filename or 'there'}: {error.strerror or error}") from None
