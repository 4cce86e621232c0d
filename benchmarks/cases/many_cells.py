"""A whole build of 2 million cells and 20,000 genes, of which 2000 are selected: CPU time per cell and pass, memory.

Counts are written to an uncompressed h5ad file, 16 GB for the full size, chunk by chunk; that time does not count. The
build runs in a process of its own with its defaults. The smaller size says what the large one will take.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from benchmarks.files import write_h5ad
from benchmarks.registry import Check, Measurement
from benchmarks.synthetic import KEPT, ThinnedCounts

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
GENES, SELECTED, DENSITY = 20_000, 2000, 0.064
"""The density is that of the cells that are made; thinned, they have about .05."""
SMALL, LARGE, QUICK = 100_000, 2_000_000, 20_000
MICROSECONDS, PEAK = 60.0, 3.0


class ManyCells:
    """Cells drawn from 20,000 made ones, each with a tenth of its counts left out anew."""

    name = "many_cells"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that cells are made of the same share of the counts, and differ though they are drawn from few."""
        del quick
        counts = ThinnedCounts(4000, 2000, 0.1, n_distinct=400)
        blocks = [block for _, block in counts.blocks(1000)]
        kept = sum(block.sum() for block in blocks) / 4000 / (counts.made.sum() / 400)
        yield Check(claim=f"{KEPT:.0%} of the counts", holds=abs(kept - KEPT) < 0.02, got=f"{kept:.3f}")
        cells = {block[k].indices.tobytes() for block in blocks for k in range(block.shape[0])}
        yield Check(claim="cells differ", holds=len(cells) == 4000, got=f"{len(cells)} of 4000")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Build from files of growing size."""
        for n_cells in (QUICK,) if quick else (SMALL, LARGE):
            goals = n_cells == LARGE
            taken = write_and_build(n_cells)
            shape = f"{n_cells}x{GENES} d={taken['density']:.3f}, {taken['genes']} genes"
            per_pass = taken["cpu"] / n_cells / taken["passes"] * 1e6
            goal = ("value", "<=", MICROSECONDS) if goals else None
            yield Measurement(shape=shape, metric="passes", value=taken["passes"], unit="")
            yield Measurement(shape=shape, metric="cpu per cell and pass", value=per_pass, unit="us", goal=goal)
            for stage, seconds in taken["seconds"].items():
                each = seconds / n_cells * 1e6
                yield Measurement(shape=shape, metric=f"cpu per cell: {stage}", value=each, unit="us")
            yield Measurement(shape=shape, metric="cpu", value=taken["cpu"], unit="s")
            yield Measurement(shape=shape, metric="wall", value=taken["wall"], unit="s")
            goal = ("value", "<=", PEAK) if goals else None
            yield Measurement(shape=shape, metric="peak_memory", value=taken["peak"] / 1e9, unit="GB", goal=goal)
            yield Measurement(shape=shape, metric="cpu of making the file", value=taken["made"], unit="s")


def write_and_build(n_cells: int) -> dict[str, Any]:  # JSON
    """Write a file, build its graph in a process of its own, and return what that took."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.h5ad"
        began = time.process_time()
        write_h5ad(ThinnedCounts(n_cells, GENES, DENSITY), path)
        made = time.process_time() - began
        with h5py.File(path) as file:
            density = file["X/data"].shape[0] / n_cells / GENES
        command = [sys.executable, "-m", "benchmarks.probes.build", str(path), json.dumps({"n_genes": SELECTED})]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result | {"made": made, "density": density}


CASE = ManyCells()
