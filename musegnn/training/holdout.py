"""What training must not see: a share of the edges of each graph, and a share of the genes of all of them.

Held-out edges leave message passing, relational features, neighbourhood overlaps and the reconstruction target;
held-out genes leave similarity, contrast, alignment, neighbourhood overlaps and the common vocabulary.

Legend: N genes, E directed edges, P held-out pairs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musegnn.coexpression.edges import EdgeSet, edges_from_mask
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from musegnn.config import EvaluationConfig

SWAP_TRIES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetHoldout:
    """The split of one graph.

    Attributes
    ----------
    train
        The edges that training sees.
    rows, columns
        Held-out edges as unordered pairs with ``row < column``, ascending, shape (P,), int64.
    sign
        Sign of z of each held-out edge, shape (P,), int8.
    negative_rows, negative_columns
        Pairs without an edge, matched in degree, as many as held-out edges (fewer only when the graph has fewer
        non-edges), ``row < column``, int64.
    """

    train: EdgeSet
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    sign: NDArray[np.int8]
    negative_rows: NDArray[np.int64]
    negative_columns: NDArray[np.int64]

    @property
    def masked_rows(self) -> NDArray[np.int64]:
        """First gene of each pair that the reconstruction loss leaves out: held-out edges, then their non-edges."""
        return np.concatenate([self.rows, self.negative_rows])

    @property
    def masked_columns(self) -> NDArray[np.int64]:
        """Second gene of each pair that the reconstruction loss leaves out."""
        return np.concatenate([self.columns, self.negative_columns])


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """The split of an atlas.

    Attributes
    ----------
    datasets
        Split of each graph by dataset name.
    held_out_keys
        Keys of the genes that alignment never sees, in any dataset.
    """

    datasets: Mapping[str, DatasetHoldout]
    held_out_keys: frozenset[str]

    def trainable(self, keys: NDArray[np.str_]) -> NDArray[np.bool_]:
        """Tell which genes take part in similarity, contrast and alignment.

        Parameters
        ----------
        keys
            Gene keys, shape (N,).
        """
        return np.fromiter((key not in self.held_out_keys for key in keys.tolist()), dtype=np.bool_, count=len(keys))


def holdout(edges: Mapping[str, EdgeSet], keys: Mapping[str, NDArray[np.str_]], config: EvaluationConfig) -> Holdout:
    """Split an atlas into what training sees and what it does not.

    Every choice is a function of the seed and of the dataset's name or the gene's key alone, so another dataset in
    the atlas changes no split.

    Parameters
    ----------
    edges
        The graph of each dataset.
    keys
        The gene keys of each dataset, see :func:`musegnn.training.genes.gene_keys`.
    config
        Shares and seed.
    """
    genes = sorted({key for names in keys.values() for key in names.tolist()})
    hidden = frozenset(
        key for key in genes if stream(config.seed, "holdout_genes", key).random() < config.holdout_genes
    )
    datasets = {
        name: holdout_edges(graph, config.holdout_edges, seed=config.seed, name=name) for name, graph in edges.items()
    }
    return Holdout(datasets=datasets, held_out_keys=hidden)


def holdout_edges(edges: EdgeSet, share: float, *, seed: int, name: str) -> DatasetHoldout:
    """Hide a share of the edges of one graph.

    Parameters
    ----------
    edges
        The graph, symmetric.
    share
        Share of its pairs to hide, in [0, 1); rounded to whole pairs, and at least one pair stays.
    seed, name
        Seed of the split and name of the dataset.
    """
    random = stream(seed, "holdout_edges", name)
    n, rows, columns = edges.n_genes, edges.rows, edges.indices.astype(np.int64)
    upper = np.flatnonzero(rows < columns)
    n_hidden = min(round(share * len(upper)), max(len(upper) - 1, 0))
    hidden = np.sort(random.permutation(len(upper))[:n_hidden])
    entries = upper[hidden]
    code = rows * n + columns
    hidden_codes = np.concatenate([code[entries], columns[entries] * n + rows[entries]])
    keep = ~np.isin(code, hidden_codes)
    negative = _matched_non_edges(rows[entries], columns[entries], edges, random)
    return DatasetHoldout(
        train=edges_from_mask(edges, keep),
        rows=rows[entries],
        columns=columns[entries],
        sign=np.sign(edges.z[entries]).astype(np.int8),
        negative_rows=negative[:, 0],
        negative_columns=negative[:, 1],
    )


def _matched_non_edges(
    rows: NDArray[np.int64], columns: NDArray[np.int64], edges: EdgeSet, random: np.random.Generator
) -> NDArray[np.int64]:
    """Pair the ends of held-out edges anew, so that no pair is an edge, a loop or a repeat.

    Every gene keeps the number of pairs it has among the held-out edges, as long as swaps can do it. What is left
    takes free ends of nearby degree.
    """
    turn = random.random(len(rows)) < 0.5
    left = np.where(turn, columns, rows)
    right = np.where(turn, rows, columns)[random.permutation(len(rows))]
    pairs = _Pairs(list(zip(left.tolist(), right.tolist(), strict=True)), edges)
    for k in range(len(rows)):
        for _ in range(SWAP_TRIES):
            if not pairs.is_bad(k):
                break
            pairs.try_swap(k, int(random.integers(len(rows))))
    degree = np.diff(edges.indptr)
    for k in range(len(rows)):
        if pairs.is_bad(k):
            pairs.replace(k, degree)
    return pairs.result()


class _Pairs:
    """Pairs of genes that are rewired until none is an edge, a loop or a repeat."""

    def __init__(self, ends: list[tuple[int, int]], edges: EdgeSet) -> None:
        self.ends: list[tuple[int, int] | None] = list(ends)
        self._edges = edges
        self._uses = Counter(map(_ordered, ends))
        n = edges.n_genes
        self._n_free = (n * (n - 1) - edges.n_edges) // 2 - sum(not self._is_edge_or_loop(e) for e in self._uses)

    def is_bad(self, k: int) -> bool:
        """Tell whether pair `k` has to change."""
        ends = self.ends[k]
        return ends is not None and (self._is_edge_or_loop(ends) or self._uses[_ordered(ends)] > 1)

    def try_swap(self, k: int, other: int) -> None:
        """Swap the second ends of two pairs when both new pairs are free."""
        one, two = self.ends[k], self.ends[other]
        if one is None or two is None:
            return
        new = [(one[0], two[1]), (two[0], one[1])]
        if _ordered(new[0]) != _ordered(new[1]) and all(map(self._is_free, new)):
            self._move(k, new[0])
            self._move(other, new[1])

    def replace(self, k: int, degree: NDArray[np.int64]) -> None:
        """Give pair `k` free ends of nearby degree, the first kept if possible; drop it when no pair is free."""
        ends = self.ends[k]
        if ends is None:
            return
        self._move(k, None)
        if self._n_free == 0:
            return
        first, second = (np.argsort(np.abs(degree - degree[end]), kind="stable").tolist() for end in ends)
        for a in [ends[0], *first]:
            for b in second:
                if self._is_free((a, b)):
                    self._move(k, (a, b))
                    return

    def result(self) -> NDArray[np.int64]:
        """Give the pairs, lower gene first, ascending, shape (P, 2)."""
        found = sorted(_ordered(ends) for ends in self.ends if ends is not None)
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def _move(self, k: int, ends: tuple[int, int] | None) -> None:
        for change, pair in ((-1, self.ends[k]), (1, ends)):
            if pair is not None:
                before = self._uses[_ordered(pair)]
                self._uses[_ordered(pair)] = before + change
                if min(before, before + change) == 0 and not self._is_edge_or_loop(pair):
                    self._n_free -= change
        self.ends[k] = ends

    def _is_free(self, ends: tuple[int, int]) -> bool:
        return not self._is_edge_or_loop(ends) and self._uses[_ordered(ends)] == 0

    def _is_edge_or_loop(self, ends: tuple[int, int]) -> bool:
        a, b = ends
        start, stop = int(self._edges.indptr[a]), int(self._edges.indptr[a + 1])
        place = bisect_left(self._edges.indices, b, start, stop)
        return a == b or (place < stop and int(self._edges.indices[place]) == b)


def _ordered(ends: tuple[int, int]) -> tuple[int, int]:
    return (ends[0], ends[1]) if ends[0] < ends[1] else (ends[1], ends[0])
