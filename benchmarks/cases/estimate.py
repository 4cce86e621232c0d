"""What ``musegnn estimate`` predicts, against what builds take: peak memory, CPU time, size in the store.

Every build runs in a process of its own with the scheduler ``threads``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.files import write_h5ad
from benchmarks.registry import Check, Measurement
from benchmarks.synthetic import SyntheticCounts
from musegnn.cluster.estimate import estimate_graphs
from musegnn.config import AtlasConfig, DatasetConfig, GraphConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from musegnn.coexpression.estimate import BuildEstimate
    from musegnn.config import Modality

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = 0.3


class Shape(NamedTuple):
    """Synthetic cells x genes of a density, or a file of the example atlas, and settings of the build."""

    cells: int
    genes: int
    density: float
    settings: dict[str, Any]  # JSON
    file: str = ""
    modality: Modality = "scrna"

    def __str__(self) -> str:
        """Name it in a table."""
        name = Path(self.file).stem or f"{self.cells}x{self.genes} d={self.density:g}"
        return " ".join([name, *(str(value) for value in self.settings.values())])


SMALL = Shape(3000, 2000, 0.1, {})
QUICK = (SMALL, Shape(0, 0, 0.0, {}, "examples/atlas/dlpfc_151673.h5ad", "spatial"))
FULL = (
    *QUICK,
    Shape(50_000, 1000, 0.1, {}),
    Shape(400_000, 1000, 0.1, {}),
    Shape(20_000, 20_000, 0.05, {}),
    Shape(10_000, 3000, 0.1, {"selection": "all"}),
    Shape(8000, 8000, 0.1, {"selection": "all", "profile_rank": 256}),
    Shape(8000, 8000, 0.1, {"selection": "all", "profile_rank": 256, "memory": 1_000_000_000}),
)


class Estimate:
    """Shapes of few and many cells, of few and many genes, and a real one."""

    name = "estimate"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Compare predicted counts of genes and passes with those of a build."""
        del quick
        predicted, measured = _both(SMALL)
        yield Check(claim="selected genes", holds=predicted.selected == measured["genes"], got=str(measured["genes"]))
        yield Check(claim="passes", holds=predicted.passes == measured["passes"], got=str(measured["passes"]))

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Predict, build and compare."""
        for shape in QUICK if quick else FULL:
            predicted, measured = _both(shape)
            for metric, value, unit, guess in (
                ("peak_memory", measured["peak"] / 1e6, "MB", predicted.memory / 1e6),
                ("cpu_time", measured["cpu"], "s", predicted.cpu_seconds),
                ("store", measured["bytes"] / 1e6, "MB", predicted.store_bytes / 1e6),
            ):
                yield Measurement(
                    shape=str(shape), metric=metric, value=value, unit=unit, baseline="estimate", baseline_value=guess
                )
            error = abs(predicted.memory / measured["peak"] - 1.0)
            yield Measurement(
                shape=str(shape), metric="memory_error", value=error, unit="", goal=("value", "<=", ALLOWED)
            )


def _both(shape: Shape) -> tuple[BuildEstimate, dict[str, Any]]:  # JSON
    """Predict, then build in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = ROOT / shape.file
        if not shape.file:
            path = Path(folder) / "counts.h5ad"
            write_h5ad(SyntheticCounts(shape.cells, shape.genes, shape.density), path)
        settings = dict(shape.settings)
        memory = settings.pop("memory", None)
        about = DatasetConfig(name="one", path=path, modality=shape.modality, tissue="none", species="none")
        atlas = AtlasConfig(datasets=(about,), graph=GraphConfig.model_validate(settings))
        (predicted,) = estimate_graphs(atlas, memory=memory).datasets
        given = json.dumps(shape.settings | {"modality": shape.modality})
        command = [sys.executable, "-m", "benchmarks.probes.build", str(path), given, folder]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return predicted, result


CASE = Estimate()
