"""Agreement of nearest genes between training seeds.

Legend: n pooled rows of all datasets, d dimensions, k neighbours.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from musegnn.vectors import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

NEIGHBORS = 10


def nearest_rows(vectors: Mapping[str, NDArray[np.floating]], *, k: int = NEIGHBORS) -> NDArray[np.int32]:
    """Return the k nearest other rows of each row of all datasets together, by cosine: positions, ascending, (n, k).

    Raises
    ------
    ValueError
        When there are not more than `k` rows.
    """
    rows = np.concatenate(list(vectors.values()))
    if len(rows) <= k:
        msg = f"expected more than {k} rows, got {len(rows)}"
        raise ValueError(msg)
    return np.sort(nearest(rows, k).index, axis=1)


def neighbor_stability(runs: Sequence[NDArray[np.int32]]) -> float:
    """Compute the mean Jaccard index of the neighbours of a row over all pairs of runs; nan for one run.

    About ``k / 2n`` by chance. `runs` are results of :func:`nearest_rows` for rows in the same order.
    """
    values = []
    for one, other in combinations(runs, 2):
        shared = np.array([len(np.intersect1d(a, b, assume_unique=True)) for a, b in zip(one, other, strict=True)])
        values.append(float(np.mean(shared / (2 * one.shape[1] - shared))))
    return float(np.mean(values)) if values else float("nan")
