"""The published six on one joint space, over a grid of Leiden resolutions.

Legend: T datasets, n pooled rows, d dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from musegnn.evaluation import metrics
from musegnn.evaluation.edges import graph_auc
from musegnn.evaluation.graph import N_NEIGHBORS, connectivities, has_leiden, leiden, path_nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.evaluation.task import DatasetTask

NO_LEIDEN = "igraph is not installed (pip install 'musegnn[bio]'): ASW, GC, CGR and NO need Leiden clusters"


def published_metrics(
    tasks: Sequence[DatasetTask],
    vectors: Mapping[str, NDArray[np.floating]],
    *,
    resolutions: Sequence[float],
    seed: int,
) -> dict[str, Any]:  # JSON
    """Compute ASW, AUC, iLISI, GC, CGR and NO, without self-loops.

    ASW, iLISI and GC use rows of genes that several datasets have: ``common`` those in all datasets (published; empty
    when there are many datasets), ``shared`` those in at least two.

    Parameters
    ----------
    tasks
        The datasets.
    vectors
        One space: vectors by dataset name, each shape (N, d).
    resolutions
        Of Leiden.
    seed
        Of Leiden.

    Returns
    -------
    dict
        JSON values as described in ``docs/evaluation.md``; nan where undefined.
    """
    x = np.concatenate([np.asarray(vectors[t.name], dtype=np.float64) for t in tasks])
    gene = np.concatenate([t.gene_key for t in tasks])
    dataset = np.repeat(np.arange(len(tasks)), [t.n_genes for t in tasks])
    _, code, count = np.unique(gene, return_inverse=True, return_counts=True)
    subsets = {"common": count[code] == len(tasks), "shared": count[code] >= 2}
    auc = [graph_auc(vectors[t.name], t.indptr, t.indices) for t in tasks]
    result: dict[str, Any] = {
        "auc": float(np.mean([a for a in auc if np.isfinite(a)])) if np.isfinite(auc).any() else float("nan"),
        "cgr_bound": metrics.common_gene_bound(gene),
        "subsets": {name: _integration(x[rows], dataset[rows]) for name, rows in subsets.items()},
        "resolutions": [],
        "absent": "",
    }
    if not has_leiden():
        return result | {"absent": NO_LEIDEN}
    if len(x) < N_NEIGHBORS:
        return result | {"absent": f"Leiden clusters need {N_NEIGHBORS} rows, there are {len(x)}"}
    graph = connectivities(x)
    sets = _neighborhoods(tasks, code)
    for resolution in resolutions:
        cluster = leiden(graph, resolution=resolution, seed=seed)
        row: dict[str, Any] = {
            "resolution": resolution,
            "n_clusters": len(np.unique(cluster)),
            "cgr": metrics.common_gene_ratio(gene, cluster),
            "no": metrics.neighborhood_overlap(sets, dataset, cluster),
            "identity_nmi": metrics.identity_information(gene, cluster),
        }
        for name, chosen in subsets.items():
            rows = np.flatnonzero(chosen)
            row[name] = {
                "asw": metrics.batch_silhouette(x[rows], dataset[rows], cluster[rows]),
                "gc": metrics.graph_connectivity(graph[rows][:, rows], cluster[rows]),
            }
        result["resolutions"].append(row)
    return result


def _integration(x: NDArray[np.float64], dataset: NDArray[np.int64]) -> dict[str, Any]:  # JSON
    """Compute iLISI on the rows of some genes."""
    needed = metrics.LISI_NEIGHBORS
    if len(x) <= needed:
        absent = f"iLISI needs more than {needed} rows, there are {len(x)}"
        return {"n_rows": len(x), "ilisi": float("nan"), "absent": absent}
    distance, position = path_nearest(connectivities(x), needed)
    value = metrics.integration_lisi(distance, position, dataset)
    return {"n_rows": len(x), "ilisi": value, "absent": ""}


def _neighborhoods(tasks: Sequence[DatasetTask], code: NDArray[np.int64]) -> csr_matrix:
    """Give each pooled row the set of its neighbours' gene codes."""
    starts = np.concatenate([[0], np.cumsum([t.n_genes for t in tasks])])
    columns = [code[start + t.indices] for start, t in zip(starts, tasks, strict=False)]
    degrees = np.concatenate([np.diff(t.indptr) for t in tasks])
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    indices = np.concatenate(columns)
    return csr_matrix((np.ones(len(indices)), indices, indptr), shape=(len(code), int(code.max(initial=-1)) + 1))
