"""The messages that train.py and python -m alexnet can end with or warn with, as the source has them: python docs/messages.py.

What is filled in is shown as "…". docs/troubleshooting.md has an entry for each; a test holds the one to the other.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Where a message is made: the first argument of these.
ERRORS = {"UserError", "TrainingError", "CommunicationError", "ArgumentTypeError", "Damaged"}
WRITERS = {"tell", "end_with", "damaged"}
# Rooms in which any other error is the caller's, who reads a traceback; in the others it becomes part of a message.
LIBRARY = ("autodiff", "data", "functional", "inspection", "kernels", "nn", "optim", "selftest")


def messages() -> dict[str, str]:
    """The file of each message."""
    found: dict[str, str] = {}
    for file in sorted([*ROOT.glob("minidl/**/*.py"), *ROOT.glob("alexnet/**/*.py")]):
        name = file.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for template in _made_by(node, name):
                found.setdefault(template, name)
    return found


def _made_by(node: ast.AST, file: str) -> Iterator[str]:
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        known = name in ERRORS | WRITERS
        if not known and not (
            name in ("ValueError", "OSError") and not file.startswith(tuple(f"minidl/{room}" for room in LIBRARY))
        ):
            return
        for argument in node.args:
            if text := _template(argument):
                yield text


def _template(node: ast.AST) -> str:
    """The text of a string or an f-string, with a mark for what is filled in; nothing for another expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    elif isinstance(node, ast.JoinedStr):
        text = "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    else:
        return ""
    return text if re.search("[a-z]{3}", text) else ""


if __name__ == "__main__":
    for template, file in messages().items():
        print(f"{file}: {template}")
