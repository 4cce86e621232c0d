"""Small matrices, files and records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from musegnn.data_store import DatasetRecord, GeneTable, PairTable

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def counts() -> sp.csr_matrix:
    """Counts of 120 cells and 30 genes, about a third of them above zero."""
    rng = np.random.default_rng(0)
    return sp.csr_matrix(rng.poisson(0.5, size=(120, 30)).astype(np.float32))


@pytest.fixture
def make_adata(counts):
    """Make an AnnData object, with anything replaced."""

    def make(X: Any = counts, *, genes: list[str] | None = None, **parts: Any) -> ad.AnnData:
        n_cells, n_genes = X.shape if X is not None else (120, 30)
        obs = pd.DataFrame(index=pd.Index([f"cell{i}" for i in range(n_cells)]))
        names = genes if genes is not None else [f"Gene{i}" for i in range(n_genes)]
        return ad.AnnData(X, obs=obs, var=pd.DataFrame(index=pd.Index(names)), **parts)

    return make


@pytest.fixture
def save(tmp_path):
    """Write an AnnData object, then change the file with `edit`."""

    def write(adata: ad.AnnData, edit: Any = None, name: str = "input.h5ad") -> Path:
        path = tmp_path / name
        adata.write_h5ad(path)
        if edit is not None:
            with h5py.File(path, "r+") as file:
                edit(file)
        return path

    return write


@pytest.fixture
def make_record():
    """Make a record with random contents that satisfies every promise."""

    def make(name: str = "lung", *, G: int = 60, R: int = 20, density: float = 0.2, seed: int = 0) -> DatasetRecord:
        rng = np.random.default_rng(seed)
        upper = np.triu(rng.random((G, G)) < density, 1)
        z = np.triu(rng.normal(0, 5, (G, G)).astype(np.float32), 1)
        pairs = sp.csr_matrix(np.where(upper | upper.T, z + z.T, 0))
        genes = np.array([f"G{i}" for i in range(G - 1)] + ["naïve-β"])

        def column() -> np.ndarray:
            return rng.normal(size=G)

        return DatasetRecord(
            name=name,
            modality="scrna",
            tissue="lung",
            species="human",
            condition=None,
            n_cells=100,
            genes=GeneTable(
                gene=genes,
                gene_id=np.array([f"ENSG{i:011d}" for i in range(G)]),
                mean=column(),
                variance=column(),
                n_cells=rng.integers(0, 100, G),
                mu=column(),
                sigma=column(),
                score=column(),
            ),
            pairs=PairTable(
                indptr=pairs.indptr.astype(np.int64),
                indices=pairs.indices.astype(np.int32),
                z=pairs.data.astype(np.float32),
                estimate=np.zeros(pairs.nnz, dtype=np.float32),
                n_tests=G * (G - 1) // 2,
                z_store=1.96,
                histogram=np.zeros(801, dtype=np.int64),
            ),
            profile=rng.normal(size=(G, R)).astype(np.float32),
            report={"dropped": {"empty": 3}, "warnings": ["W229: 3 of 103 cells have no counts"]},
            provenance={"input": {"sha256": "00"}, "seed": 0},
        )

    return make
