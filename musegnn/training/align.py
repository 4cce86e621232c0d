"""Profiles of different datasets in common coordinates.

The cells of two datasets have nothing to do with one another, so neither have the coordinates of their profiles. The
leading principal components of all datasets are therefore rotated into one space on the genes that training may
compare, which is where a Procrustes alignment ends and where training starts.

Legend: N genes of a dataset, d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from musegnn.evaluation.baselines import consensus_alignment, pca_vectors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.training.data import GraphData


@dataclass(frozen=True, slots=True)
class _Genes:
    name: str
    gene_key: NDArray[np.str_]
    held_out_gene: NDArray[np.bool_]


def leading_components(profile: NDArray[np.float32], dim: int) -> NDArray[np.float64]:
    """Give the leading principal components of a profile.

    Parameters
    ----------
    profile
        Residual profile, shape (N, R).
    dim
        Number of components d.

    Returns
    -------
    numpy.ndarray
        Shape (N, d), float64.
    """
    with threadpool_limits(1, "blas"):  # the bits must not depend on the machine's number of cores
        return pca_vectors(profile, dim)


def align(graphs: Sequence[GraphData], components: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float32]]:
    """Rotate the leading components of all profiles into one space.

    Parameters
    ----------
    graphs
        All datasets. Only trainable genes that two datasets share decide the rotations.
    components
        See :func:`leading_components`, by name, shape (N, d).

    Returns
    -------
    dict
        By dataset name, unit rows in common coordinates (0 for a gene without variance), shape (N, d), float32.
    """
    genes = [_Genes(g.name, g.keys, ~g.trainable) for g in graphs]
    with threadpool_limits(1, "blas"):  # as above
        aligned = consensus_alignment(genes, dict(components))
    return {name: vectors.astype(np.float32) for name, vectors in aligned.items()}
