"""The positive part of training graphs, for baselines that know no signs.

Legend: N genes, E directed edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.graph import GraphData


@dataclass(frozen=True, slots=True)
class PositiveGraph:
    """Positive training edges of one dataset as CSR, (N + 1,) and (E,), both int64."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Source of each edge, (E,)."""
        return np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))


def positive_graph(graph: GraphData) -> PositiveGraph:
    """Return the positive training edges of a dataset."""
    edges = graph.edges
    keep = edges.z > 0
    counts = np.bincount(edges.rows[keep], minlength=graph.n_genes)
    return PositiveGraph(np.concatenate([[0], np.cumsum(counts)]), edges.indices[keep].astype(np.int64))


def layered_graph(graphs: Sequence[GraphData]) -> tuple[PositiveGraph, PositiveGraph]:
    """Stack the graphs of all datasets, and link the rows of a gene that several have.

    Returns
    -------
    edges, copies
        Positive edges within datasets; and from each row to the rows of the same gene in other datasets. Genes are
        numbered one dataset after the other; held-out genes have no copies.
    """
    parts = [positive_graph(graph) for graph in graphs]
    offsets = np.concatenate([[0], np.cumsum([graph.n_genes for graph in graphs])])
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part.indptr) for part in parts]))])
    indices = np.concatenate([part.indices + offset for part, offset in zip(parts, offsets, strict=False)])
    places: dict[str, list[int]] = {}
    for graph, offset in zip(graphs, offsets, strict=False):
        for row in np.flatnonzero(graph.trainable).tolist():
            places.setdefault(str(graph.keys[row]), []).append(row + int(offset))
    copies: list[list[int]] = [[] for _ in range(int(offsets[-1]))]
    for rows in places.values():
        for row in rows:
            copies[row] = [other for other in rows if other != row]
    flat = np.array([other for others in copies for other in others], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum([len(others) for others in copies])])
    return PositiveGraph(indptr, indices), PositiveGraph(starts, flat)
