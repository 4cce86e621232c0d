"""The scores of one set of vectors, as they stand in the document of an evaluation (``docs/evaluation.md``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.evaluation import edge_prediction
from musegnn.evaluation.joint import conservation, islands, mixing, retrieve_jointly
from musegnn.evaluation.metrics import mean_of_defined
from musegnn.evaluation.retrieval import summarize_pairs
from musegnn.evaluation.sample import sampling_error
from musegnn.vectors import effective_rank, mean_cosine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.evaluation.baselines.candidates import Candidate
    from musegnn.evaluation.edge_prediction import PairScore
    from musegnn.evaluation.retrieval import PairRetrieval, QueryScores
    from musegnn.evaluation.sample import Sample
    from musegnn.graph import GraphData
    from musegnn.vectors import Similarity

    Vectors = Mapping[str, NDArray[np.floating]]

CORRECTIONS: tuple[Similarity, ...] = ("balanced", "csls")
EDGE_SETS = ("all", "positive", "negative")


def describe(graph: GraphData) -> dict[str, Any]:  # JSON
    """Return the size of a dataset and of what is held out of it."""
    return {
        "name": graph.name,
        "modality": graph.modality,
        "tissue": graph.tissue,
        "species": graph.species,
        "n_genes": graph.n_genes,
        "n_held_out_genes": int((~graph.trainable).sum()),
        "n_training_edges": graph.edges.n_edges // 2,
        "n_held_out_edges": len(graph.held_out.rows),
        "n_held_out_negative_edges": int((graph.held_out.sign < 0).sum()),
        "n_held_out_non_edges": len(graph.held_out.negative_rows),
        "degree_auc": edge_prediction.degree_auc(graph),
    }


def edge_scores(graphs: Sequence[GraphData], candidate: Candidate) -> dict[str, Any] | None:  # JSON
    """Return how well held-out edges are told from pairs that are none; ``None`` of what has no vectors."""
    if candidate.vectors is None:
        return None
    per_dataset: dict[str, dict[str, dict[str, float]]] = {}
    for t in graphs:
        cosine = edge_prediction.pair_cosine(candidate.vectors[t.name])
        scores: dict[str, PairScore] = {
            "cosine": cosine,
            "abs_cosine": lambda rows, cols, cosine=cosine: np.abs(cosine(rows, cols)),  # type: ignore[misc]
        }
        if candidate.decoder is not None:
            scores["decoder"] = candidate.decoder(t.name)
        per_dataset[t.name] = {name: edge_prediction.held_out_auc(score, t.held_out) for name, score in scores.items()}
    names = ("cosine", "abs_cosine", *(("decoder",) if candidate.decoder is not None else ()))
    overall = {
        name: {which: mean_of_defined([scores[name][which] for scores in per_dataset.values()]) for which in EDGE_SETS}
        for name in names
    }
    return {"overall": overall, "datasets": per_dataset}


def retrieval_scores(pairs: Sequence[PairRetrieval]) -> dict[str, Any]:  # JSON
    """Return retrieval within pairs of datasets, as a mean and by pair."""
    return {
        "held_out": summarize_pairs(pairs),
        "anchors": summarize_pairs(pairs, anchors=True),
        "pairs": [
            {
                "first": p.first,
                "second": p.second,
                "group": p.group,
                "held_out": _query_means(p.held_out),
                "anchors": _query_means(p.anchors),
            }
            for p in pairs
        ],
    }


def _query_means(scores: QueryScores) -> dict[str, Any]:  # JSON
    return {
        "n_queries": len(scores.key),
        "mrr": mean_of_defined(scores.reciprocal_rank),
        "recall": mean_of_defined(scores.recall),
        "chance_mrr": scores.chance_mrr,
        "chance_recall": scores.chance_recall,
    }


def pair_error(pairs: Sequence[PairRetrieval], sample: Sample) -> float:
    """Return the standard error of the overall MRR of held-out genes over the pairs of datasets that were drawn."""
    means = np.array([p.held_out.reciprocal_rank.mean() for p in pairs if len(p.held_out.key)])
    return sampling_error(means, len(means) * sample.n_pairs / max(len(sample.pairs), 1))


def joint_scores(
    graphs: Sequence[GraphData],
    vectors: Vectors,
    pairs: Sequence[PairRetrieval],
    published: Mapping[str, Any],
    sample: Sample,
) -> dict[str, Any]:  # JSON
    """Return what tells whether datasets lie in one space: retrieval among all rows, mixing, conservation, islands."""
    found = {"retrieval": pairs}
    # CSLS needs what is typical for every single row, which takes longer than all else
    corrections = CORRECTIONS if sample.queries is None else CORRECTIONS[:1]
    found |= {f"retrieval_{by}": retrieve_jointly(graphs, vectors, by=by, queries=sample.queries) for by in corrections}
    return {
        **{
            name: {"held_out": summarize_pairs(each), "anchors": summarize_pairs(each, anchors=True)}
            for name, each in found.items()
        },
        "mixing": mixing(graphs, vectors, rows=sample.rows),
        "conservation": conservation(graphs, vectors, pairs=sample.pairs),
        "islands": islands(published),
    }


def space(graphs: Sequence[GraphData], vectors: Vectors) -> dict[str, Any]:  # JSON
    """Return how many dimensions vectors fill, and how much they point in one direction."""
    parts = {t.name: np.asarray(vectors[t.name], dtype=np.float64) for t in graphs}
    pooled = np.concatenate(list(parts.values()))
    return {
        "dim": pooled.shape[1],
        "effective_rank": effective_rank(pooled),
        "mean_cosine": mean_cosine(pooled),
        "datasets": {
            name: {"effective_rank": effective_rank(x), "mean_cosine": mean_cosine(x)} for name, x in parts.items()
        },
    }
