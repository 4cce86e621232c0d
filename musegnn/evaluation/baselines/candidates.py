"""Models as the evaluation sees them, and the baselines that need no training.

Legend: T datasets, N genes, d dimensions, V anchor genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musegnn.evaluation.baselines import alignment
from musegnn.evaluation.joint import retrieve_jointly
from musegnn.evaluation.metrics import of_each
from musegnn.evaluation.retrieval import summarize_pairs
from musegnn.model.relational_features import anchor_genes, relations
from musegnn.vectors import unit_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from musegnn.data_store.records import DatasetRecord
    from musegnn.evaluation.edge_prediction import PairScore
    from musegnn.evaluation.retrieval import Similarity
    from musegnn.graph import GraphData

    Floats = NDArray[np.float64]

PCA_DIMS = (16, 32, 64, 128)
PAIRWISE_DIM = 32
"""Of ``PCA_DIMS`` the best in most groups of `python -m benchmarks quality`, which shows them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model as the evaluation sees it; what a model cannot do is None.

    Attributes
    ----------
    description
        One sentence for people.
    similarity
        Similarity of all genes of two datasets, see :mod:`musegnn.evaluation.retrieval`.
    vectors
        One joint space: vectors by dataset name, each shape (N, d).
    decoder
        Score of gene pairs, by dataset name.
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
    """Return the candidate of vectors (N, d) by dataset name in one joint space, compared by cosine."""
    unit = {name: unit_rows(x) for name, x in vectors.items()}

    def cosine(a: GraphData, b: GraphData) -> NDArray[np.float64]:
        return unit[a.name] @ unit[b.name].T

    return Candidate(description=description, similarity=cosine, vectors=vectors, decoder=decoder)


def baseline_candidates(
    graphs: Sequence[GraphData],
    *,
    profiles: Mapping[str, NDArray[np.floating]],
    estimates: Mapping[str, csr_matrix],
    statistics: Mapping[str, csr_matrix],
    mean_counts: Mapping[str, NDArray[np.floating]],
    dims: Sequence[int] = PCA_DIMS,
    queries: NDArray[np.bool_] | None = None,
) -> dict[str, Candidate]:
    """Return the baselines that need no training, see :mod:`musegnn.evaluation.baselines.alignment`.

    Parameters
    ----------
    profiles
        Residual profiles by dataset name, rows are genes.
    estimates, statistics
        Co-expression estimates and test statistics that training may see, by dataset name, symmetric, shape (N, N).
    mean_counts
        Mean count of each gene by dataset name, shape (N,).
    dims
        Numbers of principal components to choose from.
    queries
        Pooled rows by which they are chosen, shape (n,); ``None``: all.
    """
    found = of_each(lambda k: alignment.pca_vectors(profiles[graphs[k].name], max(*dims, PAIRWISE_DIM)), len(graphs))
    components = {t.name: x for t, x in zip(graphs, found, strict=True)}
    seen = "the shared genes that training may see"
    dim, aligned = best_alignment(graphs, components, dims, queries=queries)
    pairwise = {name: x[:, :PAIRWISE_DIM] for name, x in components.items()}
    return {
        "pca_procrustes": vector_candidate(
            f"{dim} principal components of each dataset's residual profile, all datasets rotated into one space by "
            f"generalised Procrustes on {seen}; of {', '.join(map(str, dims))} dimensions those with the largest joint "
            "MRR of held-out genes, a choice that favours this baseline",
            aligned,
        ),
        "pca_pairwise": Candidate(
            description=f"{PAIRWISE_DIM} such components, a Procrustes rotation for each pair of datasets alone on "
            f"{seen}",
            similarity=lambda a, b: alignment.aligned_similarity(a, b, pairwise[a.name], pairwise[b.name]),
        ),
        "coexpression_profile": Candidate(
            description=f"cosine between rows of co-expression estimates with {seen}",
            similarity=lambda a, b: alignment.coexpression_similarity(a, b, estimates),
        ),
        "coexpression_z": Candidate(
            description=f"cosine between rows of co-expression test statistics with {seen}",
            similarity=lambda a, b: alignment.coexpression_similarity(a, b, statistics),
        ),
        "expression_level": Candidate(
            description="closeness in rank of mean expression alone: a trivial predictor",
            similarity=lambda a, b: alignment.expression_similarity(a, b, mean_counts),
        ),
    }


def best_alignment(
    graphs: Sequence[GraphData],
    components: Mapping[str, Floats],
    dims: Sequence[int],
    *,
    queries: NDArray[np.bool_] | None = None,
) -> tuple[int, dict[str, Floats]]:
    """Return the number of aligned components with the largest joint MRR of held-out genes, and the aligned vectors.

    `components` (N, d) by dataset name have at least as many columns as the largest of `dims`; `queries` are as of
    :func:`musegnn.evaluation.joint.retrieve_jointly`. Where no gene is held out, the first of `dims` is taken.
    """

    def align(k: int) -> dict[str, Floats]:
        return alignment.consensus_alignment(graphs, {name: x[:, : dims[k]] for name, x in components.items()})

    spaces = of_each(align, len(dims))
    held_out = ~np.concatenate([t.trainable for t in graphs])
    asked = held_out if queries is None else held_out & queries
    scores = [summarize_pairs(retrieve_jointly(graphs, space, queries=asked))["overall"]["mrr"] for space in spaces]
    best = int(np.argmax(np.nan_to_num(scores)))
    return dims[best], spaces[best]


def relational_vectors(
    graphs: Sequence[GraphData], records: Mapping[str, DatasetRecord]
) -> dict[str, NDArray[np.float32]]:
    """Return the relational features of all genes by dataset name, (N, 2V); 0 where a dataset lacks the anchor gene."""
    anchors = anchor_genes([g.keys[g.trainable] for g in graphs])
    found = {}
    for graph in graphs:
        record = records[graph.name]
        related = relations(record.pairs, record.profile, graph.held_out.all, graph.keys, anchors)
        found[graph.name] = np.zeros((graph.n_genes, 2 * len(anchors)), dtype=np.float32)
        found[graph.name][:, related.columns] = related.values
    return found
