"""Models as the evaluation sees them, and the rivals that need no training.

Legend: T datasets, N genes, d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from musegnn.evaluation import baselines
from musegnn.evaluation.space import unit_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from musegnn.evaluation.edges import PairScore
    from musegnn.evaluation.retrieval import Similarity
    from musegnn.evaluation.task import DatasetTask


PCA_DIM = 32
"""Of 16, 32, 64 and 128 the best in most groups of `python -m benchmarks quality`, which shows them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model as the evaluation sees it; what a model cannot do is None.

    Attributes
    ----------
    description
        One sentence for people.
    similarity
        Compares all genes of two datasets, see :mod:`musegnn.evaluation.retrieval`.
    vectors
        One joint space: vectors by dataset name, each shape (N, d).
    decoder
        By dataset name, a score of gene pairs.
    """

    description: str
    similarity: Similarity
    vectors: Mapping[str, NDArray[np.floating]] | None = None
    decoder: Callable[[str], PairScore] | None = None


def vector_candidate(
    description: str,
    vectors: Mapping[str, NDArray[np.floating]],
    *,
    decoder: Callable[[str], PairScore] | None = None,
) -> Candidate:
    """Make a candidate of vectors in one joint space, compared by cosine.

    Parameters
    ----------
    description
        One sentence for people.
    vectors
        By dataset name, each shape (N, d).
    decoder
        By dataset name, a score of gene pairs.
    """
    unit = {name: unit_rows(x) for name, x in vectors.items()}

    def cosine(a: DatasetTask, b: DatasetTask) -> NDArray[np.float64]:
        return unit[a.name] @ unit[b.name].T

    return Candidate(description=description, similarity=cosine, vectors=vectors, decoder=decoder)


def rival_candidates(
    tasks: Sequence[DatasetTask],
    *,
    profiles: Mapping[str, NDArray[np.floating]],
    estimates: Mapping[str, csr_matrix],
    statistics: Mapping[str, csr_matrix],
    mean_counts: Mapping[str, NDArray[np.floating]],
    dim: int = PCA_DIM,
) -> dict[str, Candidate]:
    """Make the rivals that need no training, see :mod:`musegnn.evaluation.baselines`.

    Parameters
    ----------
    tasks
        The datasets.
    profiles
        Residual profiles by dataset name, rows are genes.
    estimates, statistics
        Co-expression estimates and test statistics that training may see, by dataset name, symmetric, shape (N, N).
    mean_counts
        Mean count of each gene by dataset name, shape (N,).
    dim
        Number of principal components.

    Returns
    -------
    dict
        ``pca_procrustes``, ``pca_pairwise``, ``coexpression_profile``, ``coexpression_z`` and ``expression_level``.
    """
    components = {t.name: baselines.pca_vectors(profiles[t.name], dim) for t in tasks}
    seen = "the shared genes that training may see"
    return {
        "pca_procrustes": vector_candidate(
            f"{dim} principal components of each dataset's residual profile, all datasets rotated into one space by "
            f"generalised Procrustes on {seen}",
            baselines.consensus_alignment(tasks, components),
        ),
        "pca_pairwise": Candidate(
            description=f"the same components, a Procrustes rotation for each pair of datasets alone on {seen}",
            similarity=lambda a, b: baselines.aligned_similarity(a, b, components[a.name], components[b.name]),
        ),
        "coexpression_profile": Candidate(
            description=f"cosine between rows of co-expression estimates with {seen}",
            similarity=lambda a, b: baselines.coexpression_similarity(a, b, estimates),
        ),
        "coexpression_z": Candidate(
            description=f"cosine between rows of co-expression test statistics with {seen}",
            similarity=lambda a, b: baselines.coexpression_similarity(a, b, statistics),
        ),
        "expression_level": Candidate(
            description="closeness in rank of mean expression alone: a trivial predictor",
            similarity=lambda a, b: baselines.expression_similarity(a, b, mean_counts),
        ),
    }
