"""The same with numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def counts(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.int32],
    keep: NDArray[np.bool_],
    small: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Count small ones, collect keys of the others."""
    kept = np.repeat(keep, np.diff(indptr))
    genes, values = indices[kept].astype(np.int64), data[kept]
    below = values < small.shape[1]
    np.add.at(small, (genes[below], values[below]), 1)
    large: NDArray[np.int64] = (genes[~below] << 32) + values[~below]
    return large
