"""Baselines with one vector per gene for all datasets.

They have no context: a gene is trivially beside itself in another dataset, so retrieval says nothing about them and
only functional tasks are scored.

*GSS*: principal components of the residual profiles of all datasets side by side, 0 where a dataset lacks the gene.
*Gemini*: random walks with restart over each graph, averaged over the datasets that have the pair, and factorised
(Woicik et al., Bioinformatics 39, 2023, without its weights by kurtosis and its mix-up).

Legend: N genes of a dataset, K genes of all datasets, d dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.evaluation.baselines.graphs import positive_graph
from musegnn.vectors import unit_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.graph import GraphData

    Floats = NDArray[np.float64]

RESTART = 0.5


def pooled_profiles(
    graphs: Sequence[GraphData], profiles: Mapping[str, NDArray[np.floating]], *, dim: int
) -> dict[str, Floats]:
    """Return the principal components of all profiles side by side, (N, d) by name; rows of one gene are equal."""
    from sklearn.decomposition import TruncatedSVD

    genes, rows = _union(graphs)
    blocks = []
    for graph in graphs:
        block = np.zeros((len(genes), profiles[graph.name].shape[1]))
        block[rows[graph.name]] = unit_rows(profiles[graph.name] - profiles[graph.name].mean(axis=0))
        blocks.append(block)
    vectors = TruncatedSVD(dim, random_state=0).fit_transform(np.concatenate(blocks, axis=1))
    return {name: vectors[at] for name, at in rows.items()}


def diffused_graphs(graphs: Sequence[GraphData], *, dim: int) -> dict[str, Floats]:
    """Factorise the average of random walks with restart over all graphs; return (N, d) by dataset name."""
    from scipy.sparse import csr_array
    from sklearn.decomposition import TruncatedSVD

    genes, rows = _union(graphs)
    total, count = np.zeros((len(genes), len(genes))), np.zeros((len(genes), len(genes)))
    for graph in graphs:
        edges, n, at = positive_graph(graph), graph.n_genes, rows[graph.name]
        adjacency = csr_array((np.ones(len(edges.indices)), edges.indices, edges.indptr), shape=(n, n)).toarray()
        step = adjacency / np.maximum(adjacency.sum(axis=1, keepdims=True), 1.0)
        walked = RESTART * np.linalg.inv(np.eye(n) - (1 - RESTART) * step)
        total[np.ix_(at, at)] += n * walked
        count[np.ix_(at, at)] += 1
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    vectors = TruncatedSVD(dim, random_state=0).fit_transform(np.log1p(mean))
    return {name: vectors[at] for name, at in rows.items()}


def _union(graphs: Sequence[GraphData]) -> tuple[NDArray[np.str_], dict[str, NDArray[np.int64]]]:
    genes = np.unique(np.concatenate([graph.keys for graph in graphs]))
    return genes, {graph.name: np.searchsorted(genes, graph.keys) for graph in graphs}
