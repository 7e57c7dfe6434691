"""The figures of docs/: the same on every machine, and what is written in them is right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DRAW = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import figures
for name in figures.FIGURES:
    (Path(sys.argv[1]) / f"{name}.svg").write_text(figures.svg(name), encoding="utf-8")
"""


def test_they_do_not_depend_on_the_fonts_and_settings_of_a_machine(tmp_path):
    pytest.importorskip("pygraphviz")
    (tmp_path / "fonts.conf").write_text("<fontconfig></fontconfig>")
    (tmp_path / "matplotlibrc").write_text("font.family: serif\nfont.size: 13\naxes.grid: True\nsvg.fonttype: path\n")
    settings = {"FONTCONFIG_FILE": str(tmp_path / "fonts.conf"), "MATPLOTLIBRC": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    command = [sys.executable, "-c", DRAW, tmp_path, DOCS, ROOT]
    subprocess.run(command, env=os.environ | settings, check=True, capture_output=True)
    drawn = sorted(tmp_path.glob("*.svg"))
    assert [path.name for path in drawn] == sorted(path.name for path in (DOCS / "images").glob("*.svg"))
    for path in drawn:
        assert path.read_bytes() == (DOCS / "images" / path.name).read_bytes(), path.name
