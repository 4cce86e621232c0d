"""Two datasets side by side: how much they differ, and the genes that both have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.graph import GraphData

PairGroup = Literal["within_tissue", "across_tissue", "across_modality", "across_species"]
PAIR_GROUPS: tuple[PairGroup, ...] = get_args(PairGroup)


def pair_group(a: GraphData, b: GraphData) -> PairGroup:
    """Return the group of a pair of datasets: the hardest difference between the two.

    ``across_species`` when the species differ; else ``across_modality`` when the modalities differ; else
    ``across_tissue`` when the tissues differ; else ``within_tissue``.
    """
    if a.species != b.species:
        return "across_species"
    if a.modality != b.modality:
        return "across_modality"
    return "across_tissue" if a.tissue != b.tissue else "within_tissue"


def shared_genes(a: GraphData, b: GraphData) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions in `a` and in `b` of the genes in both, in ascending order of the key."""
    _, in_a, in_b = np.intersect1d(a.keys, b.keys, assume_unique=True, return_indices=True)
    return in_a.astype(np.int64), in_b.astype(np.int64)


def visible_genes(a: GraphData, b: GraphData) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return :func:`shared_genes` without held-out genes: those that training may align."""
    in_a, in_b = shared_genes(a, b)
    keep = a.trainable[in_a] & b.trainable[in_b]
    return in_a[keep], in_b[keep]
