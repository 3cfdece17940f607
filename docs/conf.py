"""The site that `make docs` builds of docs/ and of all READMEs.

Sphinx, because SpeechBrain's own docs are Sphinx and its napoleon reads the
``Arguments`` sections of the docstrings; MyST, so that pages are Markdown that
reads well where the files lie, too; furo for its looks.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

from spiritlm_plugin import __version__

ROOT = Path(__file__).parents[1]

project = "Spirit LM for SpeechBrain"
author = "the authors of Spirit LM for SpeechBrain"
release = version = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]

# The sources lie in the repository's root, so that the READMEs are pages and
# links from one to the other are checked.
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/**",
    "recipes/**/README.md",
    "spiritlm_plugin/pretrained/*/README.md",
    "tests/conformance/README.md",
]
exclude_patterns = [".*", "build", "dist", "docs/_build", "**/results"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

# `Name` in a docstring links to what has that name, and is code if nothing has.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"{project} {version}"
html_additional_pages = {"index": "start.html"}
templates_path = ["_templates"]

_FOLDER_LINK = re.compile(r"\]\(([^()#:\s]+?)/?(#[^()\s]*)?\)")


def link_to_readmes(app: Sphinx, docname: str, content: list[str]) -> None:
    """Turn links to folders, which the site lacks, into links to READMEs."""
    folder = (ROOT / docname).parent

    def link(found: re.Match) -> str:
        path, anchor = found.group(1), found.group(2) or ""
        if (folder / path / "README.md").is_file():
            return f"]({path}/README.md{anchor})"
        return found.group()

    content[0] = _FOLDER_LINK.sub(link, content[0])


def setup(app: Sphinx) -> None:
    """Register what is above."""
    app.connect("source-read", link_to_readmes)
