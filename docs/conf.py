"""Sphinx settings: `make docs` builds the site into docs/_build/html."""

import minidl

project = "minidl"
author = "the minidl authors"
release = minidl.__version__
extensions = ["myst_nb"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = f"minidl {release}"
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebook's outputs are stored in it; a test runs it
