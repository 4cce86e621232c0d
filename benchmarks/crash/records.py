"""Small records and atlases on which crashes are tried."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from musegnn.data_store import DatasetRecord, GeneTable, PairTable

if TYPE_CHECKING:
    from pathlib import Path


def make_record(name: str, *, seed: int, n_genes: int = 40, columns: int = 12) -> DatasetRecord:
    """Return a record with random contents that the store takes."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(0, 5, (n_genes, n_genes)).astype(np.float32), 1)
    pairs = sp.csr_matrix(np.where(np.abs(upper + upper.T) > 3, upper + upper.T, 0))
    names = np.array([f"G{i}" for i in range(n_genes)])
    values = {key: rng.normal(size=n_genes) for key in ("mean", "variance", "mu", "sigma", "score")}
    return DatasetRecord(
        name=name,
        modality="scrna",
        tissue="lung",
        species="human",
        condition=None,
        n_cells=100,
        genes=GeneTable(gene=names, gene_id=names, n_cells=rng.integers(1, 100, n_genes), **values),
        pairs=PairTable(
            indptr=pairs.indptr.astype(np.int64),
            indices=pairs.indices.astype(np.int32),
            z=pairs.data.astype(np.float32),
            estimate=np.zeros(pairs.nnz, dtype=np.float32),
            n_tests=n_genes * (n_genes - 1) // 2,
            z_store=1.96,
            histogram=np.zeros(801, dtype=np.int64),
        ),
        profile=rng.normal(size=(n_genes, columns)).astype(np.float32),
        report={"seed": seed},
        provenance={"input": {"sha256": f"{seed:02x}"}},
    )


def make_atlas(folder: Path, *, n_datasets: int = 3, n_cells: int = 400, rounds: int = 12) -> Path:
    """Write an atlas of synthetic counts, trained for a few rounds with a checkpoint after each; return its file."""
    import anndata as ad

    rng = np.random.default_rng(0)
    datasets = []
    for k in range(n_datasets):
        level = np.ones((n_cells, 80))
        level[:, :30] *= rng.gamma(2.0, 0.5, (n_cells, 1))
        counts = rng.poisson(400 * level * rng.dirichlet(np.ones(80) * 3))
        adata = ad.AnnData(sp.csr_matrix(counts.astype(np.float32)))
        adata.var_names = [f"GENE{i}" for i in range(adata.n_vars)]
        adata.write_h5ad(folder / f"d{k}.h5ad")
        entry = {"name": f"d{k}", "path": f"d{k}.h5ad", "modality": "scrna", "tissue": f"t{k % 2}", "species": "human"}
        datasets.append(entry)
    atlas = {
        "datasets": datasets,
        "graph": {"n_genes": 40},
        "model": {"dim": 8, "encoder": "transformer"},
        "training": {"rounds": rounds, "checkpoint_every": 1, "threads": 1},
    }
    path = folder / "atlas.yaml"
    path.write_text(json.dumps(atlas))
    return path


def committed(store: Path) -> dict[str, str]:
    """Return the digest of every file that readers of a store rely on."""
    files = [p for p in store.rglob("*") if p.is_file() and p.relative_to(store).parts[0] not in {"log", "tmp"}]
    return {p.relative_to(store).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
