"""Nearest genes by cosine, exactly.

Legend: P points (one gene in one dataset each), d dimensions, k neighbours.

The similarity matrix is made in row blocks by one matrix product each and scanned by a compiled loop that keeps a
sorted list per row, so that memory is ``O(P (d + k))`` and nothing is approximated. Equal scores are listed in the
order of the points.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numba import njit, prange

from musegnn.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray

BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbors:
    """The nearest points of every point, best first.

    Attributes
    ----------
    index
        Positions of the neighbours, -1 behind the last one, shape (P, k), int32.
    score
        Their cosines, NaN behind the last one, shape (P, k), float32.
    """

    index: NDArray[np.int32]
    score: NDArray[np.float32]


def unit_rows(vectors: ArrayLike) -> NDArray[np.float32]:
    """Scale rows to length one; rows of zeros stay zero.

    Parameters
    ----------
    vectors
        Shape (P, d), any real dtype.

    Returns
    -------
    ndarray
        Shape (P, d), float32; norms are computed in float64.

    Raises
    ------
    ValueError
        When the input is not a matrix of finite numbers.
    """
    x = np.asarray(vectors, dtype=np.float64)
    if x.ndim != 2:
        msg = f"expected vectors of shape (points, dimensions), got shape {x.shape}"
        raise ValueError(msg)
    if not np.isfinite(x).all():
        msg = f"expected finite vectors, got {int((~np.isfinite(x)).any(axis=1).sum())} rows that are not"
        raise ValueError(msg)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (x / np.where(norm > 0.0, norm, 1.0)).astype(np.float32)
    return unit


def nearest(vectors: ArrayLike, k: int) -> Neighbors:
    """Find the k nearest other points of every point.

    Parameters
    ----------
    vectors
        Shape (P, d); compared by cosine.
    k
        Number of neighbours, at least 1.

    Returns
    -------
    Neighbors
        The point itself is never listed. Where there are fewer than `k` other points, the rest is -1 and NaN.

    Examples
    --------
    >>> nearest([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], 1).index.ravel().tolist()
    [1, 0, 1]
    """
    points = len(np.asarray(vectors))
    within, _ = nearest_split(vectors, np.zeros(points, np.int64), k)
    return within


def nearest_split(vectors: ArrayLike, group: ArrayLike, k: int) -> tuple[Neighbors, Neighbors]:
    """Find the k nearest points of every point inside its own group, and the k nearest outside.

    The best of the two lists together are the nearest points of all, which is how one scan serves every view.

    Parameters
    ----------
    vectors
        Shape (P, d); compared by cosine.
    group
        Group of each point, such as the code of its dataset, shape (P,), integers.
    k
        Number of neighbours in each list, at least 1.

    Returns
    -------
    tuple of Neighbors
        Inside the group (without the point itself), outside the group.

    Raises
    ------
    ValueError
        When `k` is less than 1 or the shapes do not fit.
    """
    if k < 1:
        msg = f"expected k of at least 1, got {k}"
        raise ValueError(msg)
    unit = unit_rows(vectors)
    code = np.ascontiguousarray(group, dtype=np.int64)
    points = len(unit)
    if code.shape != (points,):
        msg = f"expected one group per point ({points}), got shape {code.shape}"
        raise ValueError(msg)
    index = np.full((2, points, k), -1, dtype=np.int32)
    score = np.full((2, points, k), -np.inf, dtype=np.float32)
    rows = max(1, BLOCK_BYTES // (4 * max(points, 1)))
    for start in range(0, points, rows):
        block = unit[start : start + rows] @ unit.T
        _scan(block, start, code, index, score)
    score[index < 0] = np.nan
    np.clip(score, -1.0, 1.0, out=score)
    return Neighbors(index=index[0], score=score[0]), Neighbors(index=index[1], score=score[1])


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


def query(
    embeddings: AnnData,
    gene: str,
    *,
    dataset: str | None = None,
    k: int = 10,
    across: bool = False,
) -> pd.DataFrame:
    """List the genes nearest to one gene.

    Parameters
    ----------
    embeddings
        One row per dataset x gene with ``obs`` columns ``gene``, ``gene_id``, ``gene_key`` and ``dataset``.
    gene
        Name, identifier or key of the gene, matched exactly first, then without regard to case. Rows of the same key
        (orthologs under their own names) count as copies of the gene.
    dataset
        Dataset whose copy of the gene asks; ``None``: every dataset that has the gene.
    k
        Number of neighbours per copy.
    across
        List neighbours in other datasets only.

    Returns
    -------
    DataFrame
        Best first for each copy: ``query`` (dataset of the asking copy), ``rank`` from 1, ``gene``, ``gene_id``,
        ``dataset``, ``modality``, ``tissue``, ``species`` where known, and ``cosine``.

    Raises
    ------
    InputError
        When the gene or the dataset is not there; the message names the closest ones.
    """
    if k < 1:
        msg = f"expected k of at least 1, got {k}"
        raise ValueError(msg)
    obs = embeddings.obs
    rows = _copies(obs, gene)
    home = obs["dataset"].astype(str).to_numpy()
    if dataset is not None:
        kept = rows[home[rows] == dataset]
        if not len(kept):
            has = ", ".join(sorted({str(h) for h in home[rows]}))
            msg = f"{gene} is not a gene of the dataset {dataset}"
            raise InputError(msg, code="E420", where=gene, fix=f"choose one of: {has}")
        rows = kept
    unit = unit_rows(embeddings.X)
    shown = [c for c in ("gene", "gene_id", "dataset", "modality", "tissue", "species") if c in obs]
    parts = []
    for row in rows:
        cosine = unit @ unit[row]
        cosine[row if not across else home == home[row]] = -np.inf
        best = np.lexsort((np.arange(len(cosine)), -cosine))[:k]
        best = best[np.isfinite(cosine[best])]
        part = obs.iloc[best][shown].astype(str).reset_index(drop=True)
        part.insert(0, "rank", np.arange(1, len(best) + 1))
        part.insert(0, "query", home[row])
        part["cosine"] = np.clip(cosine[best], -1.0, 1.0)
        parts.append(part)
    table: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return table


def _copies(obs: pd.DataFrame, gene: str) -> NDArray[np.int64]:
    columns = [obs[c].astype(str) for c in ("gene", "gene_key", "gene_id")]
    key = obs["gene_key"].astype(str)
    exact = [names == gene for names in columns]
    folded_match = [names.str.casefold() == gene.casefold() for names in columns]
    for found in (*exact, *folded_match):
        if found.any():
            return np.flatnonzero(key.isin(key[found]).to_numpy())
    known = sorted(set(columns[0]))
    folded = {name.casefold(): name for name in known}
    close = [folded[c] for c in difflib.get_close_matches(gene.casefold(), list(folded), n=5)]
    msg = f"no dataset has a gene {gene}"
    fix = f"try {', '.join(close)}" if close else "list the genes with `musegnn export`"
    raise InputError(msg, code="E420", where="neighbors", fix=fix)
