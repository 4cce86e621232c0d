"""Density of graphs and what it depends on: the rule, the number of cells, depth, regions of the tissue.

Legend: n cells, N genes.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks.edges.data import RULES, Counts, edges_of, signed_pairs, tabulate
from benchmarks.registry import Measurement
from benchmarks.synthetic import SyntheticCounts
from musegnn.coexpression.cscore import cscore
from musegnn.coexpression.edges import critical_z
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from musegnn.coexpression.cscore import CSCoreResult

REPEATS = (1, 2, 4, 8, 16)
DEPTH_STRATA = 50
PUBLISHED = critical_z(0.005)


def repeat_cells(z: NDArray[np.float64], times: int) -> NDArray[np.float64]:
    """Return the z of the same cells repeated: moments and Gram matrices are sums over cells, so z grows as a root."""
    return z * np.sqrt(times)


def measure_repeats(data: Counts) -> Iterator[Measurement]:
    """Repeat the same cells: density per rule."""
    result = cscore(data.counts, data.depth)
    for times in REPEATS:
        n_cells = len(data.depth) * times
        yield from _densities(f"{data.shape} repeated {times}x", repeat_cells(result.z, times), result, n_cells)


def measure_fresh(sizes: tuple[int, ...], n_genes: int) -> Iterator[Measurement]:
    """Take more and more new cells of one synthetic tissue: density per rule."""
    counts, depth = SyntheticCounts(max(sizes), n_genes, 0.1, seed=2).load()
    for n_cells in sizes:
        result = cscore(counts[:n_cells], depth[:n_cells])
        yield from _densities(f"synthetic {n_cells}x{n_genes}", result.z, result, n_cells)


def _densities(shape: str, z: NDArray[np.float64], result: CSCoreResult, n_cells: int) -> Iterator[Measurement]:
    pairs = tabulate(z, result.estimate)
    for rule, config in RULES.items():
        edges = edges_of(pairs, n_cells, config)
        density = 0.0 if edges is None else edges.density
        yield Measurement(shape=shape, metric=f"density: {rule}", value=density, unit="")


def measure_halves(data: Counts, n_seeds: int) -> Iterator[Measurement]:
    """Take half of the cells: density, the same edges with the same sign, sign agreement; per rule.

    `half_jaccard` compares a half with all cells, `disjoint_jaccard` a half with the other half; `sign_agreement` (of
    the default rule) is over pairs that are edges of a half and of all cells.
    """
    n = len(data.depth)
    full = cscore(data.counts, data.depth)
    pairs = tabulate(full.z, full.estimate)
    halves: list[tuple[CSCoreResult, CSCoreResult]] = []
    for seed in range(n_seeds):
        order = stream(seed, "bench_halves").permutation(n)
        parts = (np.sort(order[: n // 2]), np.sort(order[n // 2 :]))
        first, second = (cscore(data.counts[part], data.depth[part]) for part in parts)
        halves.append((first, second))
    for rule, config in RULES.items():
        edges = edges_of(pairs, n, config)
        whole = signed_pairs(edges)
        found: dict[str, list[float]] = {"half_density": [], "half_jaccard": [], "disjoint_jaccard": []}
        found["sign_agreement"] = []
        for first, second in halves:
            sets = [edges_of(tabulate(half.z, half.estimate), n // 2, config) for half in (first, second)]
            one, other = (signed_pairs(half) for half in sets)
            found["half_density"].append(0.0 if sets[0] is None else sets[0].density)
            found["half_jaccard"].append(jaccard(one, whole))
            found["disjoint_jaccard"].append(jaccard(one, other))
            both = np.intersect1d(np.abs(one), np.abs(whole))
            if len(both):
                found["sign_agreement"].append(len(np.intersect1d(one, whole)) / len(both))
        density = 0.0 if edges is None else edges.density
        yield Measurement(shape=data.shape, metric=f"density: {rule}", value=density, unit="")
        if rule == "default" and edges is not None:
            share = edges.negative_share
            yield Measurement(shape=data.shape, metric="negative_share: default", value=share, unit="")
        for metric, values in found.items():
            if not values or (metric == "sign_agreement" and rule != "default"):
                continue
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            mean = statistics.mean(values)
            yield Measurement(shape=data.shape, metric=f"{metric}: {rule}", value=mean, unit=f"sd {spread:.2g}")


def jaccard(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return the share of common edges (of equal sign) among the edges of either graph; 0 for two empty graphs."""
    common = len(np.intersect1d(one, other))
    either = len(one) + len(other) - common
    return common / either if either else 0.0


def measure_causes(data: Counts) -> Iterator[Measurement]:
    """Ask what makes a graph dense: share of pairs with p < 0.005 after all but one cause is taken away.

    Counts of each gene are exchanged between cells of like depth (and of the same region), independently per gene:
    what is left of co-expression comes from depth (and region) alone.
    """
    result = cscore(data.counts, data.depth)
    shape = data.shape
    yield Measurement(shape=shape, metric="significant_pairs", value=_significant(result.z), unit="")
    z = np.nan_to_num(result.z)
    np.fill_diagonal(z, 0.0)
    values = np.linalg.eigvalsh(z)
    share = float(np.max(values**2) / np.sum(values**2))
    yield Measurement(shape=shape, metric="leading_axis_share", value=share, unit="")
    by_depth = strata(data.depth, DEPTH_STRATA)
    shuffled = shuffle_within(data.counts, by_depth, 0)
    left = _significant(cscore(shuffled, data.depth).z)
    yield Measurement(shape=shape, metric="significant_pairs: depth alone", value=left, unit="")
    if data.labels is None:
        return
    names, region = np.unique(data.labels, return_inverse=True)
    within = np.zeros(len(region), dtype=np.int64)
    for code in range(len(names)):
        cells = np.flatnonzero(region == code)
        within[cells] = code * DEPTH_STRATA + strata(data.depth[cells], max(1, len(cells) // 30))
    shuffled = shuffle_within(data.counts, within, 0)
    left = _significant(cscore(shuffled, data.depth).z)
    yield Measurement(shape=shape, metric="significant_pairs: region and depth alone", value=left, unit="")
    for code, name in enumerate(names):
        cells = np.flatnonzero(region != code)
        rest = _significant(cscore(data.counts[cells], data.depth[cells]).z)
        label = f"{shape} without {name} ({np.sum(region == code)} cells)"
        yield Measurement(shape=label, metric="significant_pairs", value=rest, unit="")


def strata(values: NDArray[np.float64], n_strata: int) -> NDArray[np.int64]:
    """Cut values into groups of equal size by rank, shape (n,), from 0 on."""
    rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    result: NDArray[np.int64] = rank * n_strata // len(values)
    return result


def shuffle_within(counts: csr_matrix, group: NDArray[np.int64], seed: int) -> csr_matrix:
    """Exchange the counts of each gene between cells of the same group, independently per gene."""
    dense = counts.toarray()
    rng = stream(seed, "bench_shuffle")
    home = np.argsort(group, kind="stable")
    result = np.empty_like(dense)
    for gene in range(dense.shape[1]):
        result[home, gene] = dense[np.argsort(group + rng.random(len(group)), kind="stable"), gene]
    return csr_matrix(result)


def _significant(z: NDArray[np.float64]) -> float:
    upper = z[np.triu_indices(len(z), 1)]
    return float(np.mean(np.abs(upper[np.isfinite(upper)]) >= PUBLISHED))


def measure_replication(one: Counts, other: Counts) -> Iterator[Measurement]:
    """Look for the edges of a dataset in another one of like cells, over genes selected in both.

    The value is the share of edges between these genes that have ``p < 0.005`` and the same sign in the other dataset.
    Chance is half of the share of all pairs with ``p < 0.005`` there.
    """
    first, second = cscore(one.counts, one.depth), cscore(other.counts, other.depth)
    _, mine, theirs = np.intersect1d(one.genes, other.genes, return_indices=True)
    position = np.full(len(one.genes), -1)
    position[mine] = theirs
    upper = second.z[np.ix_(theirs, theirs)][np.triu_indices(len(theirs), 1)]
    chance = 0.5 * float(np.mean(np.abs(upper) >= PUBLISHED))
    pairs = tabulate(first.z, first.estimate)
    shape = f"{one.shape} in {other.name}, {len(mine)} genes"
    for rule, config in RULES.items():
        edges = edges_of(pairs, len(one.depth), config)
        if edges is None:
            continue
        rows, columns = position[edges.rows], position[edges.indices]
        known = (rows >= 0) & (columns >= 0)
        there = second.z[rows[known], columns[known]]
        again = (np.abs(there) >= PUBLISHED) & (np.sign(there) == np.sign(edges.z[known]))
        share = float(np.mean(again)) if known.any() else 0.0
        yield Measurement(
            shape=shape,
            metric=f"replicated: {rule}",
            value=share,
            unit="",
            baseline="chance",
            baseline_value=chance,
            larger_is_better=True,
        )
