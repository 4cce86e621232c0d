"""Expected scores of the right answer in a ranking, and what chance gives.

Legend: Q queries, N candidates, M bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

TOP_K = 10
BINS = 2048


def _harmonic(n: int) -> Floats:
    """Return H_0 .. H_n."""
    result: Floats = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, n + 1))])
    return result


def retrieval_scores(
    similarity: NDArray[np.floating], target: NDArray[np.integer], *, k: int = TOP_K
) -> tuple[Floats, Floats]:
    """Return the expected reciprocal rank and the expected recall at `k` of each query's target, (Q,) float64 each.

    With g candidates strictly above the target and e candidates (the target included) equal to it, the rank is
    uniform on g + 1 .. g + e, so the expected reciprocal rank is ``(H_{g+e} - H_g) / e`` and the probability to be
    among the first k is ``min(max(k - g, 0), e) / e``.

    Parameters
    ----------
    similarity, target
        Finite similarity of queries to candidates, shape (Q, N), and column of each right answer, shape (Q,).
    """
    own = np.take_along_axis(similarity, np.asarray(target, dtype=np.int64)[:, None], axis=1)
    above = np.count_nonzero(similarity > own, axis=1)
    equal = np.count_nonzero(similarity == own, axis=1)
    return expected_scores(above, equal, k=k)


def expected_scores(above: NDArray[np.integer], equal: NDArray[np.integer], *, k: int = TOP_K) -> tuple[Floats, Floats]:
    """Compute :func:`retrieval_scores` from the numbers of candidates above and equal to the target (included)."""
    harmonic = _harmonic(int((above + equal).max(initial=0)))
    reciprocal = (harmonic[above + equal] - harmonic[above]) / equal
    recall = np.minimum(np.maximum(k - above, 0), equal) / equal
    return reciprocal, recall


def chance_level(n_candidates: int, *, k: int = TOP_K) -> tuple[float, float]:
    """Compute the expected mean reciprocal rank ``H_N / N`` and recall ``min(k, N) / N`` of random order."""
    return float(_harmonic(n_candidates)[-1] / n_candidates), min(k, n_candidates) / n_candidates


@njit(nogil=True, cache=True)
def count_at_least(
    values: NDArray[np.floating], row: NDArray[np.int64], bound: NDArray[np.floating]
) -> NDArray[np.int64]:
    """Count, for each bound, the values of its row of a matrix that are not below it, (M,) int64.

    Values are sorted into bins between the smallest and the largest bound of their row, so that only those in the bin
    of a bound are compared with it: one pass, where sorting each row takes many.

    Parameters
    ----------
    values
        Values, shape (Q, N), -inf among them but not nan.
    row, bound
        Row of each bound, ascending, and finite bounds, shape (M,).
    """
    result = np.zeros(len(bound), dtype=np.int64)
    n_in, behind = np.empty(BINS, np.int64), np.empty(BINS + 1, np.int64)
    has_bound = np.empty(BINS, np.bool_)
    close, close_bin = np.empty(values.shape[1], values.dtype), np.empty(values.shape[1], np.int64)
    first = 0
    while first < len(bound):
        last = first
        while last < len(bound) and row[last] == row[first]:
            last += 1
        low, high = bound[first:last].min(), bound[first:last].max()
        scale = (BINS - 1) / (high - low) if high > low else 0.0
        n_in[:] = 0
        has_bound[:] = False
        for t in bound[first:last]:
            has_bound[int((t - low) * scale)] = True
        above = n_close = 0
        for s in values[row[first]]:
            if s < low:
                continue
            if s > high:
                above += 1
                continue
            at = int((s - low) * scale)  # not above the bin of any larger value
            n_in[at] += 1
            if has_bound[at]:
                close[n_close], close_bin[n_close] = s, at
                n_close += 1
        behind[BINS] = above
        for at in range(BINS - 1, -1, -1):
            behind[at] = behind[at + 1] + n_in[at]
        for m in range(first, last):
            at = int((bound[m] - low) * scale)
            count = behind[at + 1]
            for c in range(n_close):
                count += close_bin[c] == at and close[c] >= bound[m]
            result[m] = count
        first = last
    return result
