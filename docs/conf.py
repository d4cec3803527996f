"""How Sphinx builds the site: `make docs`. Pages made from the registry are written first, by `docs/pages`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
os.environ["FEDJAX_LC_CACHE"] = "off"  # the pages are made of this repository, and nothing is left behind
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # small programs, run once: compiled soon into slow code
os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_enable_x64", True)

import fedjax_lc
from docs import pages
from docs.pages import escaping, mathml

project, author, copyright = "fedjax_lc", "The fedjax_lc authors", "The fedjax_lc authors, MIT licence"
version = release = fedjax_lc.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "pages"]
smartquotes = False
default_role = "code"

myst_enable_extensions = ["dollarmath", "deflist", "colon_fence", "attrs_block"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_type_aliases = {name: name for name in ("Vec", "ClientVecs", "Scalar", "Key", "PyTree", "ArrayLike")}
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_custom_sections = [("Source", "notes_style")]

html_theme = "furo"
html_title = "fedjax_lc"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}


def setup(app):
    app.add_html_math_renderer("mathml", (mathml.inline, None), (mathml.display, None))
    app.connect("builder-inited", lambda app: pages.write(Path(app.srcdir)))
    app.connect("source-read", pages.relink)
    app.connect("autodoc-process-docstring", escaping.docstring, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", escaping.dashes, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
