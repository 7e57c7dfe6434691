"""The site that Sphinx builds, of five of its pages: links lead to the explorer, search finds words, and nothing is cut off."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["index.md", "parallel.md", "troubleshooting.md", "ko/index.md", "ko/speed.md"]
# What stands out of the window on the right: of the text, or of the contents beside it.
CUT_OFF = """(part) => [...document.querySelectorAll(`${part} :is(a, p, td, th, img, math)`)]
  .filter((element) => element.checkVisibility() && !element.closest("pre"))
  .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
  .map((element) => element.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for module in ("sphinx", "furo", "myst_nb"):
        pytest.importorskip(module)
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(DOCS / "images", source / "images")
    for page in PAGES:
        (source / page).parent.mkdir(exist_ok=True)
        shutil.copy(DOCS / page, source / page)
    subprocess.run([sys.executable, "-m", "sphinx", "-Q", "-c", DOCS, source, source / "site"], check=True)
    return source / "site"


@pytest.mark.parametrize("page, pages", [("index", ["explorer", "ko/explorer"]), ("ko/index", ["ko/explorer"])])
def test_links_lead_to_the_explorer(site, page, pages):
    """On the site its pages are at the root; in the repository they are in docs/explorer/pages."""
    html = (site / f"{page}.html").read_text(encoding="utf-8")
    linked = [(site / page).parent / target for target in re.findall(r'href="([^"]*explorer\.html)"', html)]
    assert [path.resolve() for path in linked] == [site / f"{name}.html" for name in pages]
    assert all(path.exists() for path in linked)


@pytest.mark.parametrize("word, page", [("checkpoint", "troubleshooting"), ("메모리", "ko/speed")])
def test_search_finds(site, show, word, page):
    with show(site / "index.html") as shown:
        shown.fill(".sidebar-search", word)
        shown.press(".sidebar-search", "Enter")
        shown.wait_for_selector(f"#search-results a[href^='{page}.html']")
        shown.wait_for_function("document.querySelector('.search-summary').textContent.startsWith('Search finished')")


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_cut_off(site, show, page):
    with show((site / page).with_suffix(".html")) as shown:
        for width in (1440, 1280):
            shown.set_viewport_size({"width": width, "height": 900})
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            assert shown.evaluate(CUT_OFF, "article") == []
            if width == 1280:  # the contents wait behind a button
                shown.click(".toc-content-icon")
                shown.wait_for_function("document.querySelector('.toc-drawer').getBoundingClientRect().right <= innerWidth")
            assert shown.locator(".toc-tree a").count() and shown.evaluate(CUT_OFF, ".toc-drawer") == []
