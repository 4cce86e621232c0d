"""What the store holds of one dataset, as plain typed arrays.

Legend: G genes, P stored pair entries (both directions), R profile columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneTable:
    """The selected genes of one dataset, in the order of its graph.

    Attributes
    ----------
    gene
        Names by which genes are matched between datasets, unique, shape (G,), unicode.
    gene_id
        Identifiers as in the input (equal to `gene` where the input has none), shape (G,), unicode.
    mean, variance
        Of the raw counts over the cells used, variance with ddof 1, shape (G,), float64.
    n_cells
        Cells in which the gene is detected, shape (G,), int64.
    mu, sigma
        CS-CORE mean and variance of the underlying expression (relative to depth), shape (G,), float64.
    score
        Selection score: residual variance (larger is better) or adjusted p-value (smaller), shape (G,), float64.
    certainty
        Agreement of two halves of the cells on the co-expression of each gene, in [0, 1], shape (G,), float32; ``None``
        in stores of earlier versions.
    """

    gene: NDArray[np.str_]
    gene_id: NDArray[np.str_]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    n_cells: NDArray[np.int64]
    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    score: NDArray[np.float64]
    certainty: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Count the genes."""
        return len(self.gene)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTable:
    """All gene pairs with ``abs(z) >= z_store`` as a symmetric CSR matrix without diagonal.

    Attributes
    ----------
    indptr
        Row pointers, shape (G + 1,), int64.
    indices
        Columns, ascending within a row, shape (P,), int32.
    z
        Test statistic of CS-CORE, shape (P,), float32.
    estimate
        Co-expression estimate in [-1, 1], 0 where a variance estimate is not positive, shape (P,), float32.
    n_tests
        Unordered pairs tested (those with a finite z).
    z_store
        The bound below which pairs are not stored.
    histogram
        Tested unordered pairs by ``abs(z)`` in bins of width 0.05 from 0; the last bin is open, shape (801,), int64.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    z: NDArray[np.float32]
    estimate: NDArray[np.float32]
    n_tests: int
    z_store: float
    histogram: NDArray[np.int64]

    @property
    def n_genes(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRecord:
    """One dataset as stored: genes, pairs, profile and how they came to be.

    Attributes
    ----------
    name, modality, tissue, species, condition
        As in the atlas file.
    n_cells
        Cells used (after quality control).
    genes, pairs
        Selected genes and their co-expression.
    profile
        Residual profile: rows are genes; ``profile @ profile.T`` equals the Gram matrix of the centred, clipped
        sctransform residuals. Shape (G, R), float32, R <= G (``gram``) or R = n_cells (``full``).
    report
        What was dropped and why, warnings, parameters estimated: JSON values only.
    provenance
        Input files with sha256 and size, parameters, versions: JSON values only, the same for every equal build.
    """

    name: str
    modality: str
    tissue: str
    species: str
    condition: str | None
    n_cells: int
    genes: GeneTable
    pairs: PairTable
    profile: NDArray[np.float32]
    report: dict[str, Any] = field(default_factory=dict)  # JSON
    provenance: dict[str, Any] = field(default_factory=dict)  # JSON
