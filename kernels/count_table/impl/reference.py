"""The same with numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.kernels.validation import Block, Ints


def counts(block: Block, keep: NDArray[np.bool_], small: Ints) -> Ints:
    """Count small ones, collect keys of the others."""
    indptr, indices, data = block
    kept = np.repeat(keep, np.diff(indptr))
    genes, values = indices[kept].astype(np.int64), data[kept]
    below = values < small.shape[1]
    np.add.at(small, (genes[below], values[below]), 1)
    large: Ints = (genes[~below] << 32) + values[~below]
    return large
