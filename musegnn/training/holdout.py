"""What training must not see: a share of the edges of each graph, and a share of the genes of all of them.

Held-out edges leave message passing, relational features, neighbourhood overlaps and the reconstruction target;
held-out genes leave similarity, contrast, alignment, neighbourhood overlaps and the anchor genes. The residual
profile is of all cells and still holds the correlation of a held-out pair, for every model that takes profiles as
features.

Legend: N genes, P held-out pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.coexpression.edges import edges_from_mask
from musegnn.graph import HeldOutPairs
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from musegnn.config import EvaluationConfig
    from musegnn.graph import EdgeSet

SWAP_ROUNDS = 200


def trainable_genes(keys: NDArray[np.str_], config: EvaluationConfig) -> NDArray[np.bool_]:
    """Return a mask of the genes that take part in losses between datasets: those that are not held out.

    The choice is a function of the seed and of the gene's key alone, so it is the same in all datasets, and another
    dataset in the atlas changes no split.
    """
    drawn = (stream(config.seed, "holdout_genes", key).random() for key in keys.tolist())
    return np.fromiter((draw >= config.holdout_genes for draw in drawn), dtype=np.bool_, count=len(keys))


def holdout_edges(edges: EdgeSet, share: float, *, seed: int, name: str) -> tuple[EdgeSet, HeldOutPairs]:
    """Return the training edges of a symmetric graph and what is hidden: a `share` in [0, 1) of its pairs.

    The number of hidden pairs is rounded; at least one stays. The choice is a function of the seed and of the
    dataset's name.
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
    held_out = HeldOutPairs(
        rows=rows[entries],
        columns=columns[entries],
        sign=np.sign(edges.z[entries]).astype(np.int8),
        negative_rows=negative // n,
        negative_columns=negative % n,
    )
    return edges_from_mask(edges, keep), held_out


def _matched_non_edges(
    rows: NDArray[np.int64], columns: NDArray[np.int64], edges: EdgeSet, random: np.random.Generator
) -> NDArray[np.int64]:
    """Return codes of non-edges in which every gene has as many pairs as are held out, if swaps can do it.

    The ends of held-out edges are paired anew so that no pair is an edge, a loop or a repeat. What is left takes free
    ends of nearby degree.
    """
    n = edges.n_genes
    turn = random.random(len(rows)) < 0.5
    a = np.where(turn, columns, rows)
    b = np.where(turn, rows, columns)[random.permutation(len(rows))]
    known = _Codes(edges.rows * n + edges.indices, n * n)
    codes = _codes(a, b, n)
    taken = set(codes.tolist())
    # A swap makes pairs that are neither edges nor loops nor like another, so that these two lists never grow.
    wrong = (a == b) | known.contain(codes)
    alike = np.flatnonzero(np.isin(codes, codes[_repeats(codes)]))
    bad = _bad(wrong, codes, alike)
    for _ in range(SWAP_ROUNDS):
        if len(bad) == 0:
            break
        one = random.permutation(bad)
        two = random.permutation(len(a))[: len(one)]
        usable = ~np.isin(two, one)
        one, two = one[: len(two)][usable], two[usable]
        new = np.concatenate([_codes(a[one], b[two], n), _codes(a[two], b[one], n)])
        free = ~(_repeats(new) | (new // n == new % n) | known.contain(new))
        free[free] = [code not in taken for code in new[free].tolist()]
        both = free[: len(one)] & free[len(one) :]
        one, two, new = one[both], two[both], new[np.tile(both, 2)]
        b[one], b[two] = b[two], b[one]
        changed = np.concatenate([one, two])
        left = codes[changed].tolist()
        codes[changed], wrong[changed] = new, False
        taken.difference_update(left)
        taken.update(new.tolist(), codes[alike].tolist())
        bad = _bad(wrong, codes, alike)
    good = np.delete(codes, bad).tolist()
    return np.array(sorted(_fill(good, a[bad].tolist(), b[bad].tolist(), edges)), dtype=np.int64)


class _Codes:
    """A set of numbers below `end`, as bits: most pairs that are asked for are in it."""

    def __init__(self, codes: NDArray[np.int64], end: int) -> None:
        self._bits = np.zeros(end // 8 + 1, dtype=np.uint8)
        np.bitwise_or.at(self._bits, codes >> 3, _bit(codes))

    def contain(self, codes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return a mask of `codes` that are in the set."""
        found: NDArray[np.bool_] = (self._bits[codes >> 3] & _bit(codes)) > 0
        return found


def _bit(codes: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.left_shift(np.uint8(1), (codes & 7).astype(np.uint8))


def _bad(wrong: NDArray[np.bool_], codes: NDArray[np.int64], alike: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of pairs that are wrong, or repeat an earlier one of those that may be alike."""
    bad = wrong.copy()
    bad[alike] |= _repeats(codes[alike])
    return np.flatnonzero(bad)


def _repeats(codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark codes that are there earlier as well."""
    repeat = np.ones(len(codes), dtype=np.bool_)
    repeat[np.unique(codes, return_index=True)[1]] = False
    return repeat


def _fill(codes: list[int], a: list[int], b: list[int], edges: EdgeSet) -> list[int]:
    """Add pairs that keep the first end where possible and take the free second end of nearest degree."""
    n, degree = edges.n_genes, np.diff(edges.indptr)
    taken: dict[int, list[int]] = {}
    for code in codes:
        taken.setdefault(code // n, []).append(code % n)
        taken.setdefault(code % n, []).append(code // n)
    n_free = (n * (n - 1) - edges.n_edges) // 2 - len(codes)
    codes = list(codes)
    for first, second in zip(a[:n_free], b, strict=False):
        for end in _ends(first, second, degree):
            distance = np.abs(degree - degree[first if end == second else second]).astype(np.float64)
            distance[[end, *taken.get(end, [])]] = np.inf
            distance[edges.indices[edges.indptr[end] : edges.indptr[end + 1]]] = np.inf
            other = int(distance.argmin())
            if np.isfinite(distance[other]):
                codes.append(min(end, other) * n + max(end, other))
                taken.setdefault(end, []).append(other)
                taken.setdefault(other, []).append(end)
                break
    return codes


def _ends(first: int, second: int, degree: NDArray[np.integer]) -> Iterator[int]:
    """Yield the ends of a pair, then all genes from the nearest degree to that of the first; rarely more than two."""
    yield from (first, second)
    yield from np.argsort(np.abs(degree - degree[first]), kind="stable").tolist()


def _codes(a: NDArray[np.int64], b: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return a number per unordered pair, by the lower gene first."""
    return np.minimum(a, b) * n + np.maximum(a, b)
