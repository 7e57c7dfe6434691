"""The figures of docs/. minidl computes their numbers; their words are letters and names, so that they serve any language."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import matplotlib.style
from matplotlib.figure import Figure
from results import saved

from . import devices, graphs, layers, network, speed  # noqa: F401
from .sheet import FIGURES

NODE = re.compile(r'<g id="node.*?</g>', re.DOTALL)


def svg(name: str) -> str:
    """The figure as SVG text. It depends on the code alone: no date, no fonts of this machine, two decimals."""
    with matplotlib.style.context(["default", {"svg.fonttype": "none"}]), _fonts():
        drawing = FIGURES[name]()
        return saved(drawing) if isinstance(drawing, Figure) else _laid_out(drawing)


def _laid_out(drawing) -> str:
    """A pygraphviz.AGraph. Its texts stand in the middle of their node, however wide the reader's letters are."""
    drawing.graph_attr["bgcolor"] = "white"
    text = NODE.sub(lambda node: _centred(node[0]), drawing.draw(format="svg").decode())
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _centred(node: str) -> str:
    xs = [float(point.split(",")[0]) for point in re.search(r'points="([^"]+)', node)[1].split()]
    return re.sub(r'text-anchor="start" x="[^"]+"', f'text-anchor="middle" x="{(min(xs) + max(xs)) / 2:.2f}"', node)


@contextmanager
def _fonts() -> Iterator[None]:
    """Graphviz measures text by the fonts that fontconfig finds. Let it find matplotlib's only, which are the same everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "fonts.conf"
        directory = f"{matplotlib.get_data_path()}/fonts/ttf"
        rescan = "<config><rescan><int>0</int></rescan></config>"
        config.write_text(f"<fontconfig><dir>{directory}</dir><cachedir>{folder}</cachedir>{rescan}</fontconfig>")
        with mock.patch.dict(os.environ, FONTCONFIG_FILE=str(config), PANGOCAIRO_BACKEND="fc"):
            yield
