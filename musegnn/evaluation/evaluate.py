"""Evaluation of a model and its baselines on held-out edges and genes, as one JSON document.

``docs/evaluation.md`` describes the document. It holds no times and no names of machines: equal inputs give equal
bytes.

Legend: T datasets, N genes, d dimensions.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from musegnn.data_store.atomic_files import write_file
from musegnn.evaluation.baselines.candidates import Candidate, baseline_candidates, relational_vectors, vector_candidate
from musegnn.evaluation.compare import compare_retrieval
from musegnn.evaluation.gene_sets import function_document, function_scores, transfer_scores
from musegnn.evaluation.joint import joint_error, retrieve_jointly
from musegnn.evaluation.modules import module_document, module_sets
from musegnn.evaluation.published_metrics import published_metrics
from musegnn.evaluation.retrieval import retrieve_all
from musegnn.evaluation.sample import draw_sample
from musegnn.evaluation.scores import describe, edge_scores, joint_scores, pair_error, retrieval_scores, space
from musegnn.evaluation.seeds import summarize_seeds
from musegnn.evaluation.stability import nearest_rows, neighbor_stability
from musegnn.ranking import TOP_K

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.config import AtlasConfig
    from musegnn.data_store.records import DatasetRecord, PairTable
    from musegnn.evaluation.retrieval import PairRetrieval
    from musegnn.graph import GraphData, HeldOutPairs
    from musegnn.progress import Progress

    Vectors = Mapping[str, NDArray[np.floating]]

FORMAT = "musegnn-evaluation"
VERSION = 2
DIGITS = 6
RAW = "relations"
MAPS = "musegnn's two closed-form maps"


class TrainedModel(Protocol):
    """What the evaluation needs of a model; :class:`musegnn.MuSeGNN` has it."""

    config: AtlasConfig
    records: dict[str, DatasetRecord]
    graphs: Sequence[GraphData]

    @property
    def rounds(self) -> int:
        """Number of rounds trained."""

    def train(self) -> Self:
        """Train up to the number of rounds in the configuration."""

    def untrained(self) -> Self:
        """Return the model with its initial weights."""

    def started(self) -> Self:
        """Return the model before its first round."""

    def reseeded(self, seed: int) -> Self:
        """Return an untrained model with another training seed."""

    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """Return the vectors by dataset name, (N, d)."""

    def decoder_scores(self, dataset: str, rows: NDArray[np.integer], cols: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the decoder's score of gene pairs."""


def evaluate(
    graphs: Sequence[GraphData],
    candidates: Mapping[str, Candidate],
    *,
    resolutions: Sequence[float] = (0.5, 1.0, 2.0),
    min_datasets: int = 2,
    seed: int = 0,
    subject: str = "trained",
    progress: Progress | None = None,
) -> dict[str, Any]:  # JSON
    """Score every candidate and compare the candidate `subject` with the others.

    Parameters
    ----------
    resolutions
        Resolutions of Leiden, for the published metrics.
    min_datasets
        Number of datasets that a ``shared`` gene of the published metrics is in, at least.
    seed
        Seed of Leiden and of the resampling in the comparison.

    Returns
    -------
    dict
        JSON values, numbers rounded to six decimals, null where undefined.
    """
    sample = draw_sample(graphs, seed)
    with _one_blas_thread():
        report, total = progress or (lambda *_: None), 2 * len(candidates)
        report("evaluate", 0, total, "")
        retrieved = {}
        for done, (name, c) in enumerate(candidates.items(), start=1):
            retrieved[name] = retrieve_all(graphs, c.similarity, sample.pairs)
            report("evaluate", done, total, f"retrieval, {name}")
        joint = {
            name: retrieve_jointly(graphs, c.vectors, queries=sample.queries)
            for name, c in candidates.items()
            if c.vectors is not None
        }
        models: dict[str, dict[str, Any]] = {}
        for name, candidate in candidates.items():
            models[name] = {
                "description": candidate.description,
                "held_out_edges": edge_scores(graphs, candidate),
                "retrieval": retrieval_scores(retrieved[name]),
                "joint": None,
                "space": None,
                "published": None,
                "errors": {"held_out_mrr": pair_error(retrieved[name], sample)},
            }
            if candidate.vectors is not None:
                published = published_metrics(
                    graphs,
                    candidate.vectors,
                    resolutions=resolutions,
                    seed=seed,
                    min_datasets=min_datasets,
                    sample=sample,
                )
                models[name] |= {
                    "joint": joint_scores(graphs, candidate.vectors, joint[name], published, sample),
                    "space": space(graphs, candidate.vectors),
                    "published": published,
                }
                models[name]["errors"]["joint_mrr"] = 0.0 if sample.queries is None else joint_error(joint[name])
            report("evaluate", len(candidates) + len(models), total, f"all measures, {name}")
        document = {
            "format": FORMAT,
            "version": VERSION,
            "subject": subject,
            "candidate_set": "all genes of the other dataset, both directions",
            "joint_candidate_set": "all rows of all datasets but the query and further copies of its gene",
            "top_k": TOP_K,
            "seed": seed,
            "sample": sample.describe(),
            "datasets": [describe(t) for t in graphs],
            "models": models,
            "comparisons": _comparisons(retrieved, subject, seed),
            "joint_comparisons": _comparisons(joint, subject, seed),
        }
    result: dict[str, Any] = _plain(document)
    return result


def _comparisons(
    retrieved: Mapping[str, Sequence[PairRetrieval]], subject: str, seed: int
) -> dict[str, dict[str, Any] | None]:  # JSON
    found = {
        name: compare_retrieval(retrieved[subject], pairs, seed=seed)
        for name, pairs in retrieved.items()
        if name != subject and subject in retrieved
    }
    return {name: None if c is None else asdict(c) for name, c in found.items()}


def _one_blas_thread() -> threadpool_limits:
    """Fix the order of sums, which follows the number of threads; one thread is faster here as well."""
    return threadpool_limits(1, user_api="blas")


def _plain(value: Any) -> Any:  # JSON
    """Round numbers and replace what JSON cannot hold by null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0 if math.isfinite(value) else None  # + 0.0: no negative zero
    return value


def evaluate_model(
    model: TrainedModel,
    *,
    sets: Mapping[str, Collection[str]] | None = None,
    trained_baselines: bool = False,
    seeds: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:  # JSON
    """Score a model beside its untrained state and the baselines, on what its training did not see.

    Parameters
    ----------
    sets
        Gene sets to predict, as keys by name (:meth:`musegnn.MuSeGNN.gene_sets`).
    trained_baselines
        Whether to train the baselines of :mod:`musegnn.evaluation.baselines` as well: minutes, and the extra
        ``baselines``.
    seeds
        Number of training seeds to evaluate; the model itself is the first, baselines are trained as often.

    Returns
    -------
    dict
        As :func:`evaluate`, for ``trained``, ``start`` (the closed-form maps before the first round, where there are
        both and the atlas is evaluated as a whole), ``untrained``, the baselines of
        :func:`~musegnn.evaluation.baselines.candidates.baseline_candidates` and ``relations`` (the features of the
        shared map, of an atlas as a whole), with the ``settings`` used and ``modules``; with `sets` also ``function``
        and ``transfer``; with several seeds also ``seeds``
        (:func:`musegnn.evaluation.seeds.summarize_seeds`) with ``stability``, the agreement of nearest genes between
        seeds by model.
    """
    first = model.config.training.seed
    documents, nearest = [], []
    for seed in range(first, first + seeds):
        one = model if seed == first else model.reseeded(seed).train()
        document, spaces = _evaluate_seed(one, sets, trained_baselines=trained_baselines, progress=progress)
        if seeds == 1:
            return document
        documents.append(document)
        nearest.append({name: nearest_rows(vectors) for name, vectors in spaces.items()})
    summary = summarize_seeds(documents, range(first, first + seeds))
    summary["stability"] = {name: neighbor_stability([rows[name] for rows in nearest]) for name in nearest[0]}
    return documents[0] | {"seeds": _plain(summary)}


def _evaluate_seed(
    model: TrainedModel,
    sets: Mapping[str, Collection[str]] | None,
    *,
    trained_baselines: bool,
    progress: Progress | None,
) -> tuple[dict[str, Any], dict[str, Vectors]]:  # JSON
    """Return the evaluation of one model, and the vectors of all candidates with vectors."""
    settings = model.config.evaluation
    graphs = model.graphs
    sample = draw_sample(graphs, settings.seed)
    seen = {t.name: visible_pairs(model.records[t.name].pairs, t.held_out) for t in graphs}
    profiles = {t.name: model.records[t.name].profile for t in graphs}
    with _one_blas_thread():
        baselines = baseline_candidates(
            graphs,
            profiles=profiles,
            estimates={name: estimate for name, (estimate, _) in seen.items()},
            statistics={name: z for name, (_, z) in seen.items()},
            mean_counts={t.name: model.records[t.name].genes.mean for t in graphs},
            queries=sample.queries,
        )
    has_maps = model.config.model.has_maps
    about = f"musegnn after {model.rounds} rounds" if model.rounds or not has_maps else MAPS
    candidates = {"trained": _model_candidate(model, about)}
    if has_maps and model.rounds and sample.rows is None:  # the closed forms of many datasets take minutes
        candidates["start"] = _model_candidate(model.started(), f"{MAPS}, before the first round")
    candidates |= {
        "untrained": _model_candidate(model.untrained(), "musegnn with its initial weights"),
        **baselines,
    }
    if sample.rows is None:  # with many datasets, two columns per anchor gene of any fill the memory
        raw = relational_vectors(model.graphs, model.records)
        candidates[RAW] = vector_candidate("relational features, which the model gets, as they are", raw)
    pooled: dict[str, Vectors] = {}
    if trained_baselines:
        from musegnn.evaluation.baselines import registry

        made = registry.trained_baselines(graphs, profiles, seed=model.config.training.seed)
        about = "see musegnn.evaluation.baselines"
        candidates |= {name: vector_candidate(about, vectors) for name, vectors in made.items()}
        if sets is not None:
            pooled.update(registry.pooled_baselines(graphs, profiles))
    document = evaluate(
        graphs,
        candidates,
        seed=settings.seed,
        progress=progress,
    )
    used = {**settings.model_dump(mode="json"), "dim": model.config.model.dim, "rounds": model.rounds}
    document["settings"] = used
    # a ridge regression on thousands of raw features takes minutes
    known = {name: c.vectors for name, c in candidates.items() if c.vectors is not None and name != RAW}
    spaces: dict[str, Vectors] = known | pooled
    with _one_blas_thread():
        asked = [graphs[k] for k in sample.datasets]
        modules = module_sets(asked, {name: estimate for name, (estimate, _) in seen.items()})
        document["modules"] = _plain(module_document(asked, spaces, modules, seed=settings.seed))
    if sets is not None:
        level = {t.name: np.log(model.records[t.name].genes.mean)[:, None] for t in asked}
        compared = spaces | {"expression_level": level}
        with _one_blas_thread():
            function, transfer = (
                function_document(asked, compared, sets, subject="trained", seed=settings.seed, score=score)
                for score in (function_scores, transfer_scores)
            )
        for name, scores in transfer["models"].items():
            scores["within"] = function["models"][name]["auroc"]
        document |= {"function": _plain(function), "transfer": _plain(transfer)}
    return document, known


def visible_pairs(stored: PairTable, held_out: HeldOutPairs) -> tuple[csr_matrix, csr_matrix]:
    """Return estimates and test statistics of one dataset, (N, N) float64, 0 where not stored or held out."""
    n = stored.n_genes
    code = np.repeat(np.arange(n), np.diff(stored.indptr)) * n + stored.indices
    hidden = np.concatenate([held_out.rows * n + held_out.columns, held_out.columns * n + held_out.rows])
    keep = ~np.isin(code, hidden)
    estimate, z = (
        csr_matrix((np.where(keep, v, 0.0), stored.indices, stored.indptr), shape=(n, n))
        for v in (stored.estimate, stored.z)
    )
    return estimate, z


def _model_candidate(model: TrainedModel, description: str) -> Candidate:
    return vector_candidate(description, model.vectors(), decoder=lambda name: partial(model.decoder_scores, name))


def write_evaluation(evaluation: dict[str, Any], path: Path) -> None:  # JSON
    """Write ``evaluation.json``, whole or not at all."""
    write_file(path, json.dumps(evaluation, indent=1, allow_nan=False) + "\n")
