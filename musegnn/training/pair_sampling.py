r"""Drawing edges and non-edges of a graph, so that the loss of the drawn pairs estimates that of all pairs.

Unordered pairs are numbered row by row through the upper triangle. With E edges and K non-edges (held-out pairs are
neither), the reconstruction loss of a symmetric decoder is

.. math:: L = \frac{1}{E + K} \Big( \sum_{edges} s(-x) + \sum_{non-edges} s(x) \Big), \qquad s(x) = \log(1 + e^x)

and its estimate takes n of each kind with weights E / (n (E + K)) and K / (n (E + K)). Draw k of n is the pair at
``floor((k + u_k) size / n)`` of its kind, with u_k uniform in [0, 1): the n positions before rounding down share out
[0, size) evenly, so every pair is drawn n / size times on average, and the estimate is unbiased. A kind of at most n
pairs is taken whole. Drawn pairs are in ascending order, which keeps memory access near.

Legend: N genes, E edges, K non-edges, P drawn pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from musegnn.random import stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.graph import GraphData

    Ints = NDArray[np.int64]


class PairDraw(NamedTuple):
    """Drawn pairs: genes ``rows < columns``, 1 for edges and 0 for others, and weights of their losses, each (P,)."""

    rows: Ints
    columns: Ints
    is_edge: NDArray[np.float64]
    weight: NDArray[np.float64]


class PairSampler:
    """Draws `n` edges and `n` non-edges of one graph per round, or all; never held-out pairs."""

    def __init__(self, graph: GraphData, *, seed: int, n: int | None) -> None:
        self._seed, self._name, self._n, size = seed, graph.name, n, graph.n_genes
        index = np.arange(size, dtype=np.int64)
        self._start = index * size - index * (index + 1) // 2
        rows, columns = graph.edges.rows, graph.edges.indices.astype(np.int64)
        upper = rows < columns
        self._edges = self._number(rows[upper], columns[upper])
        ends = np.sort(graph.held_out.all, axis=0)
        held_out = self._number(ends[0], ends[1])
        taken = np.union1d(self._edges, held_out)
        # Non-edge t is pair t + s, where s counts the taken pairs before it.
        self._before = taken - np.arange(len(taken))
        self.n_edges, self.n_others = len(self._edges), size * (size - 1) // 2 - len(taken)

    def draw(self, round_: int) -> PairDraw:
        """Draw the pairs of one round."""
        n_all = max(1, self.n_edges + self.n_others)
        at_edge, edge_weight = self._positions(round_, "edges", self.n_edges)
        at_other, other_weight = self._positions(round_, "others", self.n_others)
        others = at_other + np.searchsorted(self._before, at_other, side="right")
        pair = np.concatenate([self._edges[at_edge], others])
        rows = np.searchsorted(self._start, pair, side="right") - 1
        is_edge = np.zeros(len(pair))
        is_edge[: len(at_edge)] = 1.0
        weight = np.where(is_edge > 0, edge_weight / n_all, other_weight / n_all)
        return PairDraw(rows, pair - self._start[rows] + rows + 1, is_edge, weight)

    def _positions(self, round_: int, kind: str, size: int) -> tuple[Ints, float]:
        if self._n is None or size <= self._n:
            return np.arange(size), 1.0
        u = stream(self._seed, "pairs", kind, round_, self._name).random(self._n)
        step = size / self._n
        return np.minimum(((np.arange(self._n) + u) * step).astype(np.int64), size - 1), step

    def _number(self, rows: Ints, columns: Ints) -> Ints:
        return self._start[rows] + columns - rows - 1
