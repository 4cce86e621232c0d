"""Atlases of many datasets, resampled from the few real ones that are here.

Each dataset has a share of the cells of a real one, drawn without replacement, and counts thinned binomially, so that
it has the sizes, sparsity and species of real data and graphs of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
from scipy.sparse import csr_matrix

from benchmarks.quality.groups import DATASETS, EXAMPLE, FIELDS, shared_folder
from musegnn.atlas_file import load_atlas, validate_atlas
from musegnn.random import stream

if TYPE_CHECKING:
    from pathlib import Path

    from musegnn.config import AtlasConfig

CELLS, COUNTS = 0.6, 0.8
MORE = (("intestine", "mm_intestine_10x_moor", "scrna", "intestine", "mouse"),)


def write_atlas(folder: Path, n_datasets: int, *, n_genes: int = 1000) -> dict[str, Any]:  # JSON
    """Write `n_datasets` files into a folder and return the atlas of them, without settings but for `n_genes`.

    The real datasets take turns. Files that are there already are kept, as equal names have equal content.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = sources()
    datasets = []
    for k in range(n_datasets):
        turn, place = divmod(k, len(found))
        about = found[place] | {"name": f"{found[place]['name']}_{turn}"}
        path = folder / f"{about['name']}.h5ad"
        if not path.is_file():
            resample(anndata.read_h5ad(about["path"]), about["name"]).write_h5ad(path)
        datasets.append(about | {"path": str(path)})
    orthologs = load_atlas(EXAMPLE).orthologs
    return {"datasets": datasets, "orthologs": str(orthologs), "graph": {"n_genes": n_genes}}


def sources() -> list[dict[str, str]]:
    """Return the real datasets: those of the shared folder, where it is here, else those of the example atlas."""
    folder = shared_folder() / "data"
    rows = [dict(zip(FIELDS, row, strict=True)) for group in (*DATASETS.values(), MORE) for row in group]
    rows = [row | {"path": str(folder / f"{row['path']}.h5ad")} for row in rows]
    if all(folder.joinpath(row["path"]).is_file() for row in rows):
        return rows
    return [{name: str(getattr(d, name)) for name in FIELDS} for d in load_atlas(EXAMPLE).datasets]


def resample(adata: anndata.AnnData, name: str) -> anndata.AnnData:
    """Return CELLS of the cells, in their order, with every count thinned to COUNTS; drawn for `name` alone."""
    rng = stream(0, "bench_resampled", name)
    chosen = np.sort(rng.permutation(adata.n_obs)[: round(CELLS * adata.n_obs)])
    part = adata[chosen].copy()
    counts = csr_matrix(part.X)
    thinned = rng.binomial(counts.data.astype(np.int64), COUNTS).astype(np.float32)
    matrix = csr_matrix((thinned, counts.indices, counts.indptr), shape=counts.shape)
    matrix.eliminate_zeros()
    obsm = {key: np.asarray(value) for key, value in part.obsm.items()}
    return anndata.AnnData(X=matrix, obs=part.obs[[]], var=part.var[[]], obsm=obsm)


def resampled_atlas(folder: Path, n_datasets: int, settings: dict[str, Any] | None = None) -> AtlasConfig:  # JSON
    """Write the files of an atlas and return its configuration with `settings` on top of the defaults."""
    return validate_atlas(write_atlas(folder, n_datasets) | (settings or {}), where="benchmark")
