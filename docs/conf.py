"""
How Sphinx makes the documentation::

    sphinx-build --fail-on-warning docs docs/_build

The API reference is pydoctor's, made from the docstrings in the same run: any
warning of its is one of Sphinx's.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

import twisted_links

from gomux._version import __version__ as release

copyright = author = "The gomux for Twisted authors"
version = release

extensions = [
    "sphinx.ext.intersphinx",
    "pydoctor.sphinx_ext.build_apidocs",
    "limits_table",
]
exclude_patterns = ["_build"]
default_role = "py:obj"
nitpicky = True

html_theme = "alabaster"
html_theme_options = {
    "description": "Many duplex streams over one encrypted connection, for Twisted",
    "page_width": "68em",
}
html_show_sourcelink = False

# Twisted's names, without the network: see twisted_links.
_twisted = twisted_links.writeInventory(ROOT)
intersphinx_mapping = {"twisted": (twisted_links.URL, str(_twisted))}

pydoctor_url_path = "api/"
pydoctor_args = [
    f"--config={ROOT / 'pyproject.toml'}",
    f"--project-base-dir={ROOT}",
    f"--intersphinx-file={_twisted}::{twisted_links.URL.rstrip('/')}",
    "--html-output={outdir}/api",
]
