"""Train and score all models of one group of datasets with one seed, in a process of its own.

Scores are taken on what no model saw in training: held-out genes, held-out edges, and for gene sets the genes of a
fold. The published model has the graphs of its own edge rule, and so held-out edges of its own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.quality.completion import completed
from benchmarks.quality.groups import gene_sets, group_atlas, transcription_factors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.data_store import Store
    from musegnn.evaluation.edges import PairScore
    from musegnn.evaluation.retrieval import PairRetrieval, Similarity
    from musegnn.evaluation.task import DatasetTask
    from musegnn.musegnn import MuSeGNN

    Spaces = Mapping[str, NDArray[np.floating]]
    Sets = Mapping[str, Sequence[str]]

OURS = "musegnn"
PUBLISHED_TRAINING = {"rounds": 100, "lr_dataset": 1e-3, "lr_shared": 1e-3, "lr_decoder": 1e-2}
"""The published recipe takes 2000 rounds; here it has a twentieth of them at ten times its learning rates."""

ONE_THREAD = {"threads": 1, "checkpoint_every": 100_000}
COMPLETION_DIMS = (10, 30, 60)


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
    label
        What our model is called.
    """

    group: str
    seed: int
    store: Path
    settings: dict[str, Any]  # values of any setting
    rivals: bool
    label: str = OURS


@dataclass(frozen=True, slots=True)
class Result:
    """What one job found, by model.

    Attributes
    ----------
    measures
        Numbers by measure.
    by_set
        AUROC by gene set.
    nearest
        The nearest rows of all pooled rows, see :func:`musegnn.evaluation.stability.nearest_rows`.
    """

    measures: dict[str, dict[str, float]] = field(default_factory=dict)
    by_set: dict[str, dict[str, float]] = field(default_factory=dict)
    nearest: dict[str, NDArray[np.int32]] = field(default_factory=dict)


class Scorer:
    """Scores models on one group of datasets.

    Parameters
    ----------
    tasks
        The datasets.
    sets
        Gene sets by name.
    factors
        A single set, the transcription factors; empty where the list is not here.
    modules
        Co-expression modules by dataset and name.
    """

    def __init__(
        self, tasks: Sequence[DatasetTask], *, sets: Sets, factors: Sets, modules: Mapping[str, dict[str, list[str]]]
    ) -> None:
        self.result = Result()
        self._tasks, self._sets, self._factors, self._modules = tasks, sets, factors, modules
        self._retrieved: dict[str, list[PairRetrieval]] = {}

    def model(self, name: str, model: MuSeGNN) -> None:
        """Score one of our models, decoder included, on its own held-out edges."""
        from musegnn.evaluation.edges import held_out_auc
        from musegnn.evaluation.evaluate import dataset_tasks

        tasks = dataset_tasks(model)
        self.space(name, model.vectors(), tasks=tasks)

        def decoder(dataset: str) -> PairScore:
            return lambda rows, cols: model.decoder_scores(dataset, rows, cols)

        found = [held_out_auc(decoder(task.name), task.pairs) for task in tasks]
        self.result.measures[name] |= _edge_measures("edges_decoder", found)

    def space(self, name: str, vectors: Spaces, *, tasks: Sequence[DatasetTask] | None = None) -> None:
        """Score vectors that lie in one space; `tasks` are those whose held-out edges they did not see."""
        from musegnn.evaluation.candidates import vector_candidate
        from musegnn.evaluation.edges import held_out_auc, pair_cosine
        from musegnn.evaluation.space import effective_rank
        from musegnn.evaluation.stability import nearest_rows

        tasks = tasks or self._tasks
        self.similarity(name, vector_candidate("", vectors).similarity)
        self.function(name, vectors)
        found = [held_out_auc(pair_cosine(vectors[task.name]), task.pairs) for task in tasks]
        pooled = np.concatenate([np.asarray(vectors[task.name], dtype=np.float64) for task in tasks])
        rank = effective_rank(pooled)
        self.result.measures[name] |= {
            **_edge_measures("edges_cosine", found),
            "rank": rank,
            "rank_share": rank / pooled.shape[1],
        }
        self.result.nearest[name] = nearest_rows({task.name: vectors[task.name] for task in tasks})

    def similarity(self, name: str, similarity: Similarity) -> None:
        """Score the retrieval of held-out genes: over all pairs of datasets, by kind of pair, and by pair."""
        from musegnn.evaluation.compare import compare_retrieval
        from musegnn.evaluation.retrieval import retrieve_all, summarize_pairs

        pairs = self._retrieved[name] = retrieve_all(self._tasks, similarity)
        held_out, anchors = summarize_pairs(pairs), summarize_pairs(pairs, anchors=True)
        scores = self.result.measures.setdefault(name, {})
        scores["anchor_mrr"] = float(anchors["overall"]["mrr"])
        for kind, found in held_out.items():
            if found["n_pairs"]:
                measure = "mrr" if kind == "overall" else f"mrr_{kind}"
                scores[measure] = float(found["mrr"])
                scores[f"{measure}_over_chance"] = float(found["mrr"] / found["chance_mrr"])
        scores["recall_at_10"] = float(held_out["overall"]["recall"])
        for pair in pairs:
            if len(pair.held_out.key):
                over = float(np.mean(pair.held_out.reciprocal_rank)) / pair.held_out.chance_mrr
                scores[f"over_chance {pair.first} {pair.second}"] = over
        if name != OURS and OURS in self._retrieved:
            compared = compare_retrieval(self._retrieved[OURS], pairs)
            if compared is not None:
                scores["mrr_p"] = compared.p_value

    def function(self, name: str, vectors: Spaces) -> None:
        """Score the prediction of gene sets with its control, of transcription factors, and of modules."""
        from musegnn.evaluation.function import function_scores
        from musegnn.evaluation.modules import module_scores

        scores = self.result.measures.setdefault(name, {})
        if self._sets:
            found = function_scores(self._tasks, vectors, self._sets)
            self.result.by_set[name] = found.by_set
            scores["function"] = found.mean
            scores["function_permuted"] = function_scores(self._tasks, vectors, self._sets, permute=True).mean
        if self._factors:
            scores["factors"] = function_scores(self._tasks, vectors, self._factors).mean
        if self._modules:
            scores["modules"] = module_scores(self._tasks, vectors, self._modules).mean


def build(group: str, folder: Path) -> Path:
    """Build the graphs of a group and give the folder of the store."""
    import musegnn as mg

    path = folder / f"{group}.zarr"
    mg.build_graphs(group_atlas(group, folder, {}), path)
    return path


def run(job: Job) -> Result:
    """Do one job, on one thread."""
    import torch
    from threadpoolctl import threadpool_limits

    from musegnn.data_store import Store
    from musegnn.evaluation.evaluate import dataset_tasks, visible_pairs
    from musegnn.evaluation.modules import module_sets

    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        store = Store.open(job.store)
        model = make_model(job, store, job.settings)
        tasks = dataset_tasks(model)
        seen = {task.name: visible_pairs(model.records[task.name].pairs, task.pairs) for task in tasks}
        modules = module_sets(tasks, {name: estimate for name, (estimate, _) in seen.items()})
        scorer = Scorer(tasks, **_sets(model), modules=modules)
        scorer.model(job.label, model.train())
        if job.rivals:
            scorer.model("untrained", model.untrained())
            scorer.model("start", model.started())
            scorer.model(
                "published", make_model(job, store, {"published": True, "training": PUBLISHED_TRAINING}).train()
            )
            scorer.function(f"{job.label} pooled", pooled_over_datasets(tasks, model.vectors()))
            _score_rivals(job, model, tasks, seen, scorer)
        return scorer.result


def make_model(job: Job, store: Store, settings: Mapping[str, Any]) -> MuSeGNN:  # values of any setting
    """Make a model of the job's datasets with its seed, on one thread."""
    import musegnn as mg

    training = {"seed": job.seed, **ONE_THREAD} | settings.get("training", {})
    return mg.MuSeGNN(store, group_atlas(job.group, job.store.parent, {**settings, "training": training}))


def pooled_over_datasets(tasks: Sequence[DatasetTask], vectors: Spaces) -> dict[str, NDArray[np.float64]]:
    """Give every gene the mean of its unit vectors over datasets, which one joint space allows."""
    from musegnn.evaluation.space import unit_rows

    keys = np.concatenate([task.gene_key for task in tasks])
    unit = np.concatenate([unit_rows(vectors[task.name]) for task in tasks]).astype(np.float64)
    names, code = np.unique(keys, return_inverse=True)
    total = np.zeros((len(names), unit.shape[1]))
    np.add.at(total, code, unit)
    mean = total / np.bincount(code)[:, None]
    return {task.name: mean[np.searchsorted(names, task.gene_key)] for task in tasks}


def _score_rivals(
    job: Job, model: MuSeGNN, tasks: list[DatasetTask], seen: Mapping[str, tuple[Any, Any]], scorer: Scorer
) -> None:  # pairs of scipy's matrices
    from musegnn.evaluation.candidates import rival_candidates
    from musegnn.evaluation.edges import held_out_auc
    from musegnn.evaluation.rivals.registry import pooled_rivals, trained_rivals

    profiles = {name: record.profile for name, record in model.records.items()}
    means = {name: record.genes.mean for name, record in model.records.items()}
    plain = rival_candidates(
        tasks,
        profiles=profiles,
        estimates={name: estimate for name, (estimate, _) in seen.items()},
        statistics={name: z for name, (_, z) in seen.items()},
        mean_counts=means,
    )
    for name, candidate in plain.items():
        if candidate.vectors is None:
            scorer.similarity(name, candidate.similarity)
    scorer.function("expression_level", {name: np.log(mean)[:, None] for name, mean in means.items()})
    for name, vectors in trained_rivals(tasks, model.graphs, profiles, seed=job.seed).items():
        scorer.space(name, vectors)
    for name, vectors in pooled_rivals(model.graphs, profiles).items():
        scorer.function(name, vectors)
    for dim in COMPLETION_DIMS:
        found = [held_out_auc(completed(seen[task.name][1], task.pairs, dim=dim), task.pairs) for task in tasks]
        scorer.result.measures[f"z_completion_{dim}"] = _edge_measures("edges_cosine", found)


def _sets(model: MuSeGNN) -> dict[str, Sets]:
    from musegnn.evaluation.function import read_gmt

    path, factors = gene_sets(), transcription_factors()
    return {
        "sets": {} if path is None else model.gene_sets(read_gmt(path)),
        "factors": model.gene_sets({"factors": factors}) if factors else {},
    }


def _edge_measures(kind: str, found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Give the means over datasets of what separates held-out edges from other pairs."""
    from musegnn.evaluation.metrics import mean_of_defined

    return {f"{kind}_{which}": mean_of_defined([auc[which] for auc in found]) for which in ("all", "positive")}
