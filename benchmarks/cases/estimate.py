"""What ``musegnn estimate`` and training predict, against what builds and trainings take: memory, time, disk.

Every build, with the scheduler ``threads``, and every training runs in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.clusters import Atlas
from benchmarks.files import write_h5ad
from benchmarks.registry import Check, Measurement
from benchmarks.synthetic import SyntheticCounts
from musegnn.atlas_file import validate_atlas
from musegnn.cluster.estimate import estimate_graphs
from musegnn.config import AtlasConfig, DatasetConfig, GraphConfig
from musegnn.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from musegnn.cluster.estimate import BuildEstimate
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


class Training(NamedTuple):
    """Datasets of one number of genes, and settings of model and training."""

    n_datasets: int
    n_genes: int
    model: dict[str, Any]  # JSON
    training: dict[str, Any]  # JSON

    def __str__(self) -> str:
        """Name it in a table."""
        kinds = [self.model.get("decoder", "signed"), self.model.get("encoder", "none")]
        about = [f"{name}={value}" for name, value in self.training.items()]
        return " ".join([f"T={self.n_datasets} N={self.n_genes}", *kinds, *about])


SMALL = Shape(3000, 2000, 0.1, {})
MAPS = Training(4, 1500, {}, {"rounds": 0})
QUICK = (SMALL, Shape(0, 0, 0.0, {}, "examples/atlas/dlpfc_151673.h5ad", "spatial"))
FULL = (
    *QUICK,
    Shape(20_000, 20_000, 0.05, {}),
    Shape(10_000, 3000, 0.1, {"selection": "all"}),
    Shape(8000, 8000, 0.1, {"selection": "all", "profile_rank": 256}),
)
LAYERS = {"encoder": "transformer"}
PUBLISHED = {"embedding": "layers", "decoder": "mlp"} | LAYERS
TRAININGS = (
    MAPS,
    Training(24, 1000, {}, {"rounds": 0}),
    Training(2, 3000, {}, {"rounds": 2}),
    Training(2, 2500, LAYERS, {"rounds": 2}),
    Training(4, 1500, PUBLISHED, {"rounds": 2}),
    Training(2, 2000, PUBLISHED, {"rounds": 2, "row_block": 256}),
    Training(4, 2000, LAYERS | {"decoder": "pairwise"}, {"rounds": 2, "pairs": 50_000}),
    Training(4, 1500, {"decoder": "inner"}, {"rounds": 2}),
)


class Estimate:
    """Builds of few and many cells and genes; trainings of every decoder."""

    name = "estimate"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Compare predicted counts of genes and passes with those of a build."""
        del quick
        predicted, measured = _build(SMALL)
        yield Check(claim="selected genes", holds=predicted.selected == measured["genes"], got=str(measured["genes"]))
        yield Check(claim="passes", holds=predicted.passes == measured["passes"], got=str(measured["passes"]))

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Predict, build or train, and compare."""
        for shape in QUICK if quick else FULL:
            predicted, measured = _build(shape)
            yield from _compare_memory(str(shape), measured["peak"], predicted.memory)
            for metric, value, unit, guess in (
                ("cpu_time", measured["cpu"], "s", predicted.cpu_seconds),
                ("store", measured["bytes"] / 1e6, "MB", predicted.store_bytes / 1e6),
            ):
                yield Measurement(
                    shape=str(shape), metric=metric, value=value, unit=unit, baseline="estimate", baseline_value=guess
                )
        for training in (MAPS,) if quick else TRAININGS:
            found = _train(training)
            yield from _compare_memory(str(training), found["peak"], found["estimate"])


def _compare_memory(shape: str, peak: int, estimate: int) -> Iterator[Measurement]:
    yield Measurement(
        shape=shape,
        metric="peak_memory",
        value=peak / 1e6,
        unit="MB",
        baseline="estimate",
        baseline_value=estimate / 1e6,
    )
    error = abs(estimate / peak - 1.0)
    yield Measurement(shape=shape, metric="memory_error", value=error, unit="", goal=("value", "<=", ALLOWED))


def _build(shape: Shape) -> tuple[BuildEstimate, dict[str, Any]]:  # JSON
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
        return predicted, _run("build", str(path), given, folder)


def _train(training: Training) -> dict[str, Any]:  # JSON
    with tempfile.TemporaryDirectory() as folder:
        store, config = Atlas((training.n_genes,) * training.n_datasets).make(Path(folder))
        settings = config.model_dump(mode="json", exclude={"model", "training"})
        settings |= {"model": training.model, "training": training.training | {"threads": 1}}
        run = RunFolder.create(Path(folder) / "run", validate_atlas(settings, where="benchmark"), store=store.path)
        return _run("atlas_training", str(run.path))


def _run(probe: str, *arguments: str) -> dict[str, Any]:  # JSON
    command = [sys.executable, "-m", f"benchmarks.probes.{probe}", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


CASE = Estimate()
