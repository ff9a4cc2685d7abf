"""
How Sphinx makes the documentation::

    sphinx-build --fail-on-warning docs docs/_build

pydoctor makes the API reference from the docstrings in the same run.  Its warnings
count as Sphinx's.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

import twisted_links

from gomux._version import __version__ as release

project = "gomux for Twisted"
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

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["gomux.css"]
html_show_sourcelink = False
# The API reference has an index; the pages have nothing to put into one.
html_use_index = False

# Twisted's names, without the network: see twisted_links.
_twisted = twisted_links.writeInventory(ROOT)
intersphinx_mapping = {"twisted": (twisted_links.URL, str(_twisted))}

pydoctor_url_path = "api/"
pydoctor_args = [
    f"--config={ROOT / 'pyproject.toml'}",
    f"--project-base-dir={ROOT}",
    f"--project-version={release}",
    "--project-url=../index.html",
    f"--template-dir={ROOT / 'docs' / '_pydoctor'}",
    f"--intersphinx-file={_twisted}::{twisted_links.URL.rstrip('/')}",
    "--html-output={outdir}/api",
]
