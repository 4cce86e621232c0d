"""Edge rules: which stored gene pairs are edges of the graph.

Rules read the stored test statistics only, so another rule needs no pass over the counts.

Legend: N genes, E directed edges (both directions of each pair), P stored pair entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from musegnn.coexpression.spectral import shared_part
from musegnn.errors import GraphError, NoEdgesError
from musegnn.graph import EdgeSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.config import EdgeConfig
    from musegnn.data_store.records import PairTable

BIN_WIDTH = 0.05
PUBLISHED_P = 0.005
PUBLISHED_CELLS = 3000  # up to which the default rule has the published cut
MIN_MEAN_DEGREE = 2.0
TOP_K_DEGREE = 50
SHARED_AXES_DEGREE = 10
MAX_ITERATIONS = 10_000


def critical_z(p: float) -> float:
    """Return the ``abs(z)`` whose two-sided normal p-value is `p`, in (0, 1].

    Examples
    --------
    >>> round(critical_z(0.005), 6)
    2.807034
    """
    if not 0.0 < p <= 1.0:
        msg = f"p must be in (0, 1], got {p}"
        raise ValueError(msg)
    return float(-ndtri(0.5 * p))


def select_edges(pairs: PairTable, n_cells: int, config: EdgeConfig) -> EdgeSet:
    """Apply an edge rule to stored pairs.

    Parameters
    ----------
    pairs
        All pairs with ``abs(z) >= pairs.z_store``, with the number of tests and the histogram of ``abs(z)``.
    n_cells
        Number of cells behind the statistics, for the effect floor of the default rule and the features.
    config
        The rule. ``sign: positive`` and ``max_degree`` act on what the rule accepts; all pairs, whatever
        their sign, count as tests.

    Raises
    ------
    GraphError
        E270 when no pair is an edge; E272 when the rule accepts pairs that were not stored.

    References
    ----------
    Benjamini and Hochberg (1995), J. R. Stat. Soc. B 57:289; Benjamini and Yekutieli (2001), Ann. Stat. 29:1165.
    """
    magnitude = np.abs(pairs.z.astype(np.float64))
    cutoff = _cutoff(pairs, magnitude, n_cells, config)
    keep = magnitude >= cutoff
    if config.rule == "min_abs_est":
        keep &= np.abs(pairs.estimate) >= np.float32(config.min_abs_est)
    elif config.rule == "shared_axes":
        keep = _explained(pairs, config.degree or SHARED_AXES_DEGREE)
    elif config.rule == "top_k":
        keep = _strongest(pairs, magnitude, keep, config.degree or TOP_K_DEGREE)
    if config.sign == "positive":
        keep &= pairs.z > 0
    if config.max_degree is not None:
        keep &= _strongest(pairs, magnitude, keep, config.max_degree)
    if not keep.any():
        _refuse_empty(pairs, magnitude, cutoff, config)
    features = edge_features(pairs.z, pairs.estimate, n_cells)
    everything = EdgeSet(
        indptr=pairs.indptr,
        indices=pairs.indices,
        z=pairs.z,
        estimate=pairs.estimate,
        features=features,
        cutoff=cutoff,
    )
    return edges_from_mask(everything, keep)


def edge_features(z: NDArray[np.float32], estimate: NDArray[np.float32], n_cells: int) -> NDArray[np.float32]:
    """Compute the two features of each edge, shape (E, 2), float32.

    They are the estimate clipped to [-1, 1] and ``sign(z) * log1p(abs(z)) / log1p(sqrt(n_cells))``.
    """
    wide = z.astype(np.float64)
    scaled = np.sign(wide) * np.log1p(np.abs(wide)) / np.log1p(np.sqrt(n_cells))
    return np.stack([np.clip(estimate, -1.0, 1.0), scaled], axis=1).astype(np.float32)


def edges_from_mask(edges: EdgeSet, keep: NDArray[np.bool_]) -> EdgeSet:
    """Keep some entries, the same for both directions of a pair; the result may be empty.

    Raises
    ------
    ValueError
        When the mask has another length or keeps one direction of a pair only.
    """
    if keep.shape != edges.indices.shape:
        msg = f"keep must have shape {edges.indices.shape}, got {keep.shape}"
        raise ValueError(msg)
    rows, columns = edges.rows[keep], edges.indices[keep].astype(np.int64)
    n = edges.n_genes
    if not np.array_equal(rows * n + columns, np.sort(columns * n + rows)):
        msg = "keep must be equal for both directions of every pair"
        raise ValueError(msg)
    indptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=n), out=indptr[1:])
    return EdgeSet(
        indptr=indptr,
        indices=edges.indices[keep],
        z=edges.z[keep],
        estimate=edges.estimate[keep],
        features=edges.features[keep],
        cutoff=edges.cutoff,
    )


def strict_cutoff(pairs: PairTable, n_cells: int, fdr: float) -> float:
    """Return the ``abs(z)`` from which the default rule accepts pairs, before sparse graphs are filled up."""
    floor = critical_z(PUBLISHED_P) * float(np.sqrt(max(1.0, n_cells / PUBLISHED_CELLS)))
    magnitude = np.abs(pairs.z.astype(np.float64))
    return max(_false_discovery_cutoff(pairs, magnitude, fdr, dependent=False), floor)


def _cutoff(pairs: PairTable, magnitude: NDArray[np.float64], n_cells: int, config: EdgeConfig) -> float:
    if config.rule == "shared_axes":
        return pairs.z_store
    if config.rule == "pvalue":
        cutoff = critical_z(config.p_value)
    elif config.rule == "default":
        cutoff = _fill_sparse_graph(pairs, magnitude, strict_cutoff(pairs, n_cells, config.fdr))
    else:
        cutoff = _false_discovery_cutoff(pairs, magnitude, config.fdr, dependent=config.rule == "by")
    if cutoff < pairs.z_store and _count_at_least(pairs, np.sort(magnitude), cutoff) > len(magnitude) // 2:
        msg = (
            f"rule `{config.rule}` accepts abs(z) from {cutoff:.4g}, but only pairs from {pairs.z_store:.4g} are stored"
        )
        raise GraphError(
            msg, code="E272", where="edges", fix="use a stricter rule, or build with a lower graph.z_store"
        )
    return cutoff


def _fill_sparse_graph(pairs: PairTable, magnitude: NDArray[np.float64], cutoff: float) -> float:
    """Lower the cut where it leaves some edges but too few, never below the published rule or what is stored.

    Each pair is two entries, so a mean degree of d is d N entries. Data in which the rule finds nothing are not
    relaxed: their graph would be noise.
    """
    wanted = min(int(np.ceil(MIN_MEAN_DEGREE * pairs.n_genes)), len(magnitude))
    if not 0 < np.count_nonzero(magnitude >= cutoff) < wanted:
        return cutoff
    weakest = float(np.partition(magnitude, len(magnitude) - wanted)[len(magnitude) - wanted])
    return min(cutoff, max(weakest, critical_z(PUBLISHED_P), pairs.z_store))


def _false_discovery_cutoff(pairs: PairTable, magnitude: NDArray[np.float64], fdr: float, *, dependent: bool) -> float:
    """Find the ``abs(z)`` of the step-up procedure.

    With R(t) the number of pairs at or above t, the procedure rejects the largest k with ``R(z(k q/m)) >= k``.
    From k = m the map ``k -> R(z(k q/m))`` falls to that k and stays, because R only falls with t. Below
    ``z_store`` R is known at the bins of the histogram alone; the upper bound used there keeps k from falling too far.
    """
    m = pairs.n_tests
    if m == 0:
        return float("inf")
    level = fdr / m
    if dependent:
        level /= float(np.sum(1.0 / np.arange(1, m + 1)))
    ordered = np.sort(magnitude)
    k = m
    for _ in range(MAX_ITERATIONS):
        if k == 0:
            return float("inf")
        cutoff = critical_z(k * level)
        found = min(k, _count_at_least(pairs, ordered, cutoff))
        if found == k:
            return cutoff
        k = found
    msg = "the step-up procedure did not settle"  # k falls by one at least, so m tests end it; this bounds the time
    raise RuntimeError(msg)


def _count_at_least(pairs: PairTable, ordered: NDArray[np.float64], cutoff: float) -> int:
    """Count unordered pairs with ``abs(z) >= cutoff``; an upper bound where they are not all stored."""
    stored = (len(ordered) - int(np.searchsorted(ordered, cutoff, side="left"))) // 2
    if cutoff >= pairs.z_store:
        return stored
    first_bin = min(int(cutoff / BIN_WIDTH), len(pairs.histogram) - 1)
    return max(stored, int(pairs.histogram[first_bin:].sum()))


def _strongest(
    pairs: PairTable, magnitude: NDArray[np.float64], candidates: NDArray[np.bool_], max_degree: int
) -> NDArray[np.bool_]:
    """Mark the entries that are among the strongest of either end; equal strengths favour the lower column."""
    n = pairs.n_genes
    rows = np.repeat(np.arange(n, dtype=np.int64), np.diff(pairs.indptr))[candidates]
    columns = pairs.indices[candidates].astype(np.int64)
    order = np.lexsort((columns, -magnitude[candidates], rows))
    starts = np.searchsorted(rows, np.arange(n))
    rank = np.arange(len(rows)) - starts[rows[order]]
    kept = np.zeros(len(rows), dtype=np.bool_)
    kept[order[rank < max_degree]] = True
    # Entries are in (row, column) order, so sorting by (column, row) pairs each one with its reverse.
    kept |= kept[np.lexsort((rows, columns))]
    result = np.zeros(len(candidates), dtype=np.bool_)
    result[candidates] = kept
    return result


def _explained(pairs: PairTable, mean_degree: int) -> NDArray[np.bool_]:
    """Mark the entries whose z the shared axes explain best; two entries per pair, so d per gene are d N entries."""
    explained = np.sign(pairs.z) * shared_part(pairs)
    wanted = min(mean_degree * pairs.n_genes, len(explained))
    if wanted == 0:
        return np.zeros(0, dtype=np.bool_)
    weakest = np.partition(explained, len(explained) - wanted)[len(explained) - wanted]
    result: NDArray[np.bool_] = (explained >= weakest) & (explained > 0.0)
    return result


def _refuse_empty(pairs: PairTable, magnitude: NDArray[np.float64], cutoff: float, config: EdgeConfig) -> None:
    if len(magnitude):
        largest = f"the largest stored abs(z) is {magnitude.max():.4g}"
    elif pairs.n_tests:
        last = int(np.flatnonzero(pairs.histogram)[-1])
        largest = f"the largest abs(z) is below {(last + 1) * BIN_WIDTH:.4g}"
    else:
        largest = "no pair has a finite z"
    if config.rule == "shared_axes" and len(magnitude):
        msg = "rule `shared_axes` leaves a graph without edges: no axis of the stored z stands out from chance"
        raise NoEdgesError(msg, code="E270", where="edges", fix="use rule `default`, more genes or more cells")
    kind = " of positive sign" if config.sign == "positive" else ""
    needs = f"it needs a pair{kind} with abs(z) >= {cutoff:.4g}"
    if np.isinf(cutoff):
        needs = f"no pair{kind} passes a false discovery rate of {config.fdr:g}"
    if config.rule == "min_abs_est":
        needs += f" and abs(estimate) >= {config.min_abs_est:.4g}"
        accepted = np.abs(pairs.estimate[magnitude >= cutoff])
        if len(accepted):
            largest = f"the largest abs(estimate) of these is {accepted.max():.4g}"
    msg = f"rule `{config.rule}` leaves a graph without edges: {needs}, {largest}"
    raise NoEdgesError(msg, code="E270", where="edges", fix="use a looser rule, more genes or more cells")
