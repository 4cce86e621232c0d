"""What every view of the embeddings needs: a layout, clusters, and how well copies of a gene agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from musegnn.analysis.clusters import cluster
from musegnn.analysis.layout import N_NEIGHBORS, umap_layout
from musegnn.analysis.neighbors import TYPICAL, typical_cosines
from musegnn.vectors import nearest, unit_rows

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def annotate(embeddings: AnnData, *, resolution: float = 1.0, seed: int = 0) -> AnnData:
    """Add layout, clusters and agreement to embeddings, in place, and return them.

    Adds ``obsm["X_umap"]`` (P, 2) float32, ``obs["cluster"]`` (categories ``"0"``, ``"1"``, ... by falling size),
    ``obs["n_datasets"]`` (copies of the gene), ``obs["agreement"]`` (mean cosine to the copies in other datasets, NaN
    without any), ``uns["clusters"]`` (how they were found) and ``uns["typical_cosines"]``
    (:func:`musegnn.analysis.neighbors.typical_cosines`).
    """
    points = embeddings.n_obs
    found = nearest(embeddings.X, min(N_NEIGHBORS, points - 1)) if points > 3 else None
    groups = cluster(embeddings.X, neighbors=found, resolution=resolution, seed=seed)
    embeddings.obsm["X_umap"] = umap_layout(embeddings.X, neighbors=found, seed=seed)
    embeddings.obs["cluster"] = pd.Categorical.from_codes(
        groups.label, categories=pd.Index([str(n) for n in range(groups.n)])
    )
    embeddings.uns["clusters"] = groups.method
    embeddings.uns.pop(TYPICAL, None)  # of other vectors
    embeddings.uns[TYPICAL] = typical_cosines(embeddings)
    unit = unit_rows(embeddings.X, dtype=np.float32)
    copies, mean = agreement(unit, embeddings.obs["gene_key"].astype(str).to_numpy())
    embeddings.obs["n_datasets"] = copies
    embeddings.obs["agreement"] = mean
    return embeddings


def agreement(
    unit: NDArray[np.float32], gene_key: NDArray[np.object_]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Compute the agreement of unit vectors (P, d) of the same gene key.

    Returns
    -------
    tuple of ndarray
        Number of copies, the row itself included, shape (P,), int32; mean cosine to the others, NaN where there are
        none, shape (P,), float32.
    """
    _, code = np.unique(gene_key, return_inverse=True)
    copies = np.bincount(code)[code]
    total = np.zeros((int(code.max(initial=-1)) + 1, unit.shape[1]))
    np.add.at(total, code, unit.astype(np.float64))
    own = np.einsum("pd,pd->p", unit, unit, dtype=np.float64)
    others = np.einsum("pd,pd->p", unit.astype(np.float64), total[code]) - own
    mean = np.where(copies > 1, others / np.maximum(copies - 1, 1), np.nan)
    return copies.astype(np.int32), mean.astype(np.float32)
