"""Write a page that shows runs side by side: their results, their curves, and the settings that differ.

    python -m alexnet compare runs/ONE runs/OTHER

The last line on standard output is the page's path. Exit status: 0 done, 2 wrong usage or a damaged run.
"""

import os
from pathlib import Path

from minidl.errors import UserError

from .. import comparison
from ..lock import FolderLock
from ..run import RunFolder
from .arguments import Parser


def main(arguments: list[str]) -> int:
    """Write the page, and return the exit status. Raises UserError for an error that the user can fix."""
    p = Parser("-m alexnet compare", __doc__)
    p.usage = "python -m alexnet compare [-h] [--out FILE] RUN [RUN ...]"
    p.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run")
    p.add_argument("--out", type=Path, metavar="FILE", default=Path("compare.html"), help="the page (default compare.html)")
    args = p.parse_args(arguments)
    places = [os.path.realpath(path) for path in args.runs]
    if twice := [path for path, place in zip(args.runs, places, strict=True) if places.count(place) > 1]:
        raise UserError(f"{twice[0]} is given twice")
    if args.out.exists() and args.out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {args.out}: exists already and is not a page; give a name that ends with .html")
    runs = [_run(path) for path in args.runs]
    try:
        comparison.write(args.out, runs)
    except OSError as error:
        raise UserError(f"--out {args.out}: cannot write it: {error.strerror or error}") from None
    print(args.out, flush=True)
    return 0


def _run(path: Path) -> comparison.Run:
    folder = RunFolder.read(path)
    return comparison.Run(path, folder.config.flat(), folder.metrics(), FolderLock.in_use(path))
