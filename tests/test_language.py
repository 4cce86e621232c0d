"""The language of code and documentation: the field's terms, and docstrings that open as readers of numpydoc expect."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.count import DOCUMENTED, ROOT, read_modules

OPENINGS = ("Give ", "Tell ", "Told ", "Say ", "Whose")
WORDS = (
    r"rivals?",
    r"learned by heart",
    r"of our own",
    r"crews?",
    r"hire[sd]?",
    r"heard",
    r"poison(?:ed|s)?",
    r"strangers?",
    r"meeting[ _]place",
    r"quieten(?:ed|s)?",
    r"Told\b[^.\n]*\.",
    r"Whose\.",
)
"""Words of a private dialect, instead of which the glossary in CONTRIBUTING.md has the terms of the field."""


@cache
def texts():
    """Return the files by folder: name and text."""
    found: dict[str, list[tuple[str, str]]] = {}
    for module in read_modules(ROOT).values():
        found.setdefault(module.folder, []).append((module.name, module.text))
    pages = {
        "docs": [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")],
        "kernels": (ROOT / "kernels").rglob("*.md"),
        "data_store": (ROOT / "data_store").rglob("*.md"),
        "benchmarks": [*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.md")],
    }
    for folder, paths in pages.items():
        named = [(str(path.relative_to(ROOT)), path) for path in sorted(paths) if path.name != "CHANGELOG.md"]
        found.setdefault(folder, []).extend((name, path.read_text(encoding="utf-8")) for name, path in named)
    return found


def openings(name, text):
    """List the first lines of docstrings."""
    if name.endswith(".md"):
        return []
    docs = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, DOCUMENTED)]
    return [doc.partition("\n")[0] for doc in docs]


@pytest.mark.parametrize("folder", texts())
def test_language_is_that_of_the_field(folder):
    hits: dict[str, list[str]] = {}
    for name, text in texts()[folder]:
        for line in openings(name, text):
            for start in filter(line.startswith, OPENINGS):
                hits.setdefault(start, []).append(f"{name}: {line}")
        for word in WORDS:
            for found in re.finditer(rf"\b{word}(?!\w)", text):
                hits.setdefault(word, []).append(f"{name}:{text.count(chr(10), 0, found.start()) + 1}")
    assert hits == {}
