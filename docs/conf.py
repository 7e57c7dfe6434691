"""Sphinx settings: `make docs` builds the site into docs/_build/html."""

import re

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

import minidl

project = "minidl"
author = "the minidl authors"
release = minidl.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_extra_path = ["explorer/pages"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_js_files = ["file.js"]
html_title = f"minidl {release}"
html_copy_source = False
html_show_copyright = False
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebook stores its outputs, and a test runs it
html_math_renderer = "mathml"  # no script is loaded from another site

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
add_module_names = False
nitpick_ignore_regex = [("py:.*", ".*")]  # types of other libraries and private types have no page

CODE = re.compile(r"`([^`\n]+)`")
SPECIAL = re.compile(r"([\\*|]|_(?!\w))")


def as_rst(app, what, name, obj, options, lines):
    """Convert a docstring to reStructuredText: it has `code` in backticks, and indented formulas and examples."""
    made, indented = [], False
    for line in lines:
        deeper = line.startswith("    ")
        if deeper and not indented and not (made and made[-1]):
            made += ["::", ""]
        indented = deeper or (indented and not line)
        made.append(line if deeper else _text(line))
    lines[:] = made


def _text(line):
    parts = CODE.split(line)
    return "".join(f"``{part}``" if i % 2 else SPECIAL.sub(r"\\\1", part) for i, part in enumerate(parts))


def by_last_name(app, env, node, contnode):
    """Resolve a reference by its last part: annotations name the defining module, pages the module that users import."""
    name = node.get("reftarget", "").rpartition(".")[2]
    domain = env.domains["py"]
    found = [full for full in domain.objects if full.rpartition(".")[2] == name and name]
    if node.get("refdomain") != "py" or len(found) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, contnode)


def to_explorer(app, docname, source):
    """Change the links to the explorer's files, which html_extra_path puts at the root of the site."""
    source[0] = source[0].replace("explorer/pages/", "")


def _formula(display: bool):
    def visit(writer, node):
        writer.body.append(tex2mathml(node.astext(), as_block=display))
        raise SkipNode

    return visit, lambda writer, node: None


def setup(app):
    app.connect("source-read", to_explorer)
    app.connect("autodoc-process-docstring", as_rst)
    app.connect("missing-reference", by_last_name)
    app.add_html_math_renderer("mathml", inline_renderers=_formula(False), block_renderers=_formula(True))
