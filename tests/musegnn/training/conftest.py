"""A small atlas with planted gene modules that its datasets share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from torch import distributed

from musegnn.atlas_file import validate_atlas
from musegnn.data_store.records import DatasetRecord, GeneTable, PairTable
from musegnn.training.torch_comm import PeerLostError, make_group

if TYPE_CHECKING:
    from pathlib import Path

    from musegnn.config import AtlasConfig

N_CELLS = 400
KINDS = (
    ("lung.a", "scrna", "lung", "human"),
    ("lung-b", "scrna", "lung", "human"),
    ("brain", "scatac", "brain", "human"),
    ("mouse", "scrna", "lung", "mouse"),
)


def make_record(
    name: str, modality: str, tissue: str, species: str, *, n_genes: int = 40, seed: int = 0, full_profile: bool = False
) -> DatasetRecord:
    """Simulate residuals with six gene modules and test every pair by its correlation."""
    random = np.random.default_rng([seed, *name.encode()])
    pool = np.array([f"G{k}" for k in range(int(1.5 * n_genes))])
    chosen = np.sort(random.choice(len(pool), n_genes, replace=False))
    gene = pool[chosen] if species == "human" else np.array([f"g{k}" for k in chosen])
    module, sign = chosen % 6, np.where(chosen % 5 == 0, -1.0, 1.0)
    factors = random.normal(size=(6, N_CELLS))
    residuals = sign[:, None] * factors[module] + 1.5 * random.normal(size=(n_genes, N_CELLS))
    residuals -= residuals.mean(axis=1, keepdims=True)
    correlation = np.corrcoef(residuals)
    z = correlation * np.sqrt(N_CELLS)
    np.fill_diagonal(z, 0.0)
    stored = np.abs(z) >= 1.96
    rows, columns = np.nonzero(stored)
    indptr = np.zeros(n_genes + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=n_genes), out=indptr[1:])
    upper = np.abs(z[np.triu_indices(n_genes, 1)])
    pairs = PairTable(
        indptr=indptr,
        indices=columns.astype(np.int32),
        z=z[stored].astype(np.float32),
        estimate=correlation[stored].astype(np.float32),
        n_tests=len(upper),
        z_store=1.96,
        histogram=np.bincount(np.minimum((upper / 0.05).astype(np.int64), 800), minlength=801).astype(np.int64),
    )
    u, s, _ = np.linalg.svd(residuals, full_matrices=False)
    ones = np.ones(n_genes)
    genes = GeneTable(
        gene=gene,
        gene_id=np.array([f"ENS{g}" for g in gene]),
        mean=ones,
        variance=ones,
        n_cells=np.full(n_genes, N_CELLS, dtype=np.int64),
        mu=ones,
        sigma=ones,
        score=ones,
    )
    return DatasetRecord(
        name=name,
        modality=modality,
        tissue=tissue,
        species=species,
        condition=None,
        n_cells=N_CELLS,
        genes=genes,
        pairs=pairs,
        profile=(residuals if full_profile else u * s).astype(np.float32),
    )


@dataclass
class FakeStore:
    """Datasets in memory, read like those of a store."""

    path: Path
    records: dict[str, DatasetRecord] = field(default_factory=dict)

    def read(self, name: str) -> DatasetRecord:
        return self.records[name]


def make_atlas(folder: Path, n: int = 4, *, full_profile: bool = False, **settings: object) -> AtlasConfig:
    """Configure the first `n` datasets; dotted names use two underscores, e.g. ``training__rounds=3``."""
    orthologs = folder / "orthologs.csv"
    orthologs.write_text("human,mouse\n" + "".join(f"G{k},g{k}\n" for k in range(60)))
    datasets = [
        {"name": name, "path": f"{name}.h5ad", "modality": modality, "tissue": tissue, "species": species}
        for name, modality, tissue, species in KINDS[:n]
    ]
    data: dict[str, object] = {"datasets": datasets, "orthologs": str(orthologs)}
    sections: dict[str, dict[str, object]] = {
        "model": {"dim": 8, "encoder": "transformer"},
        "training": {"rounds": 3, "checkpoint_every": 2, "threads": 1, "lr_dataset": 2e-3, "lr_shared": 2e-3},
    }
    for name, value in settings.items():
        *parents, last = name.split("__")
        section = sections.setdefault(parents[0], {})
        for parent in parents[1:]:
            section = section.setdefault(parent, {})  # type: ignore[assignment]
        section[last] = value
    return validate_atlas(data | sections, where="test")


def make_store(folder: Path, config: AtlasConfig, *, full_profile: bool = False) -> FakeStore:
    """Simulate the datasets of a configuration."""
    kinds = {kind[0]: kind for kind in KINDS}
    records = {d.name: make_record(*kinds[d.name], full_profile=full_profile) for d in config.datasets}
    return FakeStore(folder / "store.zarr", records)


@pytest.fixture
def atlas(tmp_path):
    """Return a function that makes a store and a configuration."""

    def make(n: int = 4, *, full_profile: bool = False, **settings):
        config = make_atlas(tmp_path, n, **settings)
        return make_store(tmp_path, config, full_profile=full_profile), config

    return make


def run_ranks(size, work):
    """Call ``work(rank, group)`` in one thread per rank of a gloo group and give the results in order of rank."""
    store, results, errors = distributed.HashStore(), [None] * size, []

    def run(rank):
        try:
            group = make_group(distributed.PrefixStore("test", store), rank, size)
            results[rank] = work(rank, group)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    if errors:
        raise next((e for e in errors if not isinstance(e, PeerLostError)), errors[0])
    assert not any(thread.is_alive() for thread in threads)
    return results


@pytest.fixture
def in_ranks():
    """Return :func:`run_ranks`."""
    return run_ranks


@pytest.fixture
def synthetic():
    """Return the makers of records and stores."""
    return SimpleNamespace(make_record=make_record, FakeStore=FakeStore)
