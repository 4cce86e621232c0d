"""One dataset as training sees it: its graph without what is held out, and its node features.

Legend: N genes, R profile columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.coexpression.edges import EdgeSet


@dataclass(frozen=True, kw_only=True)
class GraphData:
    """The part of a dataset that every process needs, whoever owns the dataset.

    Attributes
    ----------
    keys, trainable
        Unique gene keys, shape (N,), and whether each gene is not held out, bool.
    edges
        Training edges.
    masked_rows, masked_columns
        Pairs that the reconstruction loss leaves out (each unordered pair once), int64.
    """

    name: str
    modality: str
    tissue: str
    species: str
    keys: NDArray[np.str_]
    trainable: NDArray[np.bool_]
    edges: EdgeSet
    masked_rows: NDArray[np.int64]
    masked_columns: NDArray[np.int64]

    @property
    def n_genes(self) -> int:
        """Number of genes N."""
        return len(self.keys)

    @cached_property
    def positive(self) -> sparse.csr_array:
        """Positive edges to trainable genes, shape (N, N), bool."""
        keep = (self.edges.z > 0) & self.trainable[self.edges.indices]
        entries = (keep[keep], (self.edges.rows[keep], self.edges.indices[keep]))
        return sparse.csr_array(entries, shape=(self.n_genes, self.n_genes))

    @property
    def has_positive(self) -> NDArray[np.bool_]:
        """Genes with a positive trainable neighbour, shape (N,)."""
        found: NDArray[np.bool_] = np.diff(self.positive.indptr) > 0
        return found

    def label(self, attribute: str) -> str:
        """Return modality, tissue or species by its name."""
        return {"modality": self.modality, "tissue": self.tissue, "species": self.species}[attribute]
