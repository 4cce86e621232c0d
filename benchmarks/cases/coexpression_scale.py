"""Whole builds from files of many cells, and of many genes: CPU time per cell, peak memory, growth.

Every build runs in a process of its own with the scheduler ``threads``. "CS-CORE" is what the two passes over given
genes and depths cost: stages ``extract`` (read, moments, copy) and ``pairs`` (Gram matrices, statistics, pairs).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.files import write_h5ad
from benchmarks.registry import Check, Measurement
from benchmarks.synthetic import SyntheticCounts
from musegnn.coexpression.build import build_dataset
from musegnn.coexpression.cscore import cscore
from musegnn.config import DatasetConfig, GraphConfig
from musegnn.data_store import open_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
QUICK = (10_000, 30_000)
FULL = (50_000, 200_000, 800_000)
MOST_CELLS = 2_000_000
MICROSECONDS = 25.0
FIXED, PER_CELL = 64e6, 24.0
GENES_CELLS, GENES, GENES_BYTES = 50_000, 20_000, 6e9
GENES_SETTINGS = {"selection": "all", "profile_rank": 256, "memory": 5_000_000_000}


class CoexpressionScale:
    """Synthetic counts of density 0.1, written to uncompressed h5ad files block by block."""

    name = "coexpression-scale"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Compare the pairs of a build from a file with CS-CORE on the matrix in memory."""
        del quick
        counts = SyntheticCounts(3000, 300, 0.1, seed=2)
        dataset = DatasetConfig(name="gate", path=Path("gate"), modality="scrna", tissue="none", species="none")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gate.h5ad"
            write_h5ad(counts, path)
            record = build_dataset(open_matrix(path), dataset, GraphConfig(selection="all"), block_rows=700)
        matrix, _ = counts.load()
        depth = np.asarray(matrix.sum(axis=1)).ravel()
        genes = [int(name[1:]) for name in record.genes.gene]
        expected = cscore(matrix[depth > 0][:, genes], depth[depth > 0]).z
        rows = np.repeat(np.arange(len(genes)), np.diff(record.pairs.indptr))
        difference = float(np.abs(record.pairs.z / expected[rows, record.pairs.indices] - 1.0).max())
        yield Check(
            claim="build from a file = in memory: z to float32", holds=difference < 1e-6, got=f"{difference:.1e}"
        )
        stored = int((np.abs(expected) >= 1.96).sum() - len(genes))
        yield Check(
            claim="the same pairs stored", holds=len(record.pairs.z) == stored, got=f"{len(record.pairs.z)}, {stored}"
        )

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Build from files of growing size, one after the other."""
        peaks = {}
        for n_cells in QUICK if quick else FULL:
            shape = f"{n_cells}x1000 d=0.1"
            result = _build(n_cells, 1000, {})
            peaks[n_cells] = float(result["peak"])
            yield from _times(shape, n_cells, result)
            yield Measurement(shape=shape, metric="peak_memory", value=peaks[n_cells] / 1e6, unit="MB")
        few, *_, many = sorted(peaks)
        yield Measurement(
            shape=f"{few}->{many}x1000",
            metric="growth_over_allowed",
            value=(peaks[many] - peaks[few]) / (FIXED + PER_CELL * (many - few)),
            unit="",
            goal=("value", "<=", 1.0),
        )
        if quick:
            return
        result = _build(GENES_CELLS, GENES, GENES_SETTINGS)
        shape = f"{GENES_CELLS}x{GENES} all genes"
        yield from _times(shape, GENES_CELLS, result, goal=False)
        yield Measurement(
            shape=shape,
            metric="peak_memory",
            value=result["peak"] / 1e9,
            unit="GB",
            goal=("value", "<=", GENES_BYTES / 1e9),
        )
        result = _build(MOST_CELLS, 1000, {})
        shape = f"{MOST_CELLS}x1000 d=0.1"
        yield from _times(shape, MOST_CELLS, result)
        yield Measurement(shape=shape, metric="peak_memory", value=result["peak"] / 1e6, unit="MB")


def _times(shape: str, n_cells: int, result: dict[str, Any], *, goal: bool = True) -> Iterator[Measurement]:
    seconds = result["seconds"]
    cscore_seconds = (seconds["extract"] + seconds["pairs"]) / n_cells * 1e6
    bound = ("value", "<=", MICROSECONDS) if goal else None
    yield Measurement(shape=shape, metric="cscore_cpu_per_cell", value=cscore_seconds, unit="us", goal=bound)
    yield Measurement(shape=shape, metric="build_cpu_per_cell", value=result["cpu"] / n_cells * 1e6, unit="us")
    yield Measurement(shape=shape, metric="build_wall", value=result["wall"], unit="s")


def _build(n_cells: int, n_genes: int, settings: dict[str, object]) -> dict[str, Any]:  # JSON
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.h5ad"
        write_h5ad(SyntheticCounts(n_cells, n_genes, 0.1), path)
        command = [sys.executable, "-m", "benchmarks.probes.build", str(path), json.dumps(settings)]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


CASE = CoexpressionScale()
