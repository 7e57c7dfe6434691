"""The figures of docs/: the same on every machine, and what is written in them is right."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# The networks as the paper (section 3.5) and the deck have them: maps of a layer, window, stride, padding, groups.
PAPER = {
    "conv1": (96, 11, 4, 0, 1),
    "pool1": (96, 3, 2, 0, 96),
    "conv2": (256, 5, 1, 2, 2),
    "pool2": (256, 3, 2, 0, 256),
    "conv3": (384, 3, 1, 1, 1),
    "conv4": (384, 3, 1, 1, 2),
    "conv5": (256, 3, 1, 1, 2),
    "pool5": (256, 3, 2, 0, 256),
}
DECK = {name: (*row[:4], 1) for name, row in PAPER.items()} | {"conv1": (96, 5, 1, 2, 1)}
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


def texts(name):
    """[(x, y, text)] of a figure, without those that are typeset as formulas."""
    root = ET.parse(DOCS / "images" / f"{name}.svg").getroot()
    found = [element for element in root.iter("{http://www.w3.org/2000/svg}text") if "x" in element.attrib]
    return [(float(one.get("x")), float(one.get("y")), "".join(one.itertext())) for one in found]


def columns(name, heads):
    """{head: what is written below it, from the top} of a figure."""
    found = texts(name)
    below = {text: [(y, word) for x2, y, word in found if abs(x2 - x) < 0.1] for x, _, text in found if text in heads}
    return {head: [word for _, word in sorted(words)][1:] for head, words in below.items()}


def number(text):
    digits, _, unit = text.partition(" ")
    return float(digits) * {"": 1, "k": 1e3, "M": 1e6}[unit]


@pytest.mark.parametrize("name, side, layers, classes", [("alexnet-2012", 227, PAPER, 1000), ("cifar-bn", 32, DECK, 10)])
def test_alexnet(name, side, layers, classes):
    fully_connected = {"fc6": 4096, "fc7": 4096, "fc8": classes}
    found = columns(name, ["image", *layers, *fully_connected])
    maps, costs = 3, []
    for layer, (channels, size, stride, padding, groups) in layers.items():
        side = (side + 2 * padding - size) // stride + 1
        window = f"{size}×{size}" + (f" / {stride}" if stride > 1 else "")
        assert found[layer][:3] == [f"{channels} ×", f"{side}×{side}", window]
        if layer.startswith("conv"):
            weights = channels * maps // groups * size**2
            costs.append((weights + channels * (3 if name == "cifar-bn" else 1), weights * side**2))
            assert [number(text) for text in found[layer][3:]] == pytest.approx(costs[-1], rel=0.005)
        maps = channels
    values = maps * side**2
    for layer, outputs in fully_connected.items():
        costs.append((values * outputs + outputs, values * outputs))
        assert found[layer][0] == str(outputs)
        assert [number(text) for text in found[layer][1:]] == pytest.approx(costs[-1], rel=0.005)
        values = outputs
    sums = [number(text[2:]) for _, _, text in texts(name) if text.startswith("Σ ")]
    assert sums == pytest.approx(np.sum(costs, axis=0), rel=0.005)


def test_receptive_field():
    """Pixel by pixel: which of them a unit in the middle can see, from layer to layer."""
    found, sides, seen = columns("receptive-field", ["image", *PAPER]), [227], [np.eye(227, dtype=bool)]
    names = ["image", *PAPER][:8]
    for name in names[1:]:
        _, size, stride, padding, _ = PAPER[name]
        sides.append((sides[-1] + 2 * padding - size) // stride + 1)
        spread = []
        for before in seen:
            padded = np.pad(before, ((padding, padding), (0, 0)))
            spread.append(np.array([padded[stride * i : stride * i + size].any(axis=0) for i in range(sides[-1])]))
        seen = [*spread, np.eye(sides[-1], dtype=bool)]
    for name, side, of in zip(names, [224, *sides[1:]], seen, strict=True):
        width = of[sides[-1] // 2].sum()
        assert found[name] == [f"{side}×{side}", f"{width}×{width}"]


def test_pooling():
    """Each window of three is drawn whole: dashed, and solid within the map. One is inside, the others go beyond it."""
    root = ET.parse(DOCS / "images/pooling.svg").getroot()
    svg = "{http://www.w3.org/2000/svg}"
    (map_clip,) = (clip for clip in root.iter(f"{svg}clipPath") if clip[0].get("x") != "0")
    x, y, side, _ = (float(map_clip[0].get(name)) for name in ("x", "y", "width", "height"))
    paths = list(root.iter(f"{svg}path"))
    dashed = [path.get("d") for path in paths if "dasharray" in path.get("style", "")]
    solid = [path.get("d") for path in paths if path.get("clip-path") == f"url(#{map_clip.get('id')})"]
    assert dashed == solid
    corners = np.array([re.findall(r"([\d.]+) ([\d.]+)", path) for path in dashed], float)
    np.testing.assert_allclose(np.ptp(corners, axis=1) / (side / 4), 3, atol=0.4)  # lines do not lie on each other
    beyond = corners.max(axis=1) > (x + side, y + side)
    assert beyond.tolist() == [[False, False], [True, False], [False, True], [True, True]]


def test_optimiser():
    titles = [text for _, _, text in texts("optimiser") if "steps" in text]
    assert titles == ["momentum = 0, lr = 0.07: 25 steps", "momentum = 0.8, lr = 0.03: 25 steps"]


def test_batch_last():
    index = [(c, h, w) for c in range(2) for h in range(2) for w in range(3)]
    written = [text for _, _, text in texts("batch-last")]
    heads = [written.index(head) for head in ("(N, C, H, W)", "(C, H, W, N)", "P[0]  (OH OW N)")]
    strips = [written[start + 1 : stop] for start, stop in zip(heads, [*heads[1:], None], strict=True)]
    names = ["".join(map(str, place)) for place in index]
    assert strips == [names * 2, [name for name in names for _ in range(2)], ["000", "000", "001", "001"]]


def test_winograd():
    """The outputs, from the definition, and what the numbers of the first tile give."""
    numbers = [int(text) for *_, text in texts("winograd") if re.fullmatch(r"-?\d+", text)]
    sides = [6, 3, 4, 4, 4, 4]
    parts = np.split(numbers, np.cumsum(np.square(sides))[:-1])
    x, w, V, U, M, y = (part.reshape(side, side) for part, side in zip(parts, sides, strict=True))
    for i, j in np.ndindex(4, 4):
        assert y[i, j] == (x[i : i + 3, j : j + 3] * w).sum()
    half_B, A_T = np.array([[2, 0, -2, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -2, 0, 2]]), np.array([[1, 1, 1, 0], [0, 1, -1, 1]])
    np.testing.assert_array_equal(4 * V, half_B @ x[:4, :4] @ half_B.T)
    np.testing.assert_array_equal(M, U * V)
    np.testing.assert_array_equal(A_T @ M @ A_T.T, y[:2, :2])


def closure(edges):
    while more := {(a, d) for a, b in edges for c, d in edges if b == c} - edges:
        edges = edges | more
    return edges


def test_rooms():
    """The ways along the arrows are those along the imports, as a search for words finds them, and no arrow is a shortcut."""
    names = {path.stem for path in (ROOT / "minidl").iterdir()} - {"__init__", "__pycache__", "py"}
    titles = [title.text for title in ET.parse(DOCS / "images/rooms.svg").getroot().iter("{http://www.w3.org/2000/svg}title")]
    arrows = {tuple(title.split("->")) for title in titles if "->" in title}
    assert {title for title in titles if title and "->" not in title} == names | {"alexnet"}
    found = set()
    for path in [*(ROOT / "minidl").rglob("*.py"), *(ROOT / "alexnet").rglob("*.py")]:
        package, *folders = path.relative_to(ROOT).with_suffix("").parts
        up = "minidl" if package == "alexnet" else r"\." * len(folders)
        for room, imported in re.findall(rf"^ *from {up}\.?(\w*)[\w.]* import (.*)$", path.read_text(), re.MULTILINE):
            targets = [room] if room else re.findall(r"\w+", imported)
            found |= {(folders[0] if package == "minidl" else package, target) for target in names.intersection(targets)}
    found = {(a, b) for a, b in found if a != b and a != "__init__"}
    assert closure(arrows) == closure(found)
    assert all(closure(arrows - {arrow}) != closure(arrows) for arrow in arrows)
