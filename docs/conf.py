"""Sphinx settings: `make docs` builds the site into docs/_build/html."""

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

import minidl

project = "minidl"
author = "the minidl authors"
release = minidl.__version__
extensions = ["myst_nb"]
exclude_patterns = ["_build"]
html_extra_path = ["explorer/pages"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = f"minidl {release}"
html_copy_source = False
html_show_copyright = False
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebook's outputs are stored in it; a test runs it
html_math_renderer = "mathml"  # in the page itself: nothing is loaded from elsewhere


def _formula(display: bool):
    def visit(writer, node):
        writer.body.append(tex2mathml(node.astext(), as_block=display))
        raise SkipNode

    return visit, lambda writer, node: None


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=_formula(False), block_renderers=_formula(True))
