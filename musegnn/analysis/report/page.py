"""The report page: template, style, script and payload in one HTML file."""

from __future__ import annotations

import base64
import hashlib
import html
from importlib.resources import files
from typing import TYPE_CHECKING

from musegnn.analysis.report.data import ReportData, pack
from musegnn.data_store.atomic_files import write_file

if TYPE_CHECKING:
    from pathlib import Path

    from musegnn.progress import Progress

SCRIPTS = (
    "dom", "data", "color", "view", "grid", "points_webgl", "points_canvas", "density", "labels", "overlay", "gestures",
    "map", "sets", "search", "legend", "gene_panel", "compare", "change", "list_panel", "overview", "save", "address",
    "live", "charts", "tables", "keys", "main",
)  # fmt: skip


def write_report(path: Path | str, data: ReportData, *, k: int | None = None, progress: Progress | None = None) -> None:
    """Write the page: one file without references to others, the same bytes for equal data.

    Nothing of the data is ever parsed as HTML or run: it lies in two compressed blocks, the page makes text nodes of
    it, and a content security policy that names the hashes of style and script forbids everything else, all network
    access included. `k` nearest genes are kept per point inside its dataset, and as many in other datasets, see
    :func:`musegnn.analysis.report.data.pack`.
    """
    write_file(path, render(data, k=k, progress=progress))


def render(data: ReportData, *, k: int | None = None, live: bool = False, progress: Progress | None = None) -> str:
    """Return the page as text; `live` lets it ask the process that serves it, and nobody else."""
    style = _asset("style.css")
    body = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{body}}})();\n'
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data: blob:"
    if live:
        policy += "; connect-src 'self'"
    head, tail = pack(data, k=k, live=live, progress=progress)
    parts = {
        "CSP": policy,
        "TITLE": html.escape(data.title),
        "STYLE": style,
        "POINTS": head,
        "LISTS": tail,
        "SCRIPT": script,
    }
    pieces = _asset("page.html").split("@")
    known = [parts[piece] if n % 2 else piece for n, piece in enumerate(pieces)]
    return "".join(known)


def _asset(name: str) -> str:
    return files("musegnn.analysis.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
