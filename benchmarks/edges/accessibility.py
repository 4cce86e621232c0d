"""Graphs of scATAC gene activity beside graphs of RNA from the same cells, under several measurement models.

Binarised counts b = [x > 0] of ``x ~ Poisson(s z)`` have ``E b = p(s)`` and, whatever the variance of z, exactly
``Var b = p (1 - p)``. To first order in the variance of z, ``p = 1 - exp(-s mu)`` and
``Cov(b_j, b_k) = s^2 (1 - p_j)(1 - p_k) Cov(z_j, z_k)``. The score test of zero covariance is therefore

    z_jk = sum_i u_ij u_ik / sqrt(sum_i h_ij h_ik),   u = s (b - p) / p,   h = s^2 (1 - p) / p

which is CS-CORE's with weights ``d/V = s/p`` for ``s/(s mu + s^2 sigma)``; no variance is estimated. `mu` solves the
likelihood equation ``sum_i u_ij = 0``.

Legend: n cells, N genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import rankdata, spearmanr

from benchmarks.edges.data import Counts, edges_of, load_all, tabulate
from benchmarks.edges.stability import PUBLISHED, strata
from benchmarks.registry import Measurement
from musegnn.coexpression.cscore import cscore
from musegnn.coexpression.spectral import shared_part
from musegnn.config import EdgeConfig
from musegnn.kernels.moments import DepthBasis
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from musegnn.config import DatasetConfig

MIN_CELLS = 50
MAX_GENES = 700
ABUNDANCE_CLASSES, STRENGTH_CLASSES = 2, 4
NEWTON_STEPS = 30
OTHER_DEPTH = ("counts, clamp", "binary, Bernoulli")


def bernoulli_test(binary: NDArray[np.float64], depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the test statistic of the Bernoulli model from dense 0/1 values, shape (n, N); gives shape (N, N)."""
    mu = fit_bernoulli(binary, depth)
    s = depth[:, None]
    p = -np.expm1(-s * mu)
    u, h = s * (binary - p) / p, s * s * (1.0 - p) / p
    result: NDArray[np.float64] = (u.T @ u) / np.sqrt(h.T @ h)
    return result


def fit_bernoulli(binary: NDArray[np.float64], depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the rate of each gene by Newton steps on ``sum_i s b/p = sum_i s``, with ``p = 1 - exp(-s mu)``, shape (N,).

    The left side is convex and falls with mu, and the first guess lies below the root, as ``p <= s mu``: the steps
    rise to it. Genes in all cells have no root and keep what the last step gave.
    """
    s = depth[:, None]
    mu = binary.sum(axis=0) / depth.sum()
    for _ in range(NEWTON_STEPS):
        p = -np.expm1(-s * mu)
        mu = _step(mu, (s * binary / p).sum(axis=0) - depth.sum(), (s * s * binary * (1.0 - p) / p**2).sum(axis=0))
    return mu


def _step(mu: NDArray[np.float64], excess: NDArray[np.float64], slope: NDArray[np.float64]) -> NDArray[np.float64]:
    step: NDArray[np.float64] = np.divide(excess, slope, out=np.zeros_like(mu), where=slope > 0.0)
    return mu + step


def bernoulli_from_moments(binary: NDArray[np.float64], depth: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Compute the same from moments over depth and one Gram matrix, as a build would; gives shape (N, N).

    With ``g(s) = s/p(s)``, ``u = b g - s``, so that ``U'U = A - c 1' - 1 c' + sum s^2`` with ``A`` the Gram matrix of
    ``b g`` and ``c`` from moments of b; ``H'H`` needs moments of the cells alone.
    """
    basis = DepthBasis(float(depth.min()), float(depth.max()), order)
    polynomials, s = basis.evaluate(depth), basis.nodes
    first, cells = basis.to_nodes(binary.T @ polynomials), basis.to_nodes(polynomials.sum(axis=0))
    mu = binary.sum(axis=0) / depth.sum()
    for _ in range(NEWTON_STEPS):
        p = -np.expm1(-s * mu[:, None])
        mu = _step(mu, (first * s / p).sum(axis=1) - cells @ s, (first * s * s * (1.0 - p) / p**2).sum(axis=1))
    p = -np.expm1(-s * mu[:, None])
    h, crossed = s * s * (1.0 - p) / p, (first * s * s / p).sum(axis=1)
    weighted = binary * (depth[:, None] / -np.expm1(-depth[:, None] * mu))
    numerator = weighted.T @ weighted - crossed[:, None] - crossed + (depth * depth).sum()
    result: NDArray[np.float64] = numerator / np.sqrt((h * cells) @ h.T)
    return result


def options(counts: csr_matrix, depth: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Return the statistics of every measurement model, each shape (N, N), and of the shared axes of two of them."""
    clamp = cscore(counts, depth).z
    yield "counts, clamp", clamp
    yield "counts, drop", cscore(counts, depth, negative_variance="drop").z
    yield "counts, reference", cscore(counts, depth, negative_variance="reference").z
    yield from binary_options(csr_matrix((counts > 0).astype(np.int32)), depth)
    bernoulli = bernoulli_test((counts > 0).toarray().astype(np.float64), depth)
    yield "counts, clamp, shared axes", explained(clamp, 1.96)
    yield "counts, clamp, shared axes of all pairs", explained(clamp, 0.0)
    yield "binary, Bernoulli, shared axes", explained(bernoulli, 1.96)


def binary_options(binary: csr_matrix, depth: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Return the statistics of every model of 0/1 values, each shape (N, N)."""
    yield "binary, clamp", cscore(binary, depth).z
    yield "binary, reference", cscore(binary, depth, negative_variance="reference").z
    yield "binary, Bernoulli", bernoulli_test(binary.toarray().astype(np.float64), depth)


def explained(z: NDArray[np.float64], z_store: float) -> NDArray[np.float64]:
    """Return the part of z on its shared axes, from the pairs from `z_store` on, 0 for others, shape (N, N)."""
    pairs = tabulate(z, z_store=z_store)
    result = np.zeros_like(z)
    part = shared_part(pairs)
    if z_store > 0.0:  # the rule asks for a pair and its axes to agree; a ranking of all pairs does not
        part[np.sign(part) != np.sign(pairs.z)] = 0.0
    result[np.repeat(np.arange(len(z)), np.diff(pairs.indptr)), pairs.indices] = part
    return result


def measure_agreement(rna: DatasetConfig, atac: DatasetConfig, permutations: int) -> Iterator[Measurement]:
    """Rank pairs of genes by accessibility, and see which are edges in RNA.

    Edges in RNA are those of ``bh`` over the genes detected in 50 cells of both, at most 700. Genes
    of two species are matched by symbol. Chance is the mean over
    permutations of the genes of the accessibility graph within 64 classes of like genes: 2 of abundance in RNA, 2 of
    abundance in ATAC, 4 of degree in RNA, 4 of the root mean square of z in ATAC. The unit column has its deviation.
    """
    expression, access = load_all(rna), load_all(atac)
    mine, theirs = _common_genes(expression, access)
    first, second = csr_matrix(expression.counts[:, mine]), csr_matrix(access.counts[:, theirs])
    edges = edges_of(tabulate(cscore(first, expression.depth).z), len(expression.depth), EdgeConfig(rule="bh"))
    sign = np.zeros((len(mine), len(mine)))
    if edges is not None:
        sign[edges.rows, edges.indices] = edges.z
    levels = strata(_detected(first), ABUNDANCE_CLASSES) * ABUNDANCE_CLASSES
    levels += strata(_detected(second), ABUNDANCE_CLASSES)
    levels = levels * STRENGTH_CLASSES + strata(np.count_nonzero(sign, axis=1), STRENGTH_CLASSES)
    genes_per_cell = np.maximum(np.diff(access.counts.indptr), 1).astype(np.float64)
    base = f"{access.name} against {expression.name}, {len(mine)} genes"
    yield Measurement(shape=base, metric="rna_density", value=0.0 if edges is None else edges.density, unit="")
    for depth_name, depth in (("total", access.depth), ("genes detected", genes_per_cell)):
        for option, z in options(second, depth):
            if depth_name != "total" and option not in OTHER_DEPTH:
                continue
            shape = f"{base}: {option}; depth {depth_name}"
            yield from _compare(shape, sign, np.nan_to_num(z), levels, permutations)
            if "shared" not in option:
                yield from _own_statistics(shape, z, len(depth))


def _own_statistics(shape: str, z: NDArray[np.float64], n_cells: int) -> Iterator[Measurement]:
    upper = np.abs(z[np.triu_indices(len(z), 1)])
    upper = upper[np.isfinite(upper)]
    median = float(np.median(upper)) if len(upper) else np.nan
    yield Measurement(shape=shape, metric="median_abs_z", value=median, unit="chance 0.674")
    edges = edges_of(tabulate(z), n_cells, EdgeConfig(rule="bh"))
    yield Measurement(shape=shape, metric="bh_density", value=0.0 if edges is None else edges.density, unit="")


def _common_genes(one: Counts, other: Counts) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    names = (np.char.upper(counts.genes) for counts in (one, other))
    _, mine, theirs = np.intersect1d(*names, return_indices=True)
    often = (_detected(one.counts)[mine] >= MIN_CELLS) & (_detected(other.counts)[theirs] >= MIN_CELLS)
    mine, theirs = mine[often], theirs[often]
    best = np.sort(np.argsort(-_detected(other.counts)[theirs], kind="stable")[:MAX_GENES])
    return mine[best], theirs[best]


def _detected(counts: csr_matrix) -> NDArray[np.float64]:
    return np.bincount(counts.indices[counts.data > 0], minlength=counts.shape[1]).astype(np.float64)


def _compare(
    shape: str, sign: NDArray[np.float64], z: NDArray[np.float64], levels: NDArray[np.int64], permutations: int
) -> Iterator[Measurement]:
    found = _agreement(sign, z)
    levels = levels * STRENGTH_CLASSES + strata(np.linalg.norm(z, axis=1), STRENGTH_CLASSES)
    rng = stream(0, "bench_permute")
    chance: dict[str, list[float]] = {metric: [] for metric in found}
    for _ in range(permutations):
        order = np.empty(len(levels), dtype=np.intp)
        order[np.argsort(levels, kind="stable")] = np.argsort(levels + rng.random(len(levels)), kind="stable")
        for metric, value in _agreement(sign, z[np.ix_(order, order)]).items():
            chance[metric].append(value)
    for metric, value in found.items():
        yield Measurement(
            shape=shape,
            metric=metric,
            value=value,
            unit=f"chance sd {np.std(chance[metric]):.2g}",
            baseline="chance",
            baseline_value=float(np.mean(chance[metric])),
            larger_is_better=True,
        )


def _agreement(sign: NDArray[np.float64], z: NDArray[np.float64]) -> dict[str, float]:
    """Compare the edges of RNA (their z, 0 elsewhere) with statistics of accessibility, both shape (N, N)."""
    n = len(z)
    upper = np.triu_indices(n, 1)
    expression, access = sign[upper], z[upper]
    positive, edge = expression > 0, expression != 0
    strongest = np.argsort(-np.abs(access), kind="stable")
    same = edge & (np.sign(expression) == np.sign(access))
    top = np.zeros(len(access), dtype=np.bool_)
    top[strongest[: 5 * n]] = True
    result = {
        "auc_positive_edges": _auc(access[positive | ~edge], positive[positive | ~edge]),
        "auc_edges_by_magnitude": _auc(np.abs(access), edge),
        "spearman_in_edges": float(spearmanr(expression[edge], access[edge]).statistic),
        "same_edge_share_degree_2": float(np.mean(same[strongest[:n]])),
        "same_edge_share_degree_10": float(np.mean(same[top])),
        "odds_ratio_degree_10": _odds_ratio(top, edge),
    }
    return {metric: value if np.isfinite(value) else 0.0 for metric, value in result.items()}


def _auc(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    rank, k = rankdata(score), int(positive.sum())
    if k in {0, len(positive)}:
        return np.nan
    return float((rank[positive].sum() - k * (k + 1) / 2) / (k * (len(positive) - k)))


def _odds_ratio(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the odds ratio of two markings, half added to each count (Haldane and Anscombe)."""
    both, first, second = (np.sum(one & other), np.sum(one & ~other), np.sum(~one & other))
    return float((both + 0.5) * (np.sum(~one & ~other) + 0.5) / ((first + 0.5) * (second + 0.5)))


def measure_calibration(atac: DatasetConfig, n_genes: int) -> Iterator[Measurement]:
    """Draw independent binary genes with the rates and depths of real data: pairs with p < 0.005 over 0.5 %.

    1 is a calibrated test, more finds edges in chance, less misses some.
    """
    access = load_all(atac)
    often = np.flatnonzero(_detected(access.counts) >= MIN_CELLS)
    best = often[np.argsort(-_detected(access.counts)[often], kind="stable")[:n_genes]]
    binary = (access.counts[:, best] > 0).toarray().astype(np.float64)
    rate = fit_bernoulli(binary, access.depth)
    chance = stream(0, "bench_null").random(binary.shape) < -np.expm1(-access.depth[:, None] * rate)
    counts = csr_matrix(chance.astype(np.int32))
    for option, z in binary_options(counts, access.depth):
        upper = np.abs(z[np.triu_indices(len(z), 1)])
        yield Measurement(
            shape=f"{access.name} drawn independently, {len(best)} genes: {option}",
            metric="false_positives_over_expected",
            value=float(np.mean(upper[np.isfinite(upper)] >= PUBLISHED)) / 0.005,
            unit="",
        )
