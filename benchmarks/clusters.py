"""What the benchmarks of cluster training train: random datasets in a store, and runs on them.

Legend: T datasets, N genes of a dataset, P actors.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.faults import Faults
from benchmarks.graphs import random_graphs, random_profile
from musegnn.atlas_file import validate_atlas
from musegnn.data_store import Store
from musegnn.data_store.records import DatasetRecord, GeneTable, PairTable
from musegnn.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.faults import Fault
    from musegnn.cluster.run_monitor import RunMonitor
    from musegnn.config import AtlasConfig

MODALITIES = ("scrna", "spatial", "scatac")
N_COLUMNS = 500


@dataclass(frozen=True, slots=True)
class Atlas:
    """Random datasets; two of them share about half of their genes.

    Attributes
    ----------
    n_genes
        N of each dataset, shape (T,).
    density
        Expected share of pairs that are edges.
    rounds, checkpoint_every
        Of training.
    encoder
        Encoder of the model.
    """

    n_genes: tuple[int, ...]
    density: float = 0.05
    rounds: int = 16
    checkpoint_every: int = 4
    encoder: str = "transformer"

    def __str__(self) -> str:
        """Name the size."""
        low, high = min(self.n_genes), max(self.n_genes)
        size = f"T={len(self.n_genes)} N={low if low == high else f'{low}-{high}'} {self.density:.0%}"
        return size if self.encoder == "transformer" else f"{size} {self.encoder}"

    def make(self, folder: Path) -> tuple[Store, AtlasConfig]:
        """Write the datasets into a store and configure a training on them with one thread."""
        store, datasets = Store.create(folder / "store.zarr"), []
        for k, n in enumerate(self.n_genes):
            (graph,) = random_graphs(1, n, self.density, n_pool=2 * n, seed=k)
            name, modality = f"d{k:03d}", MODALITIES[k % len(MODALITIES)]
            zeros, counts = np.zeros(n), np.zeros(n, dtype=np.int64)
            genes = GeneTable(
                gene=graph.keys,
                gene_id=graph.keys,
                mean=zeros,
                variance=zeros,
                n_cells=counts,
                mu=zeros,
                sigma=zeros,
                score=zeros,
            )
            edges = graph.edges
            pairs = PairTable(
                indptr=edges.indptr,
                indices=edges.indices,
                z=edges.z,
                estimate=edges.estimate.astype(np.float32),
                n_tests=n * (n - 1) // 2,
                z_store=1.96,
                histogram=np.zeros(801, dtype=np.int64),
            )
            record = DatasetRecord(
                name=name,
                modality=modality,
                tissue="none",
                species="human",
                condition=None,
                n_cells=N_COLUMNS,
                genes=genes,
                pairs=pairs,
                profile=random_profile(name, n, N_COLUMNS),
            )
            store.commit(record, f"random-{k}")
            about = {"name": name, "modality": modality, "tissue": "none", "species": "human"}
            datasets.append(about | {"path": str(store.path)})
        training = {"rounds": self.rounds, "checkpoint_every": self.checkpoint_every, "threads": 1}
        model = {"encoder": self.encoder}
        data = {"datasets": datasets, "edges": {"rule": "pvalue"}, "model": model, "training": training}
        return store, validate_atlas(data, where="benchmark")


@dataclass(frozen=True, slots=True)
class Run:
    """Results of a run on Ray.

    Attributes
    ----------
    monitor
        Monitor of the run, with recovery times.
    rows
        Lines of ``metrics.jsonl``.
    units
        The sha256 of every unit in the newest checkpoint.
    """

    monitor: RunMonitor
    rows: Sequence[dict[str, Any]]
    units: dict[str, str]

    def round_seconds(self, after: int) -> list[float]:
        """Return the wall seconds of each round after the first `after`."""
        return [
            s
            for r, s in {row["round"]: row["seconds"] for row in self.rows if row["kind"] == "losses"}.items()
            if r > after
        ]

    def processes(self, after: int) -> list[dict[str, Any]]:
        """Return the records of processes at checkpoints after round `after`."""
        return [row for row in self.rows if row["kind"] == "process" and row["round"] > after]


def train(
    folder: Path,
    store: Store,
    config: AtlasConfig,
    *,
    actors: int,
    spares: int = 0,
    owner: Sequence[int] | None = None,
    faults: Sequence[Sequence[Fault]] = (),
) -> Run:
    """Train with actors in a new run folder, with given owners of datasets and failures of actors."""
    from musegnn.cluster.options import ClusterOptions
    from musegnn.cluster.train import train_on_cluster

    shutil.rmtree(folder, ignore_errors=True)
    run = RunFolder.create(folder, config, store=store.path)
    on_phase = Faults(faults, folder / "faults") if faults else None
    options = ClusterOptions(actors=actors, spares=spares)
    monitor = train_on_cluster(run, store, options, owner=owner, on_phase=on_phase)
    return Run(monitor, run.history(), units(run.path))


def units(run: Path) -> dict[str, str]:
    """Name the content of every unit in the newest checkpoint of a run."""
    newest = max((run / "checkpoints").glob("round-*.json"))
    return {entry["name"]: entry["sha256"] for entry in json.loads(newest.read_text())["units"]}
