"""Retrieval of the same gene in another dataset.

The query is a gene of one dataset, the candidates are *all* genes of the other dataset, the target is the same gene
there. Ties are counted as if broken at random: scores are expectations, so that a constant similarity gives exactly
the chance level and no model gains from equal values.

Legend: Q queries, N candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from musegnn.evaluation.dataset_pairs import PAIR_GROUPS, pair_group, shared_genes
from musegnn.evaluation.metrics import mean_of_defined
from musegnn.ranking import chance_level, retrieval_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from musegnn.evaluation.dataset_pairs import PairGroup
    from musegnn.graph import GraphData

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Similarity = Callable[[GraphData, GraphData], NDArray[np.floating]]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryScores:
    """Scores of one set of shared genes of one pair of datasets, averaged over both directions.

    Attributes
    ----------
    key
        Keys of the genes, shape (Q,), unicode.
    reciprocal_rank, recall
        Expected reciprocal rank and recall at 10 of each gene, shape (Q,), float64.
    chance_mrr, chance_recall
        Chance levels, mean of the directions and genes; nan without genes.
    """

    key: NDArray[np.str_]
    reciprocal_rank: Floats
    recall: Floats
    chance_mrr: float
    chance_recall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRetrieval:
    """Retrieval between two datasets.

    Attributes
    ----------
    held_out
        Scores of genes that no loss between datasets has seen.
    anchors
        Scores of the other shared genes, which training aligns: high values may be memory.
    """

    first: str
    second: str
    group: PairGroup
    held_out: QueryScores
    anchors: QueryScores


def retrieve_pair(a: GraphData, b: GraphData, similarity: NDArray[np.floating]) -> PairRetrieval:
    """Retrieve the shared genes of two datasets in each other, by the similarity of all their genes, (N_a, N_b).

    Raises
    ------
    ValueError
        When the similarity has another shape or is not finite.
    """
    if similarity.shape != (a.n_genes, b.n_genes) or not np.isfinite(similarity).all():
        msg = (
            f"{a.name}, {b.name}: expected a finite similarity of shape ({a.n_genes}, {b.n_genes}), "
            f"got shape {similarity.shape} with {np.count_nonzero(~np.isfinite(similarity))} values not finite"
        )
        raise ValueError(msg)
    in_a, in_b = shared = shared_genes(a, b)
    forward = retrieval_scores(similarity[in_a], in_b)
    backward = retrieval_scores(similarity.T[in_b], in_a)
    chance = np.mean([chance_level(b.n_genes), chance_level(a.n_genes)], axis=0)
    return pair_retrieval(a, b, shared, forward, backward, np.tile(chance, (len(in_a), 1)))


def pair_retrieval(
    a: GraphData,
    b: GraphData,
    genes: tuple[Ints, Ints],
    forward: tuple[Floats, Floats],
    backward: tuple[Floats, Floats],
    chance: Floats,
) -> PairRetrieval:
    """Average the scores of both directions, separately for held-out genes and anchors.

    Parameters
    ----------
    genes
        Positions in `a` and in `b` of Q genes that both have, each shape (Q,), as of
        :func:`musegnn.evaluation.dataset_pairs.shared_genes`.
    forward, backward
        Expected reciprocal ranks and recalls of their queries of `a` and of `b`, each shape (Q,); nan in one direction
        where a query was not asked.
    chance
        Their chance levels, mean of both directions, shape (Q, 2).
    """
    in_a, in_b = genes
    held_out = ~(a.trainable[in_a] & b.trainable[in_b])
    reciprocal, recall = (
        np.where(np.isnan(f), r, np.where(np.isnan(r), f, (f + r) / 2)) for f, r in zip(forward, backward, strict=True)
    )

    def scores(chosen: NDArray[np.bool_]) -> QueryScores:
        return QueryScores(
            key=a.keys[in_a[chosen]],
            reciprocal_rank=reciprocal[chosen],
            recall=recall[chosen],
            chance_mrr=mean_of_defined(chance[chosen, 0]),
            chance_recall=mean_of_defined(chance[chosen, 1]),
        )

    return PairRetrieval(
        first=a.name, second=b.name, group=pair_group(a, b), held_out=scores(held_out), anchors=scores(~held_out)
    )


def retrieve_all(
    graphs: Sequence[GraphData], similarity: Similarity, pairs: Iterable[tuple[int, int]] | None = None
) -> list[PairRetrieval]:
    """Retrieve shared genes between pairs of datasets; ``None``: every two, in the order (0, 1), (0, 2), ...

    `similarity` compares all genes of two datasets, (N_a, N_b). Pairs without shared genes have no queries.
    """
    chosen = combinations(range(len(graphs)), 2) if pairs is None else pairs
    return [retrieve_pair(graphs[i], graphs[j], np.asarray(similarity(graphs[i], graphs[j]))) for i, j in chosen]


def summarize_pairs(pairs: Sequence[PairRetrieval], *, anchors: bool = False) -> dict[str, dict[str, float]]:
    """Average retrieval of held-out genes, or of `anchors`, over pairs of datasets: all together and by group.

    Every pair with at least one query counts once, however many genes it shares.

    Returns
    -------
    dict
        From ``overall`` and each group to ``mrr``, ``recall``, ``chance_mrr``, ``chance_recall``, ``mrr_by_query``
        (every query counts once instead; nan when no pair of the group has queries), ``n_pairs`` and ``n_queries``.
    """
    result = {}
    for group in ("overall", *PAIR_GROUPS):
        chosen = [p for p in pairs if group in ("overall", p.group)]
        scores = [s for s in (p.anchors if anchors else p.held_out for p in chosen) if len(s.key)]
        values = np.array(
            [(s.reciprocal_rank.mean(), s.recall.mean(), s.chance_mrr, s.chance_recall) for s in scores]
        ).reshape(-1, 4)
        means = values.mean(axis=0) if len(values) else np.full(4, np.nan)
        result[group] = {
            **dict(zip(("mrr", "recall", "chance_mrr", "chance_recall"), map(float, means), strict=True)),
            "mrr_by_query": float(np.concatenate([s.reciprocal_rank for s in scores]).mean()) if scores else np.nan,
            "n_pairs": len(scores),
            "n_queries": sum(len(s.key) for s in scores),
        }
    return result
