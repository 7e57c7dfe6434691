"""Check an exercise: `python docs/exercises/check.py 3`, or `python docs/exercises/check.py 3 --solution`.

Prints the verdict. Exit status: 0 if the exercise is right, 1 if not yet, 2 if it was called in another way.
"""

import sys
import textwrap
import traceback
from pathlib import Path

from checks import EXERCISES
from diagnosis import NotYet, examine

HERE = Path(__file__).parent


def main(arguments: list[str]) -> int:
    solution = arguments[1:] == ["--solution"]
    number = int(arguments[0]) if arguments and arguments[0].isdecimal() else 0
    if not 1 <= number <= len(EXERCISES) or len(arguments) != 1 + solution:
        given = " ".join(arguments) or "nothing"
        print(f"give the number of an exercise, 1 to {len(EXERCISES)}: `make exercise N=3`; got {given}", file=sys.stderr)
        return 2
    path = HERE / (f"solutions/solution_{number:02}.py" if solution else f"exercise_{number:02}.py")
    right, text = verdict(number, path)
    print(text)
    return 0 if right else 1


def verdict(number: int, path: Path) -> tuple[bool, str]:
    """Whether the file is right, and what to tell about it."""
    exercise = EXERCISES[number - 1]
    title = f"Exercise {number}, {exercise.title}"
    try:
        found = examine(exercise, load(path, exercise.function))
    except NotYet as trouble:
        parts = [f"{title}, is not right yet: {trouble.what}.", "\n".join(f"    {line}".rstrip() for line in trouble.table)]
        parts += [textwrap.fill(f"Hint: {trouble.hint}", 100), f"File: {name(path)}{line_of(trouble.__cause__, path)}"]
        return False, "\n\n".join(part for part in parts if part)
    return True, f"{title}, is right: {found}."


def load(path: Path, function: str):
    """The class `function` of the file; NotYet if there is none."""
    namespace: dict = {"__name__": path.stem}
    try:
        exec(compile(path.read_text(encoding="utf-8"), path, "exec"), namespace)
    except OSError as error:
        raise NotYet("its file cannot be read", f"{error.strerror}. Put it back: git checkout {name(path)}") from error
    except (Exception, SystemExit) as error:
        raise NotYet(f"it is not Python that runs, {type(error).__name__}: {error}", "Look at the line named below.") from error
    if function not in namespace:
        raise NotYet(f"there is no class {function} in it", f"Keep the name of the class, {function}: the check looks for it.")
    return namespace[function]


def line_of(error: BaseException | None, path: Path) -> str:
    """Where in the student's file an error comes from."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)] if error else []
    return f", line {frames[-1].lineno}: {frames[-1].line}" if frames else ""


def name(path: Path) -> str:
    """The path from the repository's root, if it lies there."""
    root = HERE.resolve().parents[1]
    return str(path.resolve().relative_to(root)) if path.resolve().is_relative_to(root) else str(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
