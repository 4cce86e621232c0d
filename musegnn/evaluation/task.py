"""What is asked of every model: the genes, graphs and hold-outs of each dataset, as plain arrays.

Legend: N genes of a dataset, E directed edges, K held-out edges, J held-out non-edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PairGroup = Literal["within_tissue", "across_tissue", "across_modality", "across_species"]
PAIR_GROUPS: tuple[PairGroup, ...] = get_args(PairGroup)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutPairs:
    """Gene pairs of one dataset that training did not see.

    Attributes
    ----------
    rows, cols
        Ends of the held-out edges, each unordered pair once, shape (K,), integers.
    sign
        Sign of each held-out edge, +1 or -1, shape (K,), integers.
    other_rows, other_cols
        Ends of the non-edges they are compared with, shape (J,), integers.
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    sign: NDArray[np.int8]
    other_rows: NDArray[np.int64]
    other_cols: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetTask:
    """One dataset as the evaluation sees it.

    Attributes
    ----------
    gene_key
        Keys that are equal for the same gene of different datasets, unique within the dataset, shape (N,), unicode.
    held_out_gene
        Genes that took no part in any loss between datasets, shape (N,), bool. Equal keys agree in all datasets.
    indptr, indices
        Training graph: symmetric CSR without self-loops, shapes (N + 1,) and (E,).
    """

    name: str
    modality: str
    tissue: str
    species: str
    gene_key: NDArray[np.str_]
    held_out_gene: NDArray[np.bool_]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    pairs: HeldOutPairs

    def __post_init__(self) -> None:
        """Refuse arrays that do not describe one set of genes."""
        n = len(self.gene_key)
        if len(np.unique(self.gene_key)) != n:
            msg = f"{self.name}: gene_key must be unique within a dataset"
            raise ValueError(msg)
        if len(self.held_out_gene) != n or len(self.indptr) != n + 1:
            msg = (
                f"{self.name}: expected held_out_gene ({n},) and indptr ({n + 1},) for {n} genes, "
                f"got ({len(self.held_out_gene)},) and ({len(self.indptr)},)"
            )
            raise ValueError(msg)

    @property
    def n_genes(self) -> int:
        """Number of genes N."""
        return len(self.gene_key)


def pair_group(a: DatasetTask, b: DatasetTask) -> PairGroup:
    """Return the group of a pair of datasets: the hardest difference between the two.

    ``across_species`` when the species differ; else ``across_modality`` when the modalities differ; else
    ``across_tissue`` when the tissues differ; else ``within_tissue``.
    """
    if a.species != b.species:
        return "across_species"
    if a.modality != b.modality:
        return "across_modality"
    return "across_tissue" if a.tissue != b.tissue else "within_tissue"


def shared_genes(a: DatasetTask, b: DatasetTask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions in `a` and in `b` of the genes in both, in ascending order of the key."""
    _, in_a, in_b = np.intersect1d(a.gene_key, b.gene_key, assume_unique=True, return_indices=True)
    return in_a.astype(np.int64), in_b.astype(np.int64)


def visible_genes(a: DatasetTask, b: DatasetTask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return :func:`shared_genes` without held-out genes: those that training may align."""
    in_a, in_b = shared_genes(a, b)
    keep = ~(a.held_out_gene[in_a] | b.held_out_gene[in_b])
    return in_a[keep], in_b[keep]
