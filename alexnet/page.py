"""Pages of one file each, which load nothing: text, style, scripts, Plotly and data are all in the file."""

import html
from pathlib import Path
from string import Template
from typing import Any

import msgspec

from minidl.files import replacing

PARTS = Path(__file__).parent / "pages"


def write(path: Path, name: str, title: str, data: Any) -> None:
    """Write the page `name`: pages/NAME.html, and pages/NAME.js, which reads the data from `data`. Raises OSError."""
    from plotly.offline import get_plotlyjs  # imported here, as it takes a while

    content = Template(_part("page.html")).substitute(
        title=html.escape(_text(title)),
        style=_part("style.css"),
        body=_part(f"{name}.html"),
        data=embeddable(data),
        plotly=get_plotlyjs(),
        script=_part("common.js") + _part(f"{name}.js"),
    )
    with replacing(path) as part:
        part.write_text(content, encoding="utf-8")


def embeddable(data: Any) -> str:
    """JSON that is safe in a script element: no text in it can end that element or begin another.

    NumPy's numbers are written as numbers, NaN and infinity as null.
    """
    return msgspec.json.encode(_text(data), enc_hook=lambda number: number.item()).replace(b"<", rb"\u003c").decode()


def _text(data: Any) -> Any:
    """The data with each byte of a file name that is not text replaced by a mark."""
    if isinstance(data, str):
        return data.encode("utf-8", "replace").decode()
    if isinstance(data, dict):
        return {_text(key): _text(value) for key, value in data.items()}
    return [_text(value) for value in data] if isinstance(data, (list, tuple)) else data


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")
