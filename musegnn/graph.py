"""The edges of a graph, and one dataset as training sees it: its graph without what is held out.

Legend: N genes, E directed edges, P held-out edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSet:
    """The edges of one graph: symmetric, sorted within rows, without self-loops.

    Attributes
    ----------
    indptr, indices
        CSR row pointers, shape (N + 1,), int64, and columns, ascending within a row, shape (E,), int32.
    z, estimate
        Test statistic, and co-expression estimate in [-1, 1], shape (E,), float32.
    features
        Edge features of the model, shape (E, 2), float32, see :func:`musegnn.coexpression.edges.edge_features`.
    cutoff
        Smallest ``abs(z)`` that the rule accepts; ``top_k`` and ``min_abs_est`` ask for more.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    z: NDArray[np.float32]
    estimate: NDArray[np.float32]
    features: NDArray[np.float32]
    cutoff: float

    @property
    def n_genes(self) -> int:
        """Number of genes N."""
        return len(self.indptr) - 1

    @property
    def n_edges(self) -> int:
        """Number of directed entries E, twice the number of gene pairs."""
        return len(self.indices)

    @property
    def density(self) -> float:
        """Share of the possible pairs that are edges."""
        n = self.n_genes
        return self.n_edges / (n * (n - 1)) if n > 1 else 0.0

    @property
    def negative_share(self) -> float:
        """Share of the edges with negative z; 0 for a graph without edges."""
        return float(np.mean(self.z < 0)) if self.n_edges else 0.0

    @property
    def mean_degree(self) -> float:
        """Mean number of neighbours of a gene."""
        return self.n_edges / self.n_genes if self.n_genes else 0.0

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each entry, shape (E,)."""
        return np.repeat(np.arange(self.n_genes, dtype=np.int64), np.diff(self.indptr))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutPairs:
    """Gene pairs of one dataset that training does not see.

    Attributes
    ----------
    rows, columns
        Held-out edges as unordered pairs with ``row < column``, ascending, shape (P,), int64.
    sign
        Sign of z of each held-out edge, shape (P,), int8.
    negative_rows, negative_columns
        Pairs without an edge, matched in degree, as many as held-out edges (fewer only when the graph has fewer
        non-edges), ``row < column``, int64.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    sign: NDArray[np.int8]
    negative_rows: NDArray[np.int64]
    negative_columns: NDArray[np.int64]

    @property
    def all(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Both genes of each held-out edge, then of each non-edge; the reconstruction loss leaves them out."""
        rows = np.concatenate([self.rows, self.negative_rows])
        return rows, np.concatenate([self.columns, self.negative_columns])


@dataclass(frozen=True, kw_only=True)
class GraphData:
    """The part of a dataset that every process needs, whoever owns the dataset.

    Attributes
    ----------
    keys, trainable
        Gene keys, unique within the dataset, shape (N,), and whether each gene takes part in losses between datasets,
        bool; equal keys agree in all datasets.
    edges
        Training edges.
    held_out
        Pairs that training does not see.
    """

    name: str
    modality: str
    tissue: str
    species: str
    keys: NDArray[np.str_]
    trainable: NDArray[np.bool_]
    edges: EdgeSet
    held_out: HeldOutPairs

    def __post_init__(self) -> None:
        """Refuse arrays that do not describe one set of genes."""
        sizes = (len(np.unique(self.keys)), len(self.trainable), self.edges.n_genes)
        if any(size != len(self.keys) for size in sizes):
            msg = f"{self.name}: {len(self.keys)} gene keys, of unique keys, `trainable` and rows of `edges` {sizes}"
            raise ValueError(msg)

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
