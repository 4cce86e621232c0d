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

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np
from numba import njit
from threadpoolctl import threadpool_limits

from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[Any]
    Ints = NDArray[np.integer]

Float = TypeVar("Float", bound=np.floating)
Similarity = Literal["balanced", "csls", "cosine"]

BLOCK_BYTES = 16 << 20
TILE_COLUMNS = 8192  # with the rows of a block it stays in the cache
STRIP = 64  # similarities whose maximum is compared at once
BLOCK_ENTRIES = 4_000_000
TYPICAL_NEIGHBORS = 10
TYPICAL_ALL, TYPICAL_ROWS = 10_000, 64


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
        if len(members):
            _average_largest(unit, group, wanted, members, code, k, result[:, column])
    return result


def typical_similarity(unit: Floats, group: Ints, *, groups: Ints | None = None, k: int = TYPICAL_NEIGHBORS) -> Floats:
    """Compute the typical cosine of nearest rows of two groups, ``(m(D, E) + m(E, D)) / 2``: wanted x all, (m, T).

    Parameters are those of :func:`neighborhood_similarity`; no group may be without rows. Of more than
    ``TYPICAL_ALL`` rows, means are over at most ``TYPICAL_ROWS`` rows of each group, drawn at random.
    """
    members = [np.flatnonzero(group == code) for code in range(int(group.max(initial=-1)) + 1)]
    if len(unit) > TYPICAL_ALL:
        random = stream(0, "typical_rows", len(unit))
        members = [np.sort(random.permutation(rows)[:TYPICAL_ROWS]) for rows in members]
    asked = np.concatenate([np.empty(0, np.int64), *members])
    ends = np.cumsum([len(rows) for rows in members])[:-1]
    near = np.split(neighborhood_similarity(unit, group, rows=asked, groups=groups, k=k), ends)
    n_groups = len(members) if groups is None else len(groups)
    towards = np.array([part.mean(axis=0) for part in near[: len(members)]]).reshape(-1, n_groups)  # m(E, D)
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
    vectors: ArrayLike,
    group: ArrayLike,
    k: int,
    *,
    typical: Floats | None = None,
    progress: Callable[[int, int], None] | None = None,
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
    progress
        Function that receives the number of blocks of rows done, and their number, after each block.
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
    size = np.bincount(code, minlength=1)
    usual = np.zeros((len(size), len(size)), np.float32) if typical is None else typical.astype(np.float32, copy=False)
    step = _block_rows(min(n, TILE_COLUMNS), unit.dtype.itemsize)

    def scan(start: int) -> None:
        for left in range(0, n, TILE_COLUMNS):
            similarity = unit[start : start + step] @ unit[left : left + TILE_COLUMNS].T
            _scan(similarity, start, left, _strips(code[left : left + TILE_COLUMNS]), code, size, usual, index, score)

    in_threads(scan, range(0, n, step), progress)
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

    def find(start: int) -> None:
        block = np.arange(start, min(start + rows, n))
        d2 = square[block, None] + square[None, :] - 2 * centred[block] @ centred.T
        d2[np.arange(len(block)), block] = np.inf
        close = np.sort(np.argpartition(d2, k - 1, axis=1)[:, :k], axis=1)
        # differences, not the expanded square, so that near duplicates keep their order and equal ones have distance 0
        exact = np.linalg.norm(centred[block, None, :] - centred[close], axis=2)
        order = np.argsort(exact, axis=1, kind="stable")
        distances[block] = np.take_along_axis(exact, order, axis=1)
        positions[block] = np.take_along_axis(close, order, axis=1)

    in_threads(find, range(0, n, rows))
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
    total = float((centred * centred).sum())
    rounding = (np.finfo(np.float64).eps * np.abs(x64).max(initial=0.0)) ** 2 * x64.size
    if total <= rounding:
        return float("nan")
    few = centred if len(centred) >= centred.shape[1] else centred.T
    share = np.linalg.eigvalsh(few.T @ few) / total  # squares of singular values; what cancels there is no share
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


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz", "reassoc"})
def _scan(
    block: NDArray[np.float32],
    start: int,
    left: int,
    strips: NDArray[np.int64],
    group: NDArray[np.int64],
    size: NDArray[np.int64],
    typical: NDArray[np.float32],
    index: NDArray[np.int32],
    score: NDArray[np.float32],
) -> None:
    """Put similarities of rows from `start` with rows from `left` into the lists.

    A strip of one group is passed over when its largest similarity is not above the last of the list.
    """
    k = index.shape[2]
    for r in range(len(block)):
        i = start + r
        row = block[r]
        for strip in range(len(strips) - 1):
            begin, end = strips[strip], strips[strip + 1]
            other = group[left + begin]
            side = 0 if other == group[i] else 1
            usual = typical[group[i], other]
            best = row[begin]
            for s in row[begin:end]:
                best = s if s > best else best  # max() is not vectorised
            if best - usual <= score[side, i, k - 1]:
                continue
            for c in range(begin, end):
                s = row[c] - usual
                if s <= score[side, i, k - 1] or left + c == i:
                    continue
                at = k - 1
                while at > 0 and score[side, i, at - 1] < s:
                    score[side, i, at] = score[side, i, at - 1]
                    index[side, i, at] = index[side, i, at - 1]
                    at -= 1
                score[side, i, at] = s
                index[side, i, at] = left + c


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz", "reassoc"})
def _largest(block: Floats, top: Floats) -> None:
    """Write the largest values of each row, ascending, over `top`, which holds -inf."""
    k = top.shape[1]
    for r in range(len(block)):
        row = block[r]
        for begin in range(0, len(row), STRIP):
            strip = row[begin : begin + STRIP]
            best = strip[0]
            for s in strip:
                best = s if s > best else best
            if best <= top[r, 0]:
                continue
            for s in strip:
                if s <= top[r, 0]:
                    continue
                at = 0
                while at < k - 1 and top[r, at + 1] < s:
                    top[r, at] = top[r, at + 1]
                    at += 1
                top[r, at] = s


def _average_largest(unit: Floats, group: Ints, wanted: Ints, members: Ints, code: int, k: int, result: Floats) -> None:
    """Write the mean cosine of rows to their k nearest members of one group."""
    others = unit[members]
    step = _block_rows(len(members), unit.dtype.itemsize)

    def average(start: int) -> None:
        block = wanted[start : start + step]
        cosine = unit[block] @ others.T
        own = np.flatnonzero(group[block] == code)
        cosine[own, np.searchsorted(members, block[own])] = -np.inf
        top = np.full((len(block), min(k, len(members))), -np.inf, dtype=unit.dtype)
        _largest(cosine, top)
        known = np.isfinite(top)
        total = np.where(known, top, 0).sum(axis=1)
        result[start : start + step] = total / np.maximum(known.sum(axis=1), 1)

    in_threads(average, range(0, len(wanted), step))


def in_threads(work: Callable[[int], None], starts: range, progress: Callable[[int, int], None] | None = None) -> None:
    """Call `work` for the start of every block of rows, in as many threads as there are cores, each with one of BLAS.

    What `work` writes must not depend on the order of blocks. BLAS's own threads would mostly wait for one another.
    """
    with threadpool_limits(1), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for done, _ in enumerate(pool.map(work, starts), 1):
            if progress is not None:
                progress(done, len(starts))


def _strips(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bounds of strips of at most STRIP columns, each within one group."""
    bounds = np.concatenate([np.arange(0, len(group), STRIP), np.flatnonzero(np.diff(group)) + 1, [len(group)]])
    return np.unique(bounds)


def _block_rows(n: int, itemsize: int) -> int:
    return max(1, BLOCK_BYTES // (itemsize * max(n, 1)))
