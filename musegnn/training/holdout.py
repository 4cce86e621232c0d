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
    turn = random.random(len(rows)) < 0.5
    a = np.where(turn, columns, rows)
    b = np.where(turn, rows, columns)[random.permutation(len(rows))]
    known = edges.rows * edges.n_genes + edges.indices
    for _ in range(SWAP_ROUNDS):
        bad = np.flatnonzero(_is_bad(a, b, known, edges.n_genes))
        if len(bad) == 0:
            break
        _swap(a, b, bad, known, edges.n_genes, random)
    bad = np.flatnonzero(_is_bad(a, b, known, edges.n_genes))
    good = np.delete(np.arange(len(a)), bad)
    codes = _codes(a[good], b[good], edges.n_genes).tolist()
    return np.array(sorted(_fill(codes, a[bad].tolist(), b[bad].tolist(), edges)), dtype=np.int64)


def _swap(
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    bad: NDArray[np.int64],
    known: NDArray[np.int64],
    n: int,
    random: np.random.Generator,
) -> None:
    """Swap the second ends of bad pairs with those of random pairs, in place, where both new pairs are free."""
    one = random.permutation(bad)
    two = random.permutation(len(a))[: len(one)]
    usable = ~np.isin(two, one)
    one, two = one[: len(two)][usable], two[usable]
    new = np.concatenate([_codes(a[one], b[two], n), _codes(a[two], b[one], n)])
    is_first = np.zeros(len(new), dtype=np.bool_)
    is_first[np.unique(new, return_index=True)[1]] = True
    free = is_first & (new // n != new % n) & ~_contains(known, new) & ~np.isin(new, _codes(a, b, n))
    both = free[: len(one)] & free[len(one) :]
    one, two = one[both], two[both]
    b[one], b[two] = b[two], b[one]


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
        far = np.abs(degree - degree[first])
        for end in [first, second, *np.argsort(far, kind="stable").tolist()]:
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


def _is_bad(a: NDArray[np.int64], b: NDArray[np.int64], known: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Mark pairs that are edges, loops, or repeats of an earlier pair."""
    codes = _codes(a, b, n)
    repeat = np.ones(len(codes), dtype=np.bool_)
    repeat[np.unique(codes, return_index=True)[1]] = False
    bad: NDArray[np.bool_] = repeat | (a == b) | _contains(known, codes)
    return bad


def _contains(known: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of `codes` that are in the ascending list `known`."""
    if len(known) == 0:
        return np.zeros(len(codes), dtype=np.bool_)
    place = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    found: NDArray[np.bool_] = known[place] == codes
    return found


def _codes(a: NDArray[np.int64], b: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return a number per unordered pair, by the lower gene first."""
    return np.minimum(a, b) * n + np.maximum(a, b)
