"""Which part of a large atlas is evaluated: all of it up to a stated size, a random part of it above.

What is sampled estimates the value of the whole atlas, never that of a smaller one: a query still looks for its copy
among all rows, and a pair of datasets is compared with all its genes. Standard errors stand beside the estimates. The
published six alone are measured on a smaller atlas, the rows of some genes, as they are no means over rows.

Legend: T datasets, n pooled rows, V genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.graph import GraphData

    Mask = NDArray[np.bool_]

MOST_PAIRS, MOST_DATASETS, MOST_ROWS = 200, 12, 10_000
QUERIES, MIXING_ROWS = 4000, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What of an atlas is evaluated.

    Attributes
    ----------
    pairs
        Pairs of datasets that are compared one by one, as ascending indices.
    datasets
        Datasets whose modules and gene sets are predicted, ascending.
    queries, rows, graph_rows
        Pooled rows that look for their copies in other datasets, that count their neighbours, and of which the graph of
        the published six is made, shape (n,), bool; ``None``: all.
    n_pairs, n_rows
        Numbers of pairs and of pooled rows of the whole atlas.
    """

    pairs: Sequence[tuple[int, int]]
    datasets: Sequence[int]
    queries: Mask | None
    rows: Mask | None
    graph_rows: Mask | None
    n_pairs: int
    n_rows: int

    @property
    def is_whole(self) -> bool:
        """Whether everything is evaluated."""
        return self.rows is None and len(self.pairs) == self.n_pairs

    def describe(self) -> dict[str, Any]:  # JSON
        """Return the numbers of what is evaluated and of what there is."""

        def count(mask: Mask | None) -> int:
            return self.n_rows if mask is None else int(mask.sum())

        return {
            "is_whole": self.is_whole,
            "n_pairs": [len(self.pairs), self.n_pairs],
            "n_queries": [count(self.queries), self.n_rows],
            "n_rows": [count(self.rows), self.n_rows],
            "n_graph_rows": [count(self.graph_rows), self.n_rows],
            "n_module_datasets": len(self.datasets),
        }


def draw_sample(graphs: Sequence[GraphData], seed: int = 0) -> Sample:
    """Draw what of an atlas is evaluated.

    Up to ``MOST_PAIRS`` pairs of datasets, ``MOST_DATASETS`` datasets and ``MOST_ROWS`` rows that is everything.
    """
    pairs = list(combinations(range(len(graphs)), 2))
    n_pairs, datasets = len(pairs), np.arange(len(graphs))
    if n_pairs > MOST_PAIRS:
        chosen = np.sort(stream(seed, "pairs_of_datasets").permutation(n_pairs)[:MOST_PAIRS])
        pairs = [pairs[k] for k in chosen.tolist()]
    if len(graphs) > MOST_DATASETS:
        datasets = np.sort(stream(seed, "module_datasets").permutation(len(graphs))[:MOST_DATASETS])
    n = sum(t.n_genes for t in graphs)
    queries = rows = graph_rows = None
    if n > MOST_ROWS:
        _, gene, copies = np.unique(np.concatenate([t.keys for t in graphs]), return_inverse=True, return_counts=True)
        held_out = ~np.concatenate([t.trainable for t in graphs])
        several = copies[gene] > 1
        queries = _drawn(several & held_out, QUERIES // 2, seed, "held_out_queries")
        queries |= _drawn(several & ~held_out, QUERIES // 2, seed, "anchor_queries")
        rows = _drawn(np.ones(n, dtype=np.bool_), MIXING_ROWS, seed, "mixing_rows")
        order = stream(seed, "graph_genes").permutation(len(copies))
        within = np.zeros(len(copies), dtype=np.bool_)
        within[order[np.cumsum(copies[order]) <= MOST_ROWS]] = True
        graph_rows = within[gene]
    return Sample(
        pairs=pairs,
        datasets=datasets.tolist(),
        queries=queries,
        rows=rows,
        graph_rows=graph_rows,
        n_pairs=n_pairs,
        n_rows=n,
    )


def sampling_error(values: NDArray[np.floating], n_all: float, weights: NDArray[np.floating] | None = None) -> float:
    """Return the standard error of a mean over a sample drawn without replacement from `n_all`; 0 of all of them.

    With `weights` w the mean is ``sum w v / sum w``, and the error that of this ratio, to first order.
    """
    n = len(values)
    if n >= n_all:
        return 0.0
    if n < 2:
        return float("nan")
    w = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    rest = w * (values - (w * values).sum())
    return float(np.sqrt((1.0 - n / n_all) * n / (n - 1) * (rest**2).sum()))


def _drawn(mask: Mask, most: int, seed: int, purpose: str) -> Mask:
    """Keep at most so many entries of a mask."""
    places = np.flatnonzero(mask)
    result = np.zeros_like(mask)
    result[stream(seed, purpose).permutation(places)[:most]] = True
    return result
