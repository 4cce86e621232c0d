"""Vectors compared by cosine: unit rows, nearest rows, spread, and cosines corrected for datasets that lie apart.

Rows of one dataset are often nearer to one another than to the rows of other datasets. With r(i, D) the mean cosine of
row i to its k nearest rows in dataset D, the row itself excluded, two corrections make rows of all datasets comparable:

    balanced  s(i, j) = cos(i, j) - (m(D_i, D_j) + m(D_j, D_i)) / 2,  m(D, E) the mean of r(i, E) over the rows i of D
    CSLS      s(i, j) = 2 cos(i, j) - r(i, D_j) - r(j, D_i)

The first takes out what is typical for two datasets; the second, cross-domain similarity local scaling, also what is
typical for the two rows: hubs, which are near to very many rows, but as well that a row has nothing like it.

Similarities are exact, in blocks of rows, so that memory does not grow with the square of the number of rows.

Legend: P rows (one gene in one dataset each), d dimensions, T groups (datasets), k neighbours.

References
----------
Conneau, Lample, Ranzato, Denoyer and Jégou: Word translation without parallel data. arXiv:1710.04087 (2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np
from numba import njit, prange

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[Any]
    Ints = NDArray[np.integer]

Float = TypeVar("Float", bound=np.floating)
Similarity = Literal["balanced", "csls", "cosine"]

BLOCK_BYTES = 64 << 20
BLOCK_ENTRIES = 4_000_000
TYPICAL_NEIGHBORS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbors:
    """The nearest rows of every row, best first.

    Attributes
    ----------
    index, score
        Positions of the neighbours, int32, and the similarities that rank them, float32, shape (P, k) each; -1 and NaN
        behind the last one.
    """

    index: NDArray[np.int32]
    score: NDArray[np.float32]


@overload
def unit_rows(vectors: ArrayLike) -> NDArray[np.float64]: ...


@overload
def unit_rows(vectors: ArrayLike, *, dtype: type[Float]) -> NDArray[Float]: ...


def unit_rows(vectors: ArrayLike, *, dtype: type[np.floating] = np.float64) -> NDArray[np.floating]:
    """Return the rows (P, d) scaled to length one; rows of zeros stay zero, so that their cosine with anything is 0.

    Lengths are computed in float64. What is not a matrix of finite numbers is a ``ValueError``.
    """
    x = np.asarray(vectors, dtype=np.float64)
    if x.ndim != 2:
        msg = f"expected vectors of shape (rows, dimensions), got shape {x.shape}"
        raise ValueError(msg)
    if not np.isfinite(x).all():
        msg = f"expected finite vectors, got {int((~np.isfinite(x)).any(axis=1).sum())} rows that are not"
        raise ValueError(msg)
    _, exponent = np.frexp(np.abs(x).max(axis=1, keepdims=True, initial=0.0))
    scaled = np.ldexp(x, -exponent)  # exact, so that squares of tiny or huge values neither vanish nor overflow
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    result = np.divide(scaled, norms, out=np.zeros_like(scaled), where=norms > 0)
    unit: NDArray[np.floating] = result.astype(dtype, copy=False)
    return unit


def neighborhood_similarity(
    unit: Floats,
    group: Ints,
    *,
    rows: Ints | None = None,
    groups: Ints | None = None,
    k: int = TYPICAL_NEIGHBORS,
) -> Floats:
    """Compute r, the mean cosine of rows to their k nearest rows in each group: (n, m), type of `unit`.

    Parameters
    ----------
    unit, group
        Unit rows, shape (P, d), and group of each, such as the code of its dataset, shape (P,), from 0.
    rows, groups
        Rows wanted, shape (n,), and groups wanted, shape (m,); all by default.
    k
        Number of nearest rows, at least 1; all of a group that has fewer, and 0 where it has only the row itself.
    """
    if k < 1:
        msg = f"expected k of at least 1, got {k}"
        raise ValueError(msg)
    wanted = np.arange(len(unit)) if rows is None else np.asarray(rows)
    columns = np.arange(int(group.max(initial=-1)) + 1) if groups is None else np.asarray(groups)
    result = np.zeros((len(wanted), len(columns)), dtype=unit.dtype)
    for column, code in enumerate(columns.tolist()):
        members = np.flatnonzero(group == code)
        others = unit[members]
        n_nearest = min(k, len(members))
        step = _block_rows(len(members), unit.dtype.itemsize)
        for start in range(0, len(wanted) if n_nearest else 0, step):
            block = wanted[start : start + step]
            cosine = unit[block] @ others.T
            own = np.flatnonzero(group[block] == code)
            cosine[own, np.searchsorted(members, block[own])] = -np.inf
            top = np.sort(np.partition(cosine, -n_nearest, axis=1)[:, -n_nearest:], axis=1)
            known = np.isfinite(top)
            total = np.where(known, top, 0).sum(axis=1)
            result[start : start + step, column] = total / np.maximum(known.sum(axis=1), 1)
    return result


def typical_similarity(unit: Floats, group: Ints, *, groups: Ints | None = None, k: int = TYPICAL_NEIGHBORS) -> Floats:
    """Compute the typical cosine of nearest rows of two groups, ``(m(D, E) + m(E, D)) / 2``: wanted x all, (m, T).

    Parameters are those of :func:`neighborhood_similarity`; no group may be without rows.
    """
    near = neighborhood_similarity(unit, group, groups=groups, k=k)
    members = [np.flatnonzero(group == code) for code in range(int(group.max(initial=-1)) + 1)]
    towards = np.array([near[rows].mean(axis=0) for rows in members]).reshape(len(members), near.shape[1])  # m(E, D)
    if groups is None:
        table: Floats = (towards + towards.T) / 2
        return table
    forth = [neighborhood_similarity(unit, group, rows=members[code], k=k).mean(axis=0) for code in groups.tolist()]
    wanted: Floats = (np.array(forth) + towards.T) / 2
    return wanted


def scale_locally(cosine: Floats, near: Floats, group: Ints, rows: Ints) -> Floats:
    """Return the CSLS of n rows with all rows, (n, P): ``s(i, j) = 2 cos(i, j) - r(i, D_j) - r(j, D_i)``.

    Parameters
    ----------
    cosine, rows
        Cosines of the rows with all rows, shape (n, P), and positions of the n rows.
    near
        Result of :func:`neighborhood_similarity` for all rows and groups, shape (P, T).
    """
    scaled: Floats = 2 * cosine
    scaled -= near[rows][:, group]
    scaled -= near.T[group[rows]]
    return scaled


def nearest(vectors: ArrayLike, k: int) -> Neighbors:
    """Return the k nearest other rows of every row by cosine, equal scores in the order of the rows.

    Examples
    --------
    >>> nearest([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], 1).index.ravel().tolist()
    [1, 0, 1]
    """
    within, _ = nearest_split(vectors, np.zeros(len(np.asarray(vectors)), np.int64), k)
    return within


def nearest_split(
    vectors: ArrayLike, group: ArrayLike, k: int, *, typical: Floats | None = None
) -> tuple[Neighbors, Neighbors]:
    """Return the k nearest rows of every row inside its own group, and the k nearest outside.

    The best of the two lists together are the nearest rows of all, so that one scan serves all three lists. A k below 1
    and shapes that do not fit are a ``ValueError``.

    Parameters
    ----------
    group
        Group of each row, such as the code of its dataset, shape (P,), from 0.
    typical
        Result of :func:`typical_similarity` for all groups, shape (T, T), which is subtracted from the cosines that
        rows are ranked by; plain cosines by default.
    """
    if k < 1:
        msg = f"expected k of at least 1, got {k}"
        raise ValueError(msg)
    unit = unit_rows(vectors, dtype=np.float32)
    code = np.ascontiguousarray(group, dtype=np.int64)
    n = len(unit)
    if code.shape != (n,):
        msg = f"expected one group per row ({n}), got shape {code.shape}"
        raise ValueError(msg)
    index = np.full((2, n, k), -1, dtype=np.int32)
    score = np.full((2, n, k), -np.inf, dtype=np.float32)
    step = _block_rows(n, unit.dtype.itemsize)
    for start in range(0, n, step):
        similarity = unit[start : start + step] @ unit.T
        if typical is not None:
            similarity -= typical[code[start : start + step]][:, code]
        _scan(similarity, start, code, index, score)
    score[index < 0] = np.nan
    if typical is None:
        np.clip(score, -1.0, 1.0, out=score)
    return Neighbors(index=index[0], score=score[0]), Neighbors(index=index[1], score=score[1])


def nearest_euclidean(x: NDArray[np.floating], k: int) -> tuple[Floats, Ints]:
    """Find the k nearest other vectors of each vector, exactly: Euclidean distances and positions, (n, k) each.

    The nearest come first, equal distances by position. Not more than k vectors are a ``ValueError``.
    """
    x64 = np.asarray(x, dtype=np.float64)
    n = len(x64)
    if n <= k:
        msg = f"expected more than {k} vectors to have {k} neighbours each, got {n}"
        raise ValueError(msg)
    centred = x64 - x64.mean(axis=0)
    square = (centred * centred).sum(axis=1)
    distances = np.empty((n, k))
    positions = np.empty((n, k), dtype=np.int64)
    rows = max(1, BLOCK_ENTRIES // n)
    for start in range(0, n, rows):
        block = np.arange(start, min(start + rows, n))
        d2 = square[block, None] + square[None, :] - 2 * centred[block] @ centred.T
        d2[np.arange(len(block)), block] = np.inf
        close = np.sort(np.argpartition(d2, k - 1, axis=1)[:, :k], axis=1)
        # differences, not the expanded square, so that near duplicates keep their order and equal ones have distance 0
        exact = np.linalg.norm(centred[block, None, :] - centred[close], axis=2)
        order = np.argsort(exact, axis=1, kind="stable")
        distances[block] = np.take_along_axis(exact, order, axis=1)
        positions[block] = np.take_along_axis(close, order, axis=1)
    return distances, positions


def effective_rank(x: NDArray[np.floating]) -> float:
    """Compute the number of dimensions that vectors (n, d) use, between 1 and min(n - 1, d); nan when all are equal.

    ``exp(-sum_i p_i ln p_i)`` with ``p_i = s_i^2 / sum_k s_k^2`` and s the singular values of the centred vectors:
    d for an isotropic cloud, 1 for a line.

    References
    ----------
    Roy and Vetterli, "The effective rank", EUSIPCO 2007, with squared singular values (shares of variance).
    """
    x64 = np.asarray(x, dtype=np.float64)
    centred = x64 - x64.mean(axis=0)
    power = np.linalg.svd(centred, compute_uv=False) ** 2
    rounding = (np.finfo(np.float64).eps * np.abs(x64).max(initial=0.0)) ** 2 * x64.size
    if power.sum() <= rounding:
        return float("nan")
    share = power / power.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def mean_cosine(x: NDArray[np.floating]) -> float:
    """Average the cosine over all pairs of different rows, without forming the pairs; nan for fewer than two rows.

    With unit rows u: ``(|sum u|^2 - sum |u|^2) / (n (n - 1))``. Near 1 for a collapsed space.
    """
    u = unit_rows(x)
    n = len(u)
    if n < 2:
        return float("nan")
    total = u.sum(axis=0)
    return float((total @ total - (u * u).sum()) / (n * (n - 1)))


@njit(parallel=True, nogil=True, cache=True)
def _scan(
    block: NDArray[np.float32],
    start: int,
    group: NDArray[np.int64],
    index: NDArray[np.int32],
    score: NDArray[np.float32],
) -> None:
    rows, points = block.shape
    k = index.shape[2]
    for r in prange(rows):
        i = start + r
        for j in range(points):
            s = block[r, j]
            side = 0 if group[j] == group[i] else 1
            if s <= score[side, i, k - 1] or j == i:
                continue
            at = k - 1
            while at > 0 and score[side, i, at - 1] < s:
                score[side, i, at] = score[side, i, at - 1]
                index[side, i, at] = index[side, i, at - 1]
                at -= 1
            score[side, i, at] = s
            index[side, i, at] = j


def _block_rows(n: int, itemsize: int) -> int:
    return max(1, BLOCK_BYTES // (itemsize * max(n, 1)))
