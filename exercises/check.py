"""Check your copy of an exercise, `python exercises/check.py 3`, or its solution, `python exercises/check.py 3 --solution`.

Your copy is in exercises/mine/. It is made from the exercise if it is not there.
Exit status: 0 if it is right, 1 if it is not right yet, 2 for a wrong command line or a file that cannot be made, read or
written, 130 after Ctrl-C.
"""

import os
import shutil
import sys
import textwrap
import traceback
from pathlib import Path

from checks import EXERCISES
from diagnosis import NotYet, examine

from minidl.files import replacing

HERE = Path(__file__).resolve().parent
MINE = HERE / "mine"
WIDTH = 100  # characters of a line of the verdict


def main(arguments: list[str]) -> int:
    solution = arguments[1:] == ["--solution"]
    number = int(arguments[0]) if arguments and arguments[0].isdecimal() and len(arguments[0]) < 10 else 0
    if not 1 <= number <= len(EXERCISES) or len(arguments) != 1 + solution:
        given = " ".join(arguments) or "nothing"
        print(f"give the number of an exercise, 1 to {len(EXERCISES)}: `make exercise N=3`; got {given:.50}", file=sys.stderr)
        return 2
    try:
        right, text = verdict(number, HERE / f"solutions/solution_{number:02}.py" if solution else your_copy(number))
    except BrokenPipeError:  # of print
        raise
    except OSError as error:
        print(f"the file of the exercise cannot be made or read: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0 if right else 1


def your_copy(number: int) -> Path:
    """The file to repair, which is made if it is not there."""
    path = MINE / f"exercise_{number:02}.py"
    if not path.exists():
        MINE.mkdir(exist_ok=True)
        with replacing(path) as part:
            shutil.copyfile(HERE / path.name, part)
        print(f"Made {name(path)} for you. Change this file; delete it to start again.\n")
    return path


def verdict(number: int, path: Path) -> tuple[bool, str]:
    """(whether the file is right, the text to print about it)."""
    exercise = EXERCISES[number - 1]
    title = f"Exercise {number}, {exercise.title}"
    try:
        found = examine(exercise, load(path, exercise.function))
    except NotYet as trouble:
        what = textwrap.fill(f"{title}, is not right yet: {trouble.what.removesuffix('.')}.", WIDTH)
        table = "\n".join(textwrap.indent(textwrap.fill(line, WIDTH - 4), "    ") for line in trouble.table)
        changed = path.read_bytes() != (HERE / f"exercise_{number:02}.py").read_bytes()
        hint = textwrap.fill(f"Hint: {trouble.hint} {trouble.second_hint if changed else ''}", WIDTH)
        file = f"File: {name(path)}{line_of(trouble.__cause__, path)}"
        return False, "\n\n".join(part for part in (what, table, hint, file) if part)
    return True, f"{title}, is right: {found}."


def load(path: Path, function: str):
    """The class `function` of the file; NotYet if there is none."""
    source, namespace = path.read_bytes(), {"__name__": path.stem}
    try:
        exec(compile(source, path, "exec"), namespace)
    except (Exception, SystemExit) as error:
        raise NotYet(f"it is not Python that runs, {type(error).__name__}: {error}", "Look at the line named below.") from error
    if function not in namespace:
        raise NotYet(f"there is no class {function} in it", f"Keep the name of the class, {function}: the check looks for it.")
    return namespace[function]


def line_of(error: BaseException | None, path: Path) -> str:
    """Text that names the line of the student's file in which an error was raised; "" if none was."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)] if error else []
    return f", line {frames[-1].lineno}: {frames[-1].line}" if frames else ""


def name(path: Path) -> str:
    """The path relative to the repository's root, if it is inside it."""
    root = HERE.parent
    return str(path.resolve().relative_to(root)) if path.resolve().is_relative_to(root) else str(path)


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except OSError as error:  # of print
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python flushes once more when it ends
        status = 1  # the reader has gone
        if not isinstance(error, BrokenPipeError):
            status = 2
            print(f"cannot write to standard output: {error.strerror}", file=sys.stderr)
    sys.exit(status)
