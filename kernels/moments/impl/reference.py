"""The sums as scipy writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


def moments(
    block: csr_matrix, basis: NDArray[np.float64], m1: NDArray[np.float64], m2: NDArray[np.float64] | None
) -> None:
    """Add the moments of one block by sparse products."""
    x = block.astype(np.float64)
    m1 += x.T @ basis
    if m2 is not None:
        m2 += (x.multiply(x) - x).T @ basis
