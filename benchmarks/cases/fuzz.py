"""Mutated input files: each is read or refused in one line; the reading process lives and stays within its memory.

A full run writes its table of ``SECURITY.md``.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from benchmarks.cases.crash import nothing
from benchmarks.crash.fuzz import Fuzz, fuzz
from benchmarks.crash.inputs import KINDS
from benchmarks.pages import machine_and, write_table
from benchmarks.registry import Check, Measurement
from benchmarks.run import RESULTS

if TYPE_CHECKING:
    from collections.abc import Iterator

READER_MEMORY = 512
"""MiB beyond what the reading process takes before the first file."""
FEW, MANY = 40, 2000
HEADER = ("format", "files", "read", "refused", "of these, the probe died", "the reader failed or wrote", "most memory")


class MutatedFiles:
    """A few files of each format are the checks, many of them the measurements."""

    name = "fuzz"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Read a few mutated files of each format."""
        del quick
        for kind in KINDS:
            found = fuzz(kind, FEW)
            codes = ", ".join(f"{code} {n}" for code, n in found.refused.most_common())
            yield nothing(
                f"{found.files} mutated {kind} files: {found.accepted} read, the others refused: {codes}", found.failed
            )
            memory = _mebibytes(found)
            claim = f"reading them takes at most {READER_MEMORY} MiB more"
            yield Check(claim=claim, holds=memory <= READER_MEMORY, got=f"{memory:.0f} MiB")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Read many, format by format, and return the numbers of files by what became of them."""
        for kind in [] if quick else reversed(KINDS):  # that of the files which take longest comes last
            found = fuzz(kind, MANY)
            for failure in found.failed:
                print(f"    {failure}", flush=True)
            yield from measurements(kind, found)
            write_findings()


def measurements(kind: str, found: Fuzz) -> Iterator[Measurement]:
    """Return what became of the files of a kind as measurements."""
    shape = f"{kind}: {found.files}"
    counts = {"read": found.accepted, "refused": found.refused.total(), "probe_died": found.refused["E101"]}
    for metric, value in counts.items():
        yield Measurement(shape=shape, metric=metric, value=value, unit="")
    failed, memory = len(found.failed), _mebibytes(found)
    yield Measurement(shape=shape, metric="failed", value=failed, unit="", goal=("value", "<=", 0.0))
    yield Measurement(shape=shape, metric="peak_growth", value=memory, unit="MiB", goal=("value", "<=", READER_MEMORY))


def write_findings() -> None:
    """Write the table of the formats that are done, from the newest rows of each."""
    found: dict[str, dict[str, float]] = {}
    with (RESULTS / "fuzz.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["shape"], {})[row["metric"]] = float(row["value"])
    rows = []
    for shape, values in found.items():
        kind, _, files = shape.rpartition(": ")
        counts = [int(values[metric]) for metric in ("read", "refused", "probe_died", "failed")]
        rows.append((kind, files, *counts, f"{values['peak_growth']:.0f} MiB"))
    write_table("SECURITY.md", "fuzz", HEADER, rows, f"{machine_and('h5py', 'zarr', 'pyarrow')}.")


def _mebibytes(found: Fuzz) -> float:
    return found.peak_bytes / 2**20


CASE = MutatedFiles()
"""What happens to a process that reads damaged files, and to its store."""
