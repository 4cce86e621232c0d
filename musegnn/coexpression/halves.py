"""Certainty of each gene: how well two halves of the cells agree on its co-expression.

Every cell is in one of two halves, whose moments and Gram matrices are summed apart; the graph comes from their sum,
so that nothing is computed twice. With z_h the statistics of the pairs of a gene in half h, under the means and
variances of all cells,

    r = corr(z_1, z_2) over all other genes,    certainty = 2 r / (1 + r), at least 0

by Spearman and Brown: the correlation that the z of all cells would have with those of as many other cells.

Legend: N genes, R rows and C = N - start columns of a stripe.

References
----------
Spearman (1910) and Brown (1910), Br. J. Psychol. 3:271 and 3:296. Steele, Lea and Flood (2014), OOPSLA (SplitMix64).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.coexpression.cscore import ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.coexpression.cscore import PairStatistics

STEPS, LARGEST = 32.0, 2048.0
"""z is rounded to 1/32 and clipped: sums of up to 2^21 products are exact in float64, whatever their order."""


def in_first_half(position: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which cells are in the first half, by a hash of their positions in the source and nothing else."""
    x = (position.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    half: NDArray[np.bool_] = ((x ^ (x >> np.uint64(31))) & np.uint64(1)) == 0
    return half


def compare_halves(
    first: NDArray[np.float64], whole: NDArray[np.float64], statistics: Sequence[PairStatistics], start: int
) -> NDArray[np.float64]:
    """Sum over the pairs of a stripe, for both genes of each, what :func:`certainty` needs.

    Parameters
    ----------
    first, whole
        Gram matrices of the test in the first half and in all cells, for rows from `start` on, (R, C).
    statistics
        Statistics from the moments of either half.
    start
        First row of the stripe, a multiple of 64.

    Returns
    -------
    ndarray
        Number of pairs, and sums of z_1, z_2, z_1^2, z_2^2 and z_1 z_2, in units of 1/32, shape (6, N), float64.
        Those of several stripes add up without rounding.
    """
    n_genes = start + first.shape[1]
    sums = np.zeros((6, n_genes))
    for row in range(0, len(first), ROWS):
        part = first[row : row + ROWS, row:]
        rows, columns = slice(start + row, start + row + len(part)), slice(start + row, n_genes)
        z = [
            one.test(gram, rows, columns)
            for one, gram in zip(statistics, (part, whole[row : row + ROWS, row:] - part), strict=True)
        ]
        tested = np.triu(np.isfinite(z[0]) & np.isfinite(z[1]), 1)
        a, b = (np.where(tested, np.rint(STEPS * np.clip(each, -LARGEST, LARGEST)), 0.0) for each in z)
        for k, values in enumerate((tested.astype(np.float64), a, b, a * a, b * b, a * b)):
            sums[k, rows] += values.sum(axis=1)
            sums[k, columns] += values.sum(axis=0)
    return sums


def certainty(sums: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the certainty of genes, in [0, 1], from the sums of :func:`compare_halves`, shape (6, N).

    It is 0 for genes whose z do not vary, as of a gene that no pair is tested with.

    Examples
    --------
    >>> found = certainty(np.array([[4.0], [0.0], [0.0], [8.0], [2.0], [3.0]]))  # r = .75
    >>> round(float(found[0]), 4)
    0.8571
    """
    n = np.maximum(sums[0], 1.0)
    mean_a, mean_b = sums[1] / n, sums[2] / n
    spread = np.sqrt(np.maximum(sums[3] / n - mean_a**2, 0.0) * np.maximum(sums[4] / n - mean_b**2, 0.0))
    shared = sums[5] / n - mean_a * mean_b
    r = np.clip(np.divide(shared, spread, out=np.zeros_like(shared), where=spread > 0), 0.0, 1.0)
    result: NDArray[np.float32] = (2.0 * r / (1.0 + r)).astype(np.float32)
    return result
