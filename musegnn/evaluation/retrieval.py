"""Retrieval of the same gene in another dataset.

The query is a gene of one dataset, the candidates are *all* genes of the other dataset, the target is the same gene
there. Ties are counted as if broken at random: scores are expectations, so that a constant similarity gives exactly
the chance level and no model gains from equal values.

Legend: Q queries, N candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musegnn.evaluation.metrics import mean_of_defined
from musegnn.evaluation.task import PAIR_GROUPS, pair_group, shared_genes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from musegnn.evaluation.task import DatasetTask, PairGroup

    Floats = NDArray[np.float64]
    Similarity = Callable[[DatasetTask, DatasetTask], NDArray[np.floating]]

TOP_K = 10


def _harmonic(n: int) -> Floats:
    """Return H_0 .. H_n."""
    result: Floats = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, n + 1))])
    return result


def retrieval_scores(
    similarity: NDArray[np.floating], target: NDArray[np.integer], *, k: int = TOP_K
) -> tuple[Floats, Floats]:
    """Score each query by the place of its target among the candidates.

    With g candidates strictly above the target and e candidates (the target included) equal to it, the rank is
    uniform on g + 1 .. g + e, so the expected reciprocal rank is ``(H_{g+e} - H_g) / e`` and the probability to be
    among the first k is ``min(max(k - g, 0), e) / e``.

    Parameters
    ----------
    similarity
        Of queries to candidates, shape (Q, N), finite.
    target
        Column of the right answer of each query, shape (Q,).
    k
        How many places count as found.

    Returns
    -------
    tuple of arrays
        Expected reciprocal rank and expected recall at `k`, each shape (Q,), float64.
    """
    own = np.take_along_axis(similarity, np.asarray(target, dtype=np.int64)[:, None], axis=1)
    above = np.count_nonzero(similarity > own, axis=1)
    equal = np.count_nonzero(similarity == own, axis=1)
    return expected_scores(above, equal, k=k)


def expected_scores(above: NDArray[np.integer], equal: NDArray[np.integer], *, k: int = TOP_K) -> tuple[Floats, Floats]:
    """Compute expected scores from counts of candidates, by the formula of :func:`retrieval_scores`.

    Parameters
    ----------
    above
        Number of candidates strictly above the target, any shape.
    equal
        Number of candidates equal to the target, itself included, same shape.
    k
        Number of places that count as found.

    Returns
    -------
    tuple of arrays
        Expected reciprocal rank and expected recall at `k`, float64.
    """
    harmonic = _harmonic(int((above + equal).max(initial=0)))
    reciprocal = (harmonic[above + equal] - harmonic[above]) / equal
    recall = np.minimum(np.maximum(k - above, 0), equal) / equal
    return reciprocal, recall


def chance_level(n_candidates: int, *, k: int = TOP_K) -> tuple[float, float]:
    """Compute what a similarity without information gives.

    Parameters
    ----------
    n_candidates
        Number of candidates N.
    k
        As in :func:`retrieval_scores`.

    Returns
    -------
    tuple of float
        Expected mean reciprocal rank ``H_N / N`` and recall ``min(k, N) / N``.
    """
    return float(_harmonic(n_candidates)[-1] / n_candidates), min(k, n_candidates) / n_candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryScores:
    """Scores of one set of shared genes of one pair of datasets, averaged over both directions.

    Attributes
    ----------
    key
        The genes asked for, shape (Q,), unicode.
    reciprocal_rank, recall
        Expected reciprocal rank and recall at 10, mean of the two directions, shape (Q,), float64.
    chance_mrr, chance_recall
        Chance levels, mean of the two directions and of the genes; nan without genes.
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
    first, second
        Names of the datasets.
    group
        See :func:`musegnn.evaluation.task.pair_group`.
    held_out
        Genes that no loss between datasets has seen.
    anchors
        The other shared genes, which training was told are the same: how much is memory.
    """

    first: str
    second: str
    group: PairGroup
    held_out: QueryScores
    anchors: QueryScores


def retrieve_pair(a: DatasetTask, b: DatasetTask, similarity: NDArray[np.floating], *, k: int = TOP_K) -> PairRetrieval:
    """Retrieve the shared genes of two datasets in each other.

    Parameters
    ----------
    a, b
        The datasets.
    similarity
        Of all genes of `a` to all genes of `b`, shape (N_a, N_b).
    k
        How many places count as found.

    Returns
    -------
    PairRetrieval

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
    in_a, in_b = shared_genes(a, b)
    forward = retrieval_scores(similarity[in_a], in_b, k=k)
    backward = retrieval_scores(similarity.T[in_b], in_a, k=k)
    chance = np.mean([chance_level(b.n_genes, k=k), chance_level(a.n_genes, k=k)], axis=0)
    return pair_retrieval(a, b, forward, backward, np.tile(chance, (len(in_a), 1)))


def pair_retrieval(
    a: DatasetTask,
    b: DatasetTask,
    forward: tuple[Floats, Floats],
    backward: tuple[Floats, Floats],
    chance: Floats,
) -> PairRetrieval:
    """Average the scores of both directions, apart for held-out genes and anchors.

    Parameters
    ----------
    a, b
        The datasets; Q genes are in both, in the order of :func:`musegnn.evaluation.task.shared_genes`.
    forward, backward
        Expected reciprocal ranks and recalls of queries of `a` and of `b`, each shape (Q,).
    chance
        Their chance levels, mean of both directions, shape (Q, 2).
    """
    in_a, in_b = shared_genes(a, b)
    held_out = a.held_out_gene[in_a] | b.held_out_gene[in_b]
    reciprocal, recall = ((f + r) / 2 for f, r in zip(forward, backward, strict=True))

    def scores(chosen: NDArray[np.bool_]) -> QueryScores:
        return QueryScores(
            key=a.gene_key[in_a[chosen]],
            reciprocal_rank=reciprocal[chosen],
            recall=recall[chosen],
            chance_mrr=mean_of_defined(chance[chosen, 0]),
            chance_recall=mean_of_defined(chance[chosen, 1]),
        )

    return PairRetrieval(
        first=a.name, second=b.name, group=pair_group(a, b), held_out=scores(held_out), anchors=scores(~held_out)
    )


def retrieve_all(tasks: Sequence[DatasetTask], similarity: Similarity, *, k: int = TOP_K) -> list[PairRetrieval]:
    """Retrieve shared genes between every two datasets.

    Parameters
    ----------
    tasks
        The datasets.
    similarity
        Called with two datasets, gives shape (N_a, N_b).
    k
        How many places count as found.

    Returns
    -------
    list of PairRetrieval
        In the order (0, 1), (0, 2), ..., for every unordered pair; pairs without shared genes have no queries.
    """
    return [retrieve_pair(a, b, np.asarray(similarity(a, b)), k=k) for i, a in enumerate(tasks) for b in tasks[i + 1 :]]


def summarize_pairs(pairs: Sequence[PairRetrieval], *, anchors: bool = False) -> dict[str, dict[str, float]]:
    """Average retrieval over pairs of datasets, all together and by group.

    Every pair with at least one query counts once, however many genes it shares.

    Parameters
    ----------
    pairs
        Results of :func:`retrieve_all`.
    anchors
        Summarise the training anchors instead of the held-out genes.

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
