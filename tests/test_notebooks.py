"""The notebooks run from the first cell to the last, and what readers see of them is clean."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT
from tests.notebooks import FOLDER, execute

BOOKS = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
NEEDS_DATA = {"interferon"}
"""Notebooks of data that may not ship."""
UNCLEAN = re.compile(r"\x1b|\r|Warning:|Traceback|/(?:home|root|work|tmp)/")
LARGEST = 400_000  # bytes


def outputs_of(book):
    """Return the text of all outputs, and the number of those that are figures."""
    found = [output for cell in book["cells"] if cell["cell_type"] == "code" for output in cell["outputs"]]
    texts = [output["text"] if "text" in output else output["data"].get("text/plain", "") for output in found]
    return "\n".join(texts), sum("image/png" in output.get("data", {}) for output in found)


def check(book):
    text, figures = outputs_of(book)
    assert UNCLEAN.findall(text) == []
    assert figures >= 1
    bars = [line for line in text.splitlines() if line.startswith("build ")]
    assert bars
    assert all("\u2591" not in line for line in bars)  # every bar is full at the end
    return text


@pytest.fixture(params=sorted(BOOKS))
def stored(request):
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `docs`")
    return BOOKS[request.param], nbformat.read(BOOKS[request.param], as_version=4)


def test_stored_outputs_are_complete_clean_and_small(stored):
    path, book = stored
    check(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert path.stat().st_size < LARGEST


@pytest.mark.slow
@pytest.mark.timeout(3000)  # of a machine with other work; a minute of CPU time
@pytest.mark.parametrize("name", BOOKS)
def test_notebooks_run(name, request, monkeypatch):
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package, reason="needs the extra `docs`")
    if name in NEEDS_DATA:
        monkeypatch.setenv("MUSEGNN_SHARED", str(request.getfixturevalue("shared")))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    check(execute(BOOKS[name]))
