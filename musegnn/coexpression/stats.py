"""Per-gene and per-cell sums of one pass over the counts.

Legend: C cells, G genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneStats:
    """Moments of the raw counts x of each gene over the cells used.

    Attributes
    ----------
    n_cells
        Number of cells C.
    total
        Sum of x, shape (G,), float64.
    total_squares
        Sum of x^2, shape (G,), float64.
    total_log1p
        Sum of ln(1 + x), shape (G,), float64.
    n_detected
        Cells with x > 0, shape (G,), int64.
    """

    n_cells: int
    total: NDArray[np.float64]
    total_squares: NDArray[np.float64]
    total_log1p: NDArray[np.float64]
    n_detected: NDArray[np.int64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Arithmetic mean of x."""
        return self.total / self.n_cells

    @property
    def variance(self) -> NDArray[np.float64]:
        """Variance of x with ddof 1."""
        n = self.n_cells
        return (self.total_squares - self.total * self.total / n) / (n - 1)

    @property
    def geometric_mean(self) -> NDArray[np.float64]:
        """Return ``exp(mean ln(x + 1)) - 1``, as sctransform defines it (gmean_eps 1)."""
        import numpy as np

        result: NDArray[np.float64] = np.expm1(self.total_log1p / self.n_cells)
        return result
