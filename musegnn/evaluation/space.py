"""The shape of a cloud of vectors: spread out or collapsed.

Legend: n vectors, d dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.vectors import unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["effective_rank", "mean_cosine", "unit_rows"]


def effective_rank(x: NDArray[np.floating]) -> float:
    """Compute how many dimensions a cloud really uses.

    ``exp(-sum_i p_i ln p_i)`` with ``p_i = s_i^2 / sum_k s_k^2`` and s the singular values of the centred vectors:
    d for an isotropic cloud, 1 for a line.

    Parameters
    ----------
    x
        Shape (n, d).

    Returns
    -------
    float
        Between 1 and min(n - 1, d); nan when all vectors are equal.

    References
    ----------
    Roy and Vetterli, "The effective rank", EUSIPCO 2007, with squared singular values (shares of variance).
    """
    x64 = np.asarray(x, dtype=np.float64)
    centred = x64 - x64.mean(axis=0)
    power = np.linalg.svd(centred, compute_uv=False) ** 2
    rounding = (np.finfo(np.float64).eps * np.abs(x64).max(initial=0.0)) ** 2 * x64.size
    if power.sum() <= rounding:
        return float("nan")
    share = power / power.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def mean_cosine(x: NDArray[np.floating]) -> float:
    """Average the cosine over all pairs of different rows, without forming the pairs.

    With unit rows u: ``(|sum u|^2 - sum |u|^2) / (n (n - 1))``. Near 1 for a collapsed space.

    Parameters
    ----------
    x
        Shape (n, d).

    Returns
    -------
    float
        Between -1 and 1; nan for fewer than two rows.
    """
    u = unit_rows(x)
    n = len(u)
    if n < 2:
        return float("nan")
    total = u.sum(axis=0)
    return float((total @ total - (u * u).sum()) / (n * (n - 1)))
