"""Bring docs/ up to date with the code: `python docs/generate.py`. With --check, change nothing and print what is out of date.

The package figures/ draws the figures. In the pages, the code after a mark such as

    <!-- code: minidl.functional.products.Linear -->

is replaced by the current source of that class or function. The text between two marks such as

    <!-- table: pooling -->  and  <!-- end -->

is made by results.py from the runs that are kept in results/, and so are the plots there. The explorer's pages are made from the
files in explorer/. Messages that troubleshooting.md does not explain yet are added at its end.
Exit status: 0, 1 if --check found something, 2 wrong usage.
"""

import argparse
import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path

import figures
import messages
import results
from explorer import build

DOCS = Path(__file__).parent
sys.path[1:1] = [str(DOCS.parent), str(DOCS / "steps")]
IMAGES = DOCS / "images"
CODE = re.compile(r"<!-- code: ([\w.]+) -->\n(?:\n```python\n.*?\n```\n)?", re.DOTALL)


def pages() -> list[Path]:
    return [page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts]


def with_code(text: str) -> str:
    """A page's text with the present source after each mark."""
    return CODE.sub(lambda mark: f"<!-- code: {mark[1]} -->\n\n```python\n{source(mark[1])}\n```\n", text)


def source(name: str) -> str:
    """The source of minidl.package.module.Class.method, below the name of its file."""
    parts = name.split(".")
    for i in range(len(parts) - 1, 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[i:]:
            thing = getattr(thing, attribute)
        file = Path(inspect.getfile(thing)).relative_to(DOCS.parent).as_posix()
        return f"# {file}\n" + textwrap.dedent(inspect.getsource(thing)).rstrip()
    raise SystemExit(f"docs/generate.py: there is no module in {name}")


def unexplained(check: bool) -> list[str]:
    """The differences between troubleshooting.md and the messages in the source, one per line.

    Without check, stubs of the missing entries are written.
    """
    text = messages.PAGE.read_text(encoding="utf-8")
    missing, gone = messages.differences(text)
    if not check:
        messages.PAGE.write_text(messages.with_stubs(text), encoding="utf-8")
    return [f"has no cause and cure for `{template}` of {module}" for template, module in missing.items()] + [
        f"has an entry for `{template}`, which nothing makes any more" for template in gone
    ]


def main(check: bool) -> int:
    problems = unexplained(check)
    for problem in problems:
        print(f"docs/troubleshooting.md {problem}", file=sys.stderr)
    stale = []
    for page in [DOCS.parent / "README.md", *pages()]:
        text = page.read_text(encoding="utf-8")
        new = results.with_results(with_code(text))
        if new != text:
            stale.append(page)
            if not check:
                page.write_text(new, encoding="utf-8")
    whole = {IMAGES / f"{name}.svg": figures.svg(name) for name in figures.FIGURES}
    whole |= {results.RESULTS / f"{name}.svg": results.svg(name) for name in results.PLOTS if results.runs(name)}
    whole |= {path: build.page(language) for language, path in build.PAGES.items()}
    for path, new in whole.items():
        if not path.exists() or path.read_text(encoding="utf-8") != new:
            stale.append(path)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(new, encoding="utf-8")
    for path in stale if check else ():
        print(f"{path.relative_to(DOCS.parent)} is out of date: run python docs/generate.py", file=sys.stderr)
    return 1 if check and (stale or problems) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, and print what is out of date")
    sys.exit(main(parser.parse_args().check))
