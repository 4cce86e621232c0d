"""Baselines without training.

*PCA and Procrustes*: principal components of each dataset's residual profile, rotated onto each other on the shared
genes that training may see: all datasets onto one consensus, or each pair of datasets alone. A rotation fitted to
one pair agrees better with its anchors; the consensus, fitted to more, can place unseen genes better.

*Co-expression profile*: a gene is its row of co-expression estimates, or test statistics, with the shared genes
that training may see. Estimates are comparable between datasets; statistics also exist for genes without an
estimate.

*Expression level*: a gene is its rank by mean count. A trivial predictor that must not win.

Legend: T datasets, N genes, R profile columns, d dimensions, S shared genes that training may see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh
from scipy.stats import rankdata

from musegnn.evaluation.dataset_pairs import visible_genes
from musegnn.vectors import unit_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from musegnn.graph import GraphData

    Floats = NDArray[np.float64]

CONSENSUS_ROUNDS = 20


def pca_vectors(profile: NDArray[np.floating], dim: int) -> Floats:
    """Compute the principal component scores of the genes of one dataset, (N, `dim`) float64, from a profile (N, R).

    Columns past the numerical rank are zero; each column's entry of largest magnitude is positive. The compressed
    profile gives the scores of the full one, as a rotation of its columns changes nothing.
    """
    x = np.asarray(profile, dtype=np.float64)
    x = x - x.mean(axis=0)
    n, m = len(x), min(dim, *x.shape)
    values, vectors = eigh(x @ x.T, subset_by_index=(n - m, n - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    scores = vectors * np.sqrt(np.where(values > n * np.finfo(np.float64).eps * values[0], values, 0.0))
    largest = np.abs(scores).argmax(axis=0)
    sign = np.where(scores[largest, np.arange(m)] < 0, -1.0, 1.0)
    result = np.zeros((len(x), dim))
    result[:, :m] = scores * sign
    return result


def procrustes_rotation(moving: NDArray[np.floating], fixed: NDArray[np.floating]) -> Floats:
    """Find the orthogonal matrix, (d, d), that turns rows onto matching rows, each (S, d); the identity when S = 0.

    Minimises ``|moving @ Q - fixed|`` over orthogonal Q (reflections allowed): ``Q = U V'`` with
    ``U s V' = moving' fixed``. For unit rows this maximises the sum of cosines of matching rows.

    References
    ----------
    Schönemann, Psychometrika 31 (1966).
    """
    if len(moving) == 0:
        return np.eye(moving.shape[1])
    u, _, vt = np.linalg.svd(np.asarray(moving, np.float64).T @ np.asarray(fixed, np.float64))
    result: Floats = u @ vt
    return result


def aligned_similarity(a: GraphData, b: GraphData, x_a: Floats, x_b: Floats) -> Floats:
    """Return the cosines of all genes of two datasets, (N_a, N_b), one rotated onto the other on the visible genes."""
    u_a, u_b = unit_rows(x_a), unit_rows(x_b)
    in_a, in_b = visible_genes(a, b)
    rotation = procrustes_rotation(u_a[in_a], u_b[in_b])
    return u_a @ rotation @ u_b.T


def consensus_alignment(graphs: Sequence[GraphData], vectors: Mapping[str, Floats]) -> dict[str, Floats]:
    """Rotate all datasets into one space by generalised Procrustes analysis; return unit vectors by dataset name.

    Unit vectors of the genes that are not held out and are in at least two datasets are averaged by gene key; each
    dataset in turn is rotated onto the average of the others, and this is repeated. The first pass adds datasets in the
    order of how many such genes they have.

    References
    ----------
    Gower, "Generalized Procrustes analysis", Psychometrika 40 (1975).
    """
    names, counts = np.unique(np.concatenate([t.keys[t.trainable] for t in graphs]), return_counts=True)
    anchors = names[counts > 1]
    rows, codes, moved = {}, {}, {}
    for t in graphs:
        _, rows[t.name], codes[t.name] = np.intersect1d(np.where(t.trainable, t.keys, ""), anchors, return_indices=True)
        moved[t.name] = unit_rows(vectors[t.name])
    order = sorted(graphs, key=lambda t: -len(rows[t.name]))
    dim = next(iter(moved.values())).shape[1]
    total, present = np.zeros((len(anchors), dim)), np.zeros(len(anchors))
    placed: set[str] = set()
    for _ in range(CONSENSUS_ROUNDS):
        for t in order:
            at, code = rows[t.name], codes[t.name]
            if t.name in placed:
                total[code] -= moved[t.name][at]
                present[code] -= 1
            others = present[code] > 0
            target = total[code[others]] / present[code[others], None]
            moved[t.name] = moved[t.name] @ procrustes_rotation(moved[t.name][at[others]], target)
            total[code] += moved[t.name][at]
            present[code] += 1
            placed.add(t.name)
    return moved


def coexpression_similarity(a: GraphData, b: GraphData, estimates: Mapping[str, csr_matrix]) -> Floats:
    """Return the cosines of co-expression with the visible shared genes, (N_a, N_b); 0 without such neighbours.

    `estimates` holds estimates or test statistics by dataset name, symmetric, shape (N, N), 0 where not stored.
    """
    in_a, in_b = visible_genes(a, b)
    return unit_rows(estimates[a.name][:, in_a].toarray()) @ unit_rows(estimates[b.name][:, in_b].toarray()).T


def expression_similarity(a: GraphData, b: GraphData, mean: Mapping[str, NDArray[np.floating]]) -> Floats:
    """Return minus the difference of relative ranks by mean count, (N_a, N_b)."""
    rank_a, rank_b = (rankdata(mean[t.name]) / t.n_genes for t in (a, b))
    result: Floats = -np.abs(rank_a[:, None] - rank_b[None, :])
    return result
