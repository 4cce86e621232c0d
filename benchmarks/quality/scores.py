"""Train and score all models of one group of datasets with one seed, in a process of its own.

Scores are taken on what no model saw in training: held-out genes, held-out edges, and for gene sets the genes of a
fold. The published model has the graphs of its own edge rule, and so held-out edges of its own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.quality.groups import gene_sets, group_atlas

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.data_store import Store
    from musegnn.evaluation.edges import PairScore
    from musegnn.evaluation.retrieval import Similarity
    from musegnn.evaluation.task import DatasetTask
    from musegnn.musegnn import MuSeGNN

    Spaces = Mapping[str, NDArray[np.floating]]
    Scores = dict[str, dict[str, float]]

PUBLISHED_TRAINING = {"rounds": 100, "lr_dataset": 1e-3, "lr_shared": 1e-3, "lr_decoder": 1e-2}
"""The published recipe takes 2000 rounds; here it has a twentieth of them at ten times its learning rates."""

ONE_THREAD = {"threads": 1, "checkpoint_every": 100_000}


@dataclass(frozen=True, slots=True)
class Job:
    """What to compute: a group, a seed, the store of its graphs and the settings of our model.

    Attributes
    ----------
    group, seed
        A group of datasets, and the training seed.
    store
        Folder of the graphs.
    settings
        Sections of the atlas file that differ from the defaults.
    rivals
        Whether to train and score all others.
    """

    group: str
    seed: int
    store: Path
    settings: dict[str, Any]  # values of any setting
    rivals: bool


def build(group: str, folder: Path) -> Path:
    """Build the graphs of a group and give the folder of the store."""
    import musegnn as mg

    path = folder / f"{group}.zarr"
    mg.build_graphs(group_atlas(group, folder, {}), path)
    return path


def run(job: Job) -> Scores:
    """Do one job, on one thread.

    Returns
    -------
    dict
        By model and measure.
    """
    import torch
    from threadpoolctl import threadpool_limits

    from musegnn.data_store import Store

    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        store = Store.open(job.store)
        model = make_model(job, store, job.settings)
        tasks, sets = _tasks(model), _sets(model)
        scores: Scores = {}
        if job.rivals:
            scores["untrained"] = score_model(tasks, model.untrained(), sets)
            scores["start"] = score_model(tasks, model.started(), sets)
        scores["musegnn"] = score_model(tasks, model.train(), sets)
        if job.rivals:
            published = {"published": True, "training": PUBLISHED_TRAINING}
            other = make_model(job, store, published).train()
            scores["published"] = score_model(_tasks(other), other, sets)
            scores |= _rivals(job, model, tasks, sets)
        return scores


def make_model(job: Job, store: Store, settings: Mapping[str, Any]) -> MuSeGNN:  # values of any setting
    """Make a model of the job's datasets with its seed, on one thread."""
    import musegnn as mg

    training = {"seed": job.seed, **ONE_THREAD} | settings.get("training", {})
    return mg.MuSeGNN(store, group_atlas(job.group, job.store.parent, {**settings, "training": training}))


def score_model(tasks: list[DatasetTask], model: MuSeGNN, sets: dict[str, list[str]]) -> dict[str, float]:
    """Score one of our models, decoder included."""
    from musegnn.evaluation.edges import held_out_auc

    scores = score_space(tasks, model.vectors(), sets)

    def decoder(name: str) -> PairScore:
        return lambda rows, cols: model.decoder_scores(name, rows, cols)

    found = [held_out_auc(decoder(task.name), task.pairs) for task in tasks]
    return scores | {f"edges_decoder_{which}": _mean([auc[which] for auc in found]) for which in ("all", "positive")}


def score_space(tasks: list[DatasetTask], vectors: Spaces, sets: dict[str, list[str]]) -> dict[str, float]:
    """Score vectors that lie in one space."""
    from musegnn.evaluation.candidates import vector_candidate
    from musegnn.evaluation.edges import held_out_auc, pair_cosine
    from musegnn.evaluation.space import effective_rank

    scores = score_retrieval(tasks, vector_candidate("", vectors).similarity) | score_function(tasks, vectors, sets)
    found = [held_out_auc(pair_cosine(vectors[task.name]), task.pairs) for task in tasks]
    scores |= {f"edges_cosine_{which}": _mean([auc[which] for auc in found]) for which in ("all", "positive")}
    pooled = np.concatenate([np.asarray(vectors[task.name], dtype=np.float64) for task in tasks])
    scores["rank"] = effective_rank(pooled)
    scores["rank_share"] = scores["rank"] / pooled.shape[1]
    return scores


def score_retrieval(tasks: list[DatasetTask], similarity: Similarity) -> dict[str, float]:
    """Score the retrieval of held-out genes, over all pairs of datasets, by kind of pair, and by pair."""
    from musegnn.evaluation.retrieval import retrieve_all, summarize_pairs

    pairs = retrieve_all(tasks, similarity)
    held_out, anchors = summarize_pairs(pairs), summarize_pairs(pairs, anchors=True)
    scores = {"anchor_mrr": float(anchors["overall"]["mrr"])}
    for kind, found in held_out.items():
        if found["n_pairs"]:
            name = "mrr" if kind == "overall" else f"mrr_{kind}"
            scores[name] = float(found["mrr"])
            scores[f"{name}_over_chance"] = float(found["mrr"] / found["chance_mrr"])
    scores["recall_at_10"] = float(held_out["overall"]["recall"])
    for pair in pairs:
        if len(pair.held_out.key):
            over = float(np.mean(pair.held_out.reciprocal_rank)) / pair.held_out.chance_mrr
            scores[f"over_chance {pair.first} {pair.second}"] = over
    return scores


def score_function(tasks: list[DatasetTask], vectors: Spaces, sets: dict[str, list[str]]) -> dict[str, float]:
    """Score the prediction of gene sets, and its control; nothing when there are no sets."""
    from musegnn.evaluation.function import function_scores

    if not sets:
        return {}
    return {
        "function": function_scores(tasks, vectors, sets).mean,
        "function_permuted": function_scores(tasks, vectors, sets, permute=True).mean,
    }


def _rivals(job: Job, model: MuSeGNN, tasks: list[DatasetTask], sets: dict[str, list[str]]) -> Scores:
    from musegnn.evaluation.candidates import rival_candidates
    from musegnn.evaluation.evaluate import visible_pairs
    from musegnn.evaluation.rivals.registry import pooled_rivals, trained_rivals

    profiles = {name: record.profile for name, record in model.records.items()}
    means = {name: record.genes.mean for name, record in model.records.items()}
    seen = {task.name: visible_pairs(model.records[task.name].pairs, task.pairs) for task in tasks}
    plain = rival_candidates(
        tasks,
        profiles=profiles,
        estimates={name: estimate for name, (estimate, _) in seen.items()},
        statistics={name: z for name, (_, z) in seen.items()},
        mean_counts=means,
    )
    scores = {
        name: score_retrieval(tasks, candidate.similarity)
        for name, candidate in plain.items()
        if candidate.vectors is None
    }
    level = {name: np.log(mean)[:, None] for name, mean in means.items()}
    scores["expression_level"] |= score_function(tasks, level, sets)
    for name, vectors in trained_rivals(tasks, model.graphs, profiles, seed=job.seed).items():
        scores[name] = score_space(tasks, vectors, sets)
    if sets:
        for name, vectors in pooled_rivals(model.graphs, profiles).items():
            scores[name] = score_function(tasks, vectors, sets)
    return scores


def _tasks(model: MuSeGNN) -> list[DatasetTask]:
    from musegnn.evaluation.evaluate import dataset_tasks

    return dataset_tasks(model)


def _sets(model: MuSeGNN) -> dict[str, list[str]]:
    from musegnn.evaluation.function import read_gmt

    path = gene_sets()
    return {} if path is None else model.gene_sets(read_gmt(path))


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
