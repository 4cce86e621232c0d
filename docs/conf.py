"""Settings of the site: ``make docs`` writes it to ``build/docs``; nothing in it is loaded from a network."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from musegnn import __version__

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

project = "musegnn"
author = "the musegnn developers"
version = release = __version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb", "flowchart"]
exclude_patterns = ["_ext"]

html_theme = "furo"
html_title = "musegnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = html_show_copyright = False
html_copy_source = html_show_sourcelink = False
pygments_style, pygments_dark_style = "friendly", "github-dark"

myst_enable_extensions = ["colon_fence"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]
nb_execution_mode = "off"  # outputs are those that `make notebooks` stored

default_role = "literal"  # as docstrings write the names of parameters
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+)([^)]+)\)")


def name_files_outside(app: object, page: str, source: list[str]) -> None:
    """Name files of the repository that are no pages of the site, instead of linking to them."""
    folder = (HERE / page).parent

    def replace(link: re.Match[str]) -> str:
        target = (folder / (link[2] + link[3].partition("#")[0])).resolve()
        return link[0] if target.is_relative_to(HERE) else f"{link[1]} (`{target.relative_to(HERE.parent)}`)"

    source[0] = OUTSIDE.sub(replace, source[0])


def list_commands(app: object, page: str, source: list[str]) -> None:
    """Put the help of all commands, those of the store last, at the end of their page."""
    if page == "reference/commands":
        from musegnn.cli import app as commands

        text = commands.generate_docs().replace(" -m sphinx", "")  # the program that asks
        _, *parts = re.split(r"(?m)^(?=## musegnn )", text)
        source[0] += "\n" + "\n".join(sorted(parts, key=lambda part: part.startswith("## musegnn store")))


def setup(app: object) -> None:
    """Connect what this page changes."""
    app.connect("source-read", name_files_outside)  # type: ignore[attr-defined]
    app.connect("source-read", list_commands)  # type: ignore[attr-defined]
