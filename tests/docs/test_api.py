"""The API reference: every public name has a page and a docstring."""

import importlib
import inspect
from pathlib import Path

import pytest

import minidl

API = Path(__file__).parents[2] / "docs/api"
MODULES = sorted(page.stem for page in API.glob("*.md") if page.stem != "index")


def public(module):
    """[(name, object)] of a module: the names in __all__, else the public names that it defines."""
    module = importlib.import_module(module)
    if hasattr(module, "__all__"):
        return [(name, getattr(module, name)) for name in module.__all__]
    own = (item for item in vars(module).items() if getattr(item[1], "__module__", None) == module.__name__)
    return [(name, thing) for name, thing in own if not name.startswith("_")]


def undocumented(name, thing):
    things = [(name, thing)]
    if inspect.isclass(thing):
        methods = (method for method, value in vars(thing).items() if inspect.isfunction(value) and method[0] != "_")
        things += [(f"{name}.{method}", getattr(thing, method)) for method in methods]
    return [text for text, each in things if not (inspect.getdoc(each) or "").strip()]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_documented(module):
    things = [(name, thing) for name, thing in public(module) if inspect.isroutine(thing) or inspect.isclass(thing)]
    assert [text for name, thing in things for text in undocumented(name, thing)] == []
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize("name", ["sum", "mean", "max"])
def test_help_shows_the_name_of_a_method(name):
    method = getattr(minidl.Tensor, name)
    assert (method.__name__, method.__qualname__) == (name, f"Tensor.{name}")


def test_every_public_module_has_a_page():
    """The modules in minidl.__all__, and the other public modules listed here."""
    offered = {f"minidl.{name}" for name, thing in public("minidl") if inspect.ismodule(thing)}
    offered |= {"minidl", "minidl.data", "minidl.nn.init", "minidl.parallel", "alexnet.models", "alexnet.datasets"}
    assert offered <= set(MODULES)
    index = (API / "index.md").read_text(encoding="utf-8")
    for module in MODULES:
        assert f"[{module}]({module}.md)" in index and f"automodule:: {module}\n" in (API / f"{module}.md").read_text()
