"""Who is compared with whom, and on which genes: pure functions of seed, round and dataset names.

Nothing here keeps state, so every process knows the whole schedule without a message, and a resumed run draws what an
uninterrupted one would have drawn.

Legend: T datasets, K genes drawn per dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from musegnn.random import stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.graph import ComparedGraph, SignedNeighbours
    from musegnn.training.overlap import PairOverlap

ALONE = -1


def partners(seed: int, round_: int, n: int, law: Literal["cycle", "uniform"] = "cycle") -> NDArray[np.int64]:
    """Return the partner of every dataset in one round, (n,) int64; -1 when there is only one dataset.

    ``cycle``: the next one along a random cyclic permutation, so that every dataset is partner exactly once;
    ``uniform``: another one drawn independently, as published. Both give each pair the same chance.

    Examples
    --------
    >>> sorted(partners(0, 1, 4).tolist())
    [0, 1, 2, 3]
    """
    if n < 2:
        return np.full(n, ALONE, dtype=np.int64)
    random = stream(seed, "partners", law, round_)
    if law == "uniform":
        drawn = random.integers(0, n - 1, size=n)
        return drawn + (drawn >= np.arange(n))
    order = random.permutation(n)
    result = np.empty(n, dtype=np.int64)
    result[order] = np.roll(order, -1)
    return result


def participants(seed: int, round_: int, n: int, round_size: int | None = None) -> list[int]:
    """Return the datasets of `n` that take part in a round, ascending; at most R = `round_size`.

    Datasets are dealt at random into ceil(n / R) parts of about equal size, which take turns; then they are dealt anew.
    So each takes part once in that many rounds.

    Examples
    --------
    >>> [participants(0, round_, 5, 3) for round_ in (1, 2)]
    [[1, 2, 4], [0, 3]]
    """
    if round_size is None or round_size >= n:
        return list(range(n))
    parts = -(-n // round_size)
    deal, turn = divmod(round_ - 1, parts)
    order = stream(seed, "participants", deal).permutation(n)
    return sorted(np.array_split(order, parts)[turn].tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastDraw:
    """Genes of the contrast between dataset i (subject) and dataset j (partner).

    Attributes
    ----------
    anchors_i, positives_i, anchors_j, positives_j
        Genes that the other dataset lacks and one positive neighbour of each, as rows, shapes (K_i,), (K_j,), int64.
    exclude
        Mask (2K, 2K) of the embeddings [anchors_i, anchors_j, positives_i, positives_j] that are no negatives of one
        another: the same gene again and true positive neighbours. False for an anchor and its positive.
    """

    anchors_i: NDArray[np.int64]
    positives_i: NDArray[np.int64]
    anchors_j: NDArray[np.int64]
    positives_j: NDArray[np.int64]
    exclude: NDArray[np.bool_]

    def __len__(self) -> int:
        """Count the anchors K."""
        return len(self.anchors_i) + len(self.anchors_j)


def draw_contrast(
    seed: int, round_: int, pair: tuple[ComparedGraph, ComparedGraph], overlap: PairOverlap, n_contrast: int
) -> ContrastDraw:
    """Draw genes that only one of two datasets has, at most `n_contrast` of each, and a positive neighbour of each.

    Genes are drawn without replacement; `pair` is subject and partner, `overlap` what they have in common.
    """
    positive = [_Positive(graph.neighbours) for graph in pair]
    names, pools = (pair[0].name, pair[1].name), (overlap.pool_i, overlap.pool_j)
    sides = [_draw_side(seed, round_, names, k, positive[k], pools[k], n_contrast) for k in (0, 1)]
    (anchors_i, positives_i), (anchors_j, positives_j) = sides
    k_i, k = len(anchors_i), len(anchors_i) + len(anchors_j)
    exclude = np.zeros((2 * k, 2 * k), dtype=np.bool_)
    places = (np.r_[0:k_i, k : k + k_i], np.r_[k_i:k, k + k_i : 2 * k])
    for edges, place, (anchors, positives) in zip(positive, places, sides, strict=True):
        rows = np.concatenate([anchors, positives])
        same = rows[:, None] == rows[None, :]
        exclude[np.ix_(place, place)] = same | edges.among(rows)
    exclude |= exclude.T
    index = np.arange(k)
    exclude[index, index + k] = exclude[index + k, index] = False
    return ContrastDraw(
        anchors_i=anchors_i, positives_i=positives_i, anchors_j=anchors_j, positives_j=positives_j, exclude=exclude
    )


def _draw_side(
    seed: int,
    round_: int,
    names: tuple[str, str],
    side: int,
    positive: _Positive,
    pool: NDArray[np.int64],
    n_contrast: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    random = stream(seed, "contrast", round_, *names, side)
    anchors = random.permutation(pool)[:n_contrast]
    return anchors, positive.neighbour(anchors, random.integers(0, positive.degree(anchors)))


class _Positive:
    """The positive edges of a graph, of which a round needs those of a few genes."""

    def __init__(self, neighbours: SignedNeighbours) -> None:
        self._rowptr, self._columns, self._signs = neighbours.indptr, neighbours.indices, neighbours.signs
        self._before = np.concatenate([np.zeros(1, np.int32), np.cumsum(self._signs, dtype=np.int32)])

    def degree(self, genes: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the numbers of positive neighbours."""
        degree: NDArray[np.int32] = self._before[self._rowptr[genes + 1]] - self._before[self._rowptr[genes]]
        return degree

    def neighbour(self, genes: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positive neighbour of each gene that has so many before it."""
        entry = np.searchsorted(self._before, self._before[self._rowptr[genes]] + place + 1) - 1
        return self._columns[entry].astype(np.int64)

    def among(self, genes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the adjacency matrix of some genes, in which any may be repeated."""
        is_edge = np.zeros((len(genes), len(self._rowptr) - 1), dtype=np.bool_)
        for row, gene in zip(is_edge, genes.tolist(), strict=True):
            entries = slice(self._rowptr[gene], self._rowptr[gene + 1])
            row[self._columns[entries]] = self._signs[entries]
        among: NDArray[np.bool_] = is_edge[:, genes]
        return among
