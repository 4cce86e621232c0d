"""Whole input files of every kind, from which mutated ones are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData


def counts() -> AnnData:
    """Return counts of 90 cells and 25 genes with labels and coordinates."""
    import anndata as ad

    rng = np.random.default_rng(0)
    level = np.ones((90, 25))
    level[:, :12] *= rng.gamma(2.0, 0.5, (90, 1))
    obs = pd.DataFrame(
        {"label": pd.Categorical(rng.choice(["a", "b"], 90)), "batch": rng.choice(["x", "yy"], 90)},
        index=[f"cell{i}" for i in range(90)],
    )
    var = pd.DataFrame({"gene_ids": [f"ENSG{i:011d}" for i in range(25)]}, index=[f"Gene{i}" for i in range(25)])
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(2 * level).astype(np.float32)), obs=obs, var=var)
    adata.obsm["spatial"] = rng.random((90, 2))
    return adata


def h5ad_files(folder: Path) -> list[Path]:
    """Write AnnData files with rows, columns, compression, and a dense matrix."""
    adata = counts()
    paths = [folder / f"{name}.h5ad" for name in ("rows", "gzip", "columns", "dense")]
    for path in paths:
        adata.X = {"columns": sp.csc_matrix, "dense": lambda X: X.toarray()}.get(path.stem, sp.csr_matrix)(counts().X)
        adata.write_h5ad(path, compression="gzip" if path.stem in {"gzip", "dense"} else None)
    return paths


KINDS: dict[str, Callable[[Path], list[Path]]] = {"h5ad": h5ad_files}
"""Makers of whole files in a folder, by the name of the format."""
