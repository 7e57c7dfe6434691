"""The pages of docs/: their examples run, their code and figures are up to date, and their links work."""

import doctest
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from alexnet import datasets

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts)]
ENGLISH = [DOCS / "backprop.md", DOCS / "speed.md", *sorted((DOCS / "backprop").glob("*.md"))]
DERIVATIONS = [page for page in PAGES if "backprop" in page.relative_to(ROOT).as_posix() or page.stem == "speed"]
TYPESET = [*DERIVATIONS, DOCS / "parallel.md", DOCS / "graph.md", *sorted((DOCS / "steps").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_PROSE = re.compile(r"<!-- .* -->|`[^`\n]+`|!\[[^\]]*\]\([^)]+\)")
DISPLAYED = re.compile(r"^\$\$\n(.*?)\n\$\$$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!\S)\$([^$\n]+)\$(?![A-Za-z0-9])")  # where GitHub also sees a formula
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def name(page):
    return str(page.relative_to(ROOT))


def blocks(page, *languages):
    return [code for language, code in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def formulas(page):
    """(displayed formulas, inline formulas, prose without formulas, code and figures) of a page."""
    text = NOT_PROSE.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))
    prose = DISPLAYED.sub("", text)
    return DISPLAYED.findall(text), INLINE.findall(prose), INLINE.sub("", prose)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_examples_print_what_the_page_shows(page, monkeypatch):
    """Python prints what the page shows after >>>."""
    monkeypatch.syspath_prepend(DOCS / "steps")
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks(page, "pycon")), {}, name(page), str(page), 0)
    report = []
    doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(examples, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "graph.md"], ids=name)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    """The Python blocks of a page, which show no output, run one after the other."""
    code = "\n".join(blocks(page, "python"))
    if "minidl.graph" in code:
        pytest.importorskip("pygraphviz")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("page", ENGLISH, ids=name)
def test_every_page_has_examples(page):
    assert blocks(page, "pycon"), "the page has no example that can be checked"


@pytest.mark.parametrize("page", ENGLISH, ids=name)
def test_korean_pages_have_the_same_code_figures_and_formulas(page):
    """Only the prose differs; code blocks, formulas, images and code marks are the same."""
    korean = DOCS / "ko" / page.relative_to(DOCS)

    def skeleton(path):
        text = path.read_text(encoding="utf-8")
        displayed, inline, _ = formulas(path)
        indented = [line.strip() for line in FENCE.sub("", text).splitlines() if line.startswith("    ")]
        images = [target.rpartition("images/")[2] for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)]
        return {
            "fences": FENCE.findall(text),
            "formulas": displayed,
            "inline formulas": set(inline),
            "indented formulas": [re.sub(r"\s+", " ", line) for line in indented],
            "images": images,
            "marks": re.findall(r"<!-- code: .* -->", text),
            "headings": [len(marks) for marks in re.findall(r"^(#+) ", FENCE.sub("", text), re.MULTILINE)],
        }

    ours, theirs = skeleton(page), skeleton(korean)
    for part in ours:
        assert theirs[part] == ours[part], f"{name(korean)} differs from {name(page)} in its {part}"
    letters = re.findall(r"[가-힣]", korean.read_text(encoding="utf-8"))
    assert len(letters) > 300, "it is not written in Korean"


@pytest.mark.parametrize("page", DERIVATIONS, ids=name)
def test_there_are_formulas(page):
    displayed, _, _ = formulas(page)
    assert displayed, "the page has no formula"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_dollars_of_a_displayed_formula_are_on_lines_of_their_own(page):
    """DISPLAYED finds no others, so they would not be tested."""
    _, _, prose = formulas(page)
    assert "$$" not in prose


@pytest.mark.parametrize("page", TYPESET, ids=name)
def test_formulas_are_typeset(page):
    """Each formula is between dollars; none is indented text or plain prose such as `y = x^2`."""
    _, _, prose = formulas(page)
    plain = re.findall(r"^    .+|^.*[$=^].*", prose, re.MULTILINE)
    assert not plain, f"{name(page)} has formulas that are not typeset: {plain}"


def test_the_quick_start_saves_a_digit(tmp_path, monkeypatch):
    """It is the test image of the digit that the page names."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r'^    \.venv/bin/python -c "(.*?)"$', text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("\\\n", ""), {})
    test = datasets.digits().test
    assert test.labels[:10].tolist() == list(range(10)) and "This saves the 3 " in text
    np.testing.assert_array_equal(Image.open("digit.png"), test.images[3, 0])


def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_work(page):
    for target in ["".join(groups) for groups in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))]:
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = page if not path else (page.parent / path).resolve()
        assert file.exists(), f"{name(page)} links to {target}, which is not there"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{name(page)} links to {target}, and there is no such heading"


def generate(*options):
    pytest.importorskip("pygraphviz")
    return subprocess.run([sys.executable, DOCS / "generate.py", *options], capture_output=True, text=True, check=False)


def test_code_and_figures_are_up_to_date():
    done = generate("--check")
    assert done.returncode == 0, done.stderr


def test_the_docs_are_not_rewritten_for_a_wrong_option():
    done = generate("--chekc")
    assert done.returncode == 2 and "unrecognized arguments: --chekc" in done.stderr
