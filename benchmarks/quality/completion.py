"""How well held-out edges can be told from what is left of the test statistics, with no vectors in between.

A control for the goal on held-out edges: it knows which pairs are missing, which vectors of genes do not.

Legend: N genes, k dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from musegnn.evaluation.edges import PairScore
    from musegnn.evaluation.task import HeldOutPairs

ITERATIONS = 4


def completed(statistics: csr_matrix, pairs: HeldOutPairs, *, dim: int) -> PairScore:
    """Complete the test statistics by a symmetric matrix of low rank, which scores pairs of genes.

    Held-out pairs, edges and non-edges alike, start at 0 and take the value of the approximation in each iteration
    (hard-impute: Mazumder, Hastie and Tibshirani, JMLR 11, 2010). Statistics z enter as ``sign(z) sqrt(abs(z))``.

    Parameters
    ----------
    statistics
        Test statistics without held-out edges, symmetric, (N, N).
    pairs
        What is held out.
    dim
        k, the rank.
    """
    z = statistics.toarray()
    rows, cols = np.concatenate([pairs.rows, pairs.other_rows]), np.concatenate([pairs.cols, pairs.other_cols])
    z[rows, cols] = z[cols, rows] = 0.0
    known = np.sign(z) * np.sqrt(np.abs(z))
    filled = known
    for _ in range(ITERATIONS):
        value, vector = np.linalg.eigh(filled)
        large = np.argsort(-np.abs(value))[:dim]
        low = (vector[:, large] * value[large]) @ vector[:, large].T
        filled = known.copy()
        filled[rows, cols] = filled[cols, rows] = (low[rows, cols] + low[cols, rows]) / 2
        np.fill_diagonal(filled, np.diag(low))

    def score(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = low[first, second]
        return found

    return score
