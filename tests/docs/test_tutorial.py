"""docs/tutorial.ipynb and the Korean one: their stored outputs are complete, their code is the same, and it runs."""

import ast
import io
import json
import os
import re
import sys
import tempfile
import tokenize
from pathlib import Path

import pytest

from ..helpers import cifar_files

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOK, KOREAN = DOCS / "tutorial.ipynb", DOCS / "ko" / "tutorial.ipynb"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=[NOTEBOOK, KOREAN], ids=["English", "Korean"])
def notebook(request):
    return request.param


@pytest.fixture(scope="module")
def stored(notebook):
    return read(notebook)


@pytest.fixture(scope="module")
def code_cells(stored):
    return [cell for cell in stored["cells"] if cell["cell_type"] == "code"]


def shows_something(source):
    """Whether a cell itself calls print, or a function with show or plot_ in its name; a definition does not count."""
    nodes = list(ast.parse(source).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.ExceptHandler)):
            continue
        if isinstance(node, ast.Call) and re.match(r"(.*\.)?print$|.*(show|plot_)", ast.unparse(node.func)):
            return True
        nodes.extend(ast.iter_child_nodes(node))
    return False


def test_which_cells_show_something():
    assert shows_something("for i in range(3):\n    print(i)") and shows_something("plt.show()")
    assert shows_something("with a:\n    plot_losses(b)")
    assert not shows_something("def f():\n    print(1)\n\n\nx = f") and not shows_something("blueprint(1)")


def test_the_stored_outputs_are_of_one_run_in_order(code_cells):
    assert [cell["execution_count"] for cell in code_cells] == list(range(1, len(code_cells) + 1))
    showing = [cell for cell in code_cells if shows_something("".join(cell["source"]))]
    assert len(showing) > 20
    for cell in showing:
        assert cell["outputs"], f"cell {cell['id']} has no output"


def test_no_output_is_an_error_or_names_the_machine(code_cells):
    for cell in code_cells:
        for output in cell["outputs"]:
            assert output["output_type"] != "error", cell["id"]
            assert output.get("name") != "stderr", f"cell {cell['id']} wrote to standard error"
            text = json.dumps({key: value for key, value in output.get("data", {}).items() if key != "image/png"})
            text += "".join(output.get("text", ""))
            found = re.search(r"/work|/home|/root|/tmp|/Users|Traceback|\\u001b|\x1b|\r", text)
            assert not found, f"cell {cell['id']} shows {found.group()}"


def test_the_notebook_is_small_and_has_no_extra_metadata(notebook, stored):
    assert notebook.stat().st_size < 400_000
    assert (stored["nbformat"], stored["nbformat_minor"]) == (4, 5)
    assert stored["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    ids = [cell["id"] for cell in stored["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(cell["metadata"] == {} for cell in stored["cells"])
    assert notebook.read_text(encoding="utf-8") == json.dumps(stored, indent=1, ensure_ascii=False) + "\n"


def test_links_work(notebook, stored):
    prose = "".join("".join(cell["source"]) for cell in stored["cells"] if cell["cell_type"] == "markdown")
    targets = re.findall(r"\]\(([^)]+)\)", prose)
    assert len(targets) == 3
    for target in targets:
        assert (notebook.parent / target).exists()


def test_the_korean_notebook_differs_only_in_prose_and_comments():
    """So it is enough to run the English notebook."""
    english, korean = read(NOTEBOOK), read(KOREAN)
    for cell, other in zip(english.pop("cells"), korean.pop("cells"), strict=True):
        source, translated = ("".join(c.pop("source")) for c in (cell, other))
        assert other == cell, cell["id"]  # kind, number and outputs
        skeleton = code_without_comments if cell["cell_type"] == "code" else formulas_code_and_headings
        assert skeleton(translated) == skeleton(source), cell["id"]
        assert re.search("[가-힣]", translated) or (cell["cell_type"] == "code" and not comments_with_words(source)), cell["id"]
    assert korean == english


def tokens(code):
    return list(tokenize.generate_tokens(io.StringIO(code).readline))


def code_without_comments(code):
    without = tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE
    return [(token.start, token.string) for token in tokens(code) if token.type not in without]


def comments_with_words(code):
    return [token.string for token in tokens(code) if token.type == tokenize.COMMENT and re.search("[a-z]{2}", token.string)]


def formulas_code_and_headings(prose):
    marks = r"\$\$.+?\$\$", r"`.+?`", r"^#+ |^\d\. |^\* "
    return [set(re.findall(mark, prose, re.MULTILINE)) for mark in marks]


@pytest.mark.filterwarnings("default")  # warnings of nbclient; the notebook runs in a process of its own
def test_every_cell_runs(tmp_path, monkeypatch):
    """In a new kernel of this Python, on random images in CIFAR-10's layout, without the user's Jupyter settings."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    class ThisPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name):
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="Python 3", language="python")

    cifar_files.write(tmp_path)
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "default")

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # The kernel uses sockets in a folder with a short path, and no network.
    with tempfile.TemporaryDirectory(prefix="kernel") as sockets:
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=ThisPython(),
            transport="ipc",
            connection_file=os.path.join(sockets, "kernel.json"),
        )
        resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
        client = nbclient.NotebookClient(notebook, km=manager, timeout=600, resources=resources)
        client.execute(cleanup_kc=True)  # raises if a cell fails; ends the kernel in any case
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [cell.id for cell in cells if any(output.output_type == "error" for output in cell.outputs)] == []
