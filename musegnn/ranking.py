"""Expected scores of the right answer in a ranking, and what chance gives.

Legend: Q queries, N candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

TOP_K = 10


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
