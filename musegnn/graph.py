"""The edges of a graph, and one dataset as training sees it: its graph without what is held out.

Legend: N genes, E directed edges, P held-out edges.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from pathlib import Path

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
class Labels:
    """Name and labels of a dataset; `added` when it is placed beside trained ones."""

    name: str
    modality: str
    tissue: str
    species: str
    added: bool = False

    def label(self, attribute: str) -> str:
        """Return modality, tissue or species by its name."""
        return {"modality": self.modality, "tissue": self.tissue, "species": self.species}[attribute]


@dataclass(frozen=True, kw_only=True)
class GraphData(Labels):
    """The graph of a dataset as its owner trains on it.

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
    def neighbours(self) -> SignedNeighbours:
        """Signed edges between trainable genes."""
        edges = self.edges
        keep = self.trainable[edges.indices] & np.repeat(self.trainable, np.diff(edges.indptr))
        indptr = np.concatenate([[0], np.cumsum(keep)])[edges.indptr]
        return SignedNeighbours.of(indptr, edges.indices[keep], edges.z[keep] > 0)

    def as_partner(self) -> PartnerGraph:
        """Return what other processes need of the dataset."""
        labels = {field.name: getattr(self, field.name) for field in fields(Labels)}
        return PartnerGraph(**labels, keys=self.keys, trainable=self.trainable, neighbours=self.neighbours)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedNeighbours:
    """The edges between the trainable genes of a graph by their signs alone, in few bytes.

    Attributes
    ----------
    indptr, indices
        CSR row pointers, shape (N + 1,), int32, and columns, ascending within a row, shape (E,), uint16 or int32.
    is_positive
        Signs of the edges, packed 8 in a byte.
    """

    indptr: NDArray[np.int32]
    indices: NDArray[np.integer]
    is_positive: NDArray[np.uint8]

    @classmethod
    def of(
        cls, indptr: NDArray[np.integer], indices: NDArray[np.integer], is_positive: NDArray[np.bool_]
    ) -> SignedNeighbours:
        """Pack a graph."""
        small = len(indptr) <= np.iinfo(np.uint16).max
        return cls(
            indptr=indptr.astype(np.int32),
            indices=indices.astype(np.uint16 if small else np.int32),
            is_positive=np.packbits(is_positive),
        )

    @property
    def signs(self) -> NDArray[np.bool_]:
        """Whether each edge is positive, shape (E,)."""
        return np.unpackbits(self.is_positive, count=len(self.indices)).view(np.bool_)

    @property
    def positive(self) -> sparse.csr_array:
        """The positive edges, shape (N, N), bool."""
        n, keep = len(self.indptr) - 1, self.signs
        indptr = np.concatenate([np.zeros(1, np.int32), np.cumsum(keep, dtype=np.int32)])[self.indptr]
        return sparse.csr_array((keep[keep], self.indices[keep].astype(np.int32), indptr), shape=(n, n))


@dataclass(frozen=True, kw_only=True)
class PartnerGraph(Labels):
    """What the losses between datasets need of a graph, whoever owns it; attributes as of :class:`GraphData`."""

    keys: NDArray[np.str_]
    trainable: NDArray[np.bool_]
    neighbours: SignedNeighbours

    @property
    def n_genes(self) -> int:
        """Number of genes N."""
        return len(self.keys)


@dataclass(frozen=True, kw_only=True)
class PartnerFile(Labels):
    """A dataset of another process by its number of genes and the file that holds its :class:`PartnerGraph`."""

    n_genes: int
    path: Path


ComparedGraph: TypeAlias = GraphData | PartnerGraph
AtlasGraph: TypeAlias = ComparedGraph | PartnerFile
