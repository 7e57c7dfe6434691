"""Which room may import which: a room imports only rooms to its left in ORDER."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = [
    {"errors", "files", "partition"},
    {"threads", "random"},
    {"backend"},
    {"kept", "operators", "gradient_buffers"},
    {"kernels", "autodiff"},
    {"functional"},
    {"inspection"},
    {"nn", "serialization"},
    {"optim"},
    {"checkpoint", "parallel"},
    {"selftest"},
]
COMMUNICATORS = {"communicator.py", "shared_memory.py", "mpi.py", "nccl.py", "processes.py", "watchdog.py"}
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
FILES = sorted((ROOT / "minidl").rglob("*.py"))


def imports(file):
    """The absolute names of the modules that a file imports, also inside functions."""
    package = file.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            stem = ".".join(part for part in (base, node.module) if part)
            yield stem
            for alias in node.names:
                yield f"{stem}.{alias.name}"


def room(file):
    return file.relative_to(ROOT / "minidl").with_suffix("").parts[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_rooms_import_only_to_their_left(file):
    own = room(file)
    assert own in RANK or own in ("__init__", "data"), f"{own} has no place in the order yet"
    for name in imports(file):
        assert not name.startswith(("alexnet", "train")), f"{file} imports {name}"
        parts = name.split(".")
        if parts[0] != "minidl" or len(parts) < 2 or own == "__init__" or parts[1] == own:
            continue
        target = parts[1]
        if file.name in COMMUNICATORS:
            assert target in ("backend", "errors", "partition", "threads"), f"a communicator imports {name}"
        if target == "data":
            assert own in ("data", "parallel"), f"{own} imports {name}"
        if own == "data":
            assert target in ("random", "errors", "partition"), f"data imports {name}"
        elif target in RANK:
            assert RANK[target] < RANK[own], f"{own} imports {name}, which is not to its left"


def test_contributing_shows_this_order():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = re.search(r"^    (errors, .*?)\n\n", text, re.MULTILINE | re.DOTALL)[1]
    assert [set(re.findall(r"\w+", rooms)) for rooms in shown.split("<")] == [*ORDER, {"alexnet"}]


def test_every_communicator_exists():
    assert {file.name for file in FILES} >= COMMUNICATORS


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_room_imports_only_the_array_libraries_that_it_may(file):
    names = {name.split(".")[0] for name in imports(file)}
    if room(file) in ("autodiff", "functional", "optim"):
        assert "numpy" not in names, f"{file} assumes NumPy; take xp from the array"
    if room(file) not in ("backend", "kernels", "parallel"):
        assert "cupy" not in names, f"{file} imports cupy itself"
    assert not names & {"matplotlib", "tqdm", "torch", "pooch"}


def test_importing_the_library_does_no_work():
    """It imports no GPU library, no plotting and no download code, and prints nothing."""
    code = "import sys, minidl, alexnet; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    for name in ("cupy", "matplotlib", "tqdm", "pooch", "requests", "safetensors", "torch", "pygraphviz"):
        assert f"'{name}'" not in done.stdout


@pytest.mark.parametrize("package", ["minidl", "alexnet"])
def test_no_module_has_the_name_of_its_function_or_class(package):
    """Otherwise minidl.graph would be the module or the function, depending on the order of imports."""
    for file in (ROOT / package).rglob("*.py"):
        names = {node.name for node in ast.parse(file.read_text()).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        assert file.stem not in names, f"{file} has a function of its own name"


def test_autodiff_has_at_most_200_lines():
    assert len((ROOT / "minidl" / "autodiff.py").read_text().splitlines()) <= 200
