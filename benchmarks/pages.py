"""Tables in pages of the documentation, between two marks, written by the benchmark that measured them."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.run import device

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).resolve().parents[1]
END = "<!-- end -->"


def write_table(
    page: str, case: str, header: Sequence[str], rows: Iterable[Sequence[object]], note: str, *, root: Path = ROOT
) -> None:
    """Replace what a page has between ``<!-- python -m benchmarks CASE -->`` and the next ``<!-- end -->``.

    Parameters
    ----------
    page
        Path below `root`.
    note
        Line below the table.

    Raises
    ------
    ValueError
        When the page lacks the marks.
    """
    path, begin = root / page, f"<!-- python -m benchmarks {case} -->"
    before, mark, rest = path.read_text(encoding="utf-8").partition(begin)
    _, end, after = rest.partition(END)
    if not mark or not end:
        msg = f"{page} has no place for the table of {case}: {begin} ... {END}"
        raise ValueError(msg)
    cells = [header, ["---"] * len(header), *rows]
    lines = ["|" + "|".join(map(str, row)) + "|" if row[0] == "---" else _line(row) for row in cells]
    path.write_text("\n".join([before + begin, *lines, "", note, end]) + after, encoding="utf-8")


def _line(row: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, row)) + " |"


def machine_and(*packages: str) -> str:
    """Name processor, cores and versions of packages, as notes of tables do."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{len(os.sched_getaffinity(0))} cores of an {device()} that had other work; {versions}"
