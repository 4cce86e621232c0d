"""The six published metrics of one joint space, over a grid of Leiden resolutions.

Legend: T datasets, n pooled rows, d dimensions.
"""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from musegnn.evaluation import metrics
from musegnn.evaluation.edge_prediction import graph_auc
from musegnn.evaluation.neighbor_graph import N_NEIGHBORS, connectivities, has_leiden, leiden, path_nearest
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.evaluation.sample import Sample
    from musegnn.graph import GraphData

MAX_PAIRS = 100
NO_LEIDEN = "igraph is not installed (pip install 'musegnn[bio]'): ASW, GC, CGR and NO need Leiden clusters"


def published_metrics(
    graphs: Sequence[GraphData],
    vectors: Mapping[str, NDArray[np.floating]],
    *,
    resolutions: Sequence[float],
    seed: int,
    min_datasets: int = 2,
    sample: Sample | None = None,
) -> dict[str, Any]:  # JSON
    """Compute ASW, AUC, iLISI, GC, CGR and NO, without self-loops.

    ASW, iLISI and GC use rows of genes that several datasets have: ``common`` those in all datasets (published; empty
    when there are many datasets), ``shared`` those in at least `min_datasets`; and ``pairwise``, for each pair of
    datasets those that both have, the rows of the two datasets alone, averaged over pairs (at most ``MAX_PAIRS`` of
    them, drawn at random). Clusters are those of all rows in each case. Of a large atlas, AUC is over the datasets of
    `sample`, and all else but ``pairwise`` iLISI of the rows of its graph alone.

    Returns
    -------
    dict
        JSON values as described in ``docs/evaluation.md``; nan where undefined.
    """
    x = np.concatenate([np.asarray(vectors[t.name], dtype=np.float64) for t in graphs])
    gene = np.concatenate([t.keys for t in graphs])
    dataset = np.repeat(np.arange(len(graphs)), [t.n_genes for t in graphs])
    _, code, count = np.unique(gene, return_inverse=True, return_counts=True)
    subsets = {"common": count[code] == len(graphs), "shared": count[code] >= min_datasets}
    pairs = _pairs(code, dataset, seed)
    measured = graphs if sample is None else [graphs[k] for k in sample.datasets]
    auc = [graph_auc(vectors[t.name], t.edges.indptr, t.edges.indices) for t in measured]
    inside = np.ones(len(x), dtype=np.bool_) if sample is None or sample.graph_rows is None else sample.graph_rows
    result: dict[str, Any] = {
        "auc": metrics.mean_of_defined(auc),
        "cgr_bound": metrics.common_gene_bound(gene[inside]),
        "subsets": {
            **{name: _integration(x[rows & inside], dataset[rows & inside]) for name, rows in subsets.items()},
            "pairwise": _pairwise_integration(x, dataset, pairs),
        },
        "resolutions": [],
        "absent": "",
    }
    if not has_leiden():
        return result | {"absent": NO_LEIDEN}
    if len(x) < N_NEIGHBORS:
        return result | {"absent": f"Leiden clusters need {N_NEIGHBORS} rows, there are {len(x)}"}
    sets = _neighborhoods(graphs, code)[inside]
    x, gene, dataset = x[inside], gene[inside], dataset[inside]
    subsets = {name: rows[inside] for name, rows in subsets.items()}
    place = np.cumsum(inside) - 1
    pairs = [place[rows[inside[rows]]] for rows in pairs]
    graph = connectivities(x)
    for resolution in resolutions:
        cluster = leiden(graph, resolution=resolution, seed=seed)
        row: dict[str, Any] = {
            "resolution": resolution,
            "n_clusters": len(np.unique(cluster)),
            "cgr": metrics.common_gene_ratio(gene, cluster),
            "no": metrics.neighborhood_overlap(sets, dataset, cluster),
            "identity_nmi": metrics.label_information(gene, cluster),
            "dataset_nmi": metrics.label_information(dataset, cluster),
        }
        for name, chosen in subsets.items():
            row[name] = _mixing(x, graph, dataset, cluster, np.flatnonzero(chosen))
        each = metrics.of_each(partial(_mixing_of_pair, x, graph, dataset, cluster, pairs), len(pairs))
        row["pairwise"] = {name: metrics.mean_of_defined([one[name] for one in each]) for name in ("asw", "gc")}
        result["resolutions"].append(row)
    return result


def _pairs(code: NDArray[np.int64], dataset: NDArray[np.int64], seed: int) -> list[NDArray[np.int64]]:
    """List, for each pair of datasets, the pooled rows of genes in both; pairs without such genes are left out."""
    pairs = list(combinations(range(int(dataset.max(initial=-1)) + 1), 2))
    if len(pairs) > MAX_PAIRS:
        chosen = stream(seed, "pairs_of_datasets").permutation(len(pairs))[:MAX_PAIRS]
        pairs = [pairs[k] for k in np.sort(chosen)]
    found = []
    for first, second in pairs:
        both = np.intersect1d(code[dataset == first], code[dataset == second])
        rows = np.flatnonzero(np.isin(dataset, (first, second)) & np.isin(code, both))
        if len(rows):
            found.append(rows)
    return found


def _mixing(
    x: NDArray[np.float64],
    graph: csr_matrix,
    dataset: NDArray[np.int64],
    cluster: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> dict[str, float]:
    return {
        "asw": metrics.batch_silhouette(x[rows], dataset[rows], cluster[rows]),
        "gc": metrics.graph_connectivity(graph[rows][:, rows], cluster[rows]),
    }


def _mixing_of_pair(
    x: NDArray[np.float64],
    graph: csr_matrix,
    dataset: NDArray[np.int64],
    cluster: NDArray[np.int64],
    pairs: Sequence[NDArray[np.int64]],
    pair: int,
) -> dict[str, float]:
    return _mixing(x, graph, dataset, cluster, pairs[pair])


def _pairwise_integration(
    x: NDArray[np.float64], dataset: NDArray[np.int64], pairs: Sequence[NDArray[np.int64]]
) -> dict[str, Any]:  # JSON
    """Average iLISI over the pairs of datasets that share enough genes."""
    each = metrics.of_each(lambda k: _integration(x[pairs[k]], dataset[pairs[k]]), len(pairs))
    known = [one["ilisi"] for one in each if not one["absent"]]
    absent = "" if known else f"no pair of datasets has more than {metrics.LISI_NEIGHBORS} rows of shared genes"
    return {"n_rows": sum(len(rows) for rows in pairs), "ilisi": metrics.mean_of_defined(known), "absent": absent}


def _integration(x: NDArray[np.float64], dataset: NDArray[np.int64]) -> dict[str, Any]:  # JSON
    needed = metrics.LISI_NEIGHBORS
    if len(x) <= needed:
        absent = f"iLISI needs more than {needed} rows, there are {len(x)}"
        return {"n_rows": len(x), "ilisi": float("nan"), "absent": absent}
    distance, position = path_nearest(connectivities(x), needed)
    value = metrics.integration_lisi(distance, position, dataset)
    return {"n_rows": len(x), "ilisi": value, "absent": ""}


def _neighborhoods(graphs: Sequence[GraphData], code: NDArray[np.int64]) -> csr_matrix:
    """Return the set of neighbours' gene codes of each pooled row, as a sparse matrix."""
    starts = np.concatenate([[0], np.cumsum([t.n_genes for t in graphs])])
    columns = [code[start + t.edges.indices] for start, t in zip(starts, graphs, strict=False)]
    degrees = np.concatenate([np.diff(t.edges.indptr) for t in graphs])
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    indices = np.concatenate(columns)
    return csr_matrix((np.ones(len(indices)), indices, indptr), shape=(len(code), int(code.max(initial=-1)) + 1))
