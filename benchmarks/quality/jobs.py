"""Make or load models and score them: one row per model, group, split and training seed, kept in files as they come.

The rows of one split of one group share a process of one thread. Rows lie in ``benchmarks/.cache/rows``; their names
hold a digest of settings, vectors and code, so that a change makes new rows and a run that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.quality import groups, vectors
from benchmarks.quality.scores import Result, Scorer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.api import MuSeGNN

    Floats = NDArray[np.float64]

OURS, UNTRAINED = "musegnn", "untrained"
DIMS, POOLED_DIMS = (16, 32, 64, 128), (32, 64)
CLOSED = (
    *(f"pca_procrustes_{dim}" for dim in DIMS),
    *(f"pca_pairwise_{dim}" for dim in DIMS),
    "relations",
)
"""Baselines without training."""

ONCE = ("coexpression_profile", "coexpression_z", "expression_level")
"""More of them, on the first split alone."""

TRAINED = (
    *(
        f"{n}_{dim}"
        for n in ("gene2vec", "node2vec", "layered_node2vec", "hierarchical_node2vec")
        for dim in POOLED_DIMS
    ),
    *(f"{name}_32" for name in ("gae", "vgae", "mae")),
)
"""Baselines whose vectors come from files, with one training seed in each split."""

PUBLISHED = ("published", "published200")
"""Recipes whose vectors come from files, on the first split alone."""

WHOLE = (OURS, "pca_procrustes_32", "pca_procrustes_64")
"""Models of which everything is scored, on the first split: what takes longest are clusters, conservation and modules.
Gene sets are scored of all models there, as the best of them may be any. On other splits: retrieval, mixing, edges."""

SAME_EDGES = 1e-3
"""Of one split, the AUROC of held-out edges that a file notes and the one that is measured differ by less."""

CODE = (
    *(f"musegnn/{part}" for part in ("evaluation", "model", "training", "coexpression")),
    *(f"musegnn/{part}.py" for part in ("api", "config", "datasets", "graph", "random", "ranking", "vectors")),
    *(f"benchmarks/quality/{part}.py" for part in ("groups", "scores", "jobs")),
)


@dataclass(frozen=True, slots=True)
class Job:
    """One row to compute.

    Attributes
    ----------
    group, split, seed
        A group of datasets, the seed of the hold-outs, and the training seed.
    model
        Its name.
    """

    group: str
    split: int
    seed: int
    model: str


def is_whole(job: Job) -> bool:
    """Return whether everything is scored, which takes most of the time: see ``WHOLE``."""
    return job.split == groups.REPORT_SPLITS[0] and job.seed == 0 and job.model in WHOLE


def run_jobs(jobs: Sequence[Job]) -> list[tuple[Job, Result]]:
    """Compute the rows that are not there yet, in as many processes as there are cores.

    Parameters
    ----------
    jobs
        What to compute.

    Returns
    -------
    list
        Jobs with their results; those that cannot be computed are left out, with a line that says why.
    """
    missing: dict[tuple[str, int], list[Job]] = defaultdict(list)
    for job in jobs:
        if not row_file(job).is_file():
            missing[job.group, job.split].append(job)
    for group in {group for group, _ in missing}:
        groups.store(group)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        for lines in pool.map(_work, missing.values()):
            for line in lines:
                print(f"  {line}", flush=True)
    return [(job, read_row(path)) for job in jobs if (path := row_file(job)).is_file()]


def row_file(job: Job) -> Path:
    """Return the path of a row, which may not be there."""
    parts = [code_digest()]
    file = vectors.vector_file(job.model, job.group, job.split, job.seed)
    if file.is_file():
        parts.append(str(file.stat().st_mtime_ns))
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    name = re.sub(r"\W+", "_", job.model)
    return groups.CACHE / "rows" / f"{name}-{job.group}-{job.split}-{job.seed}-{digest}.json"


@cache
def code_digest() -> str:
    """Return the sha256 of the code that decides a row."""
    digest = hashlib.sha256()
    for part in CODE:
        path = groups.ROOT / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def read_row(path: Path) -> Result:
    """Read a row."""
    return Result(**json.loads(path.read_text(encoding="utf-8")))


def write_row(path: Path, result: Result) -> None:
    """Write a row, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(asdict(result)), encoding="utf-8")
    unfinished.replace(path)


def _work(jobs: Sequence[Job]) -> list[str]:
    """Compute and write the rows of one split; return lines that say which are left out and why."""
    from threadpoolctl import threadpool_limits

    absent: dict[str, list[str]] = defaultdict(list)
    with threadpool_limits(1):
        split = Split(jobs[0].group, jobs[0].split)
        for job in jobs:
            try:
                write_row(row_file(job), split.score(job))
            except LookupError as error:
                absent[str(error)].append(job.model)
    return [
        f"{jobs[0].group}, split {jobs[0].split}: {reason}; left out: {', '.join(models)}"
        for reason, models in absent.items()
    ]


class Split:
    """One split of one group: its data, and the models that are scored on it."""

    def __init__(self, group: str, split: int) -> None:
        from musegnn.evaluation.evaluate import visible_pairs
        from musegnn.evaluation.gene_sets import read_gmt

        self._group, self._split, self._store = group, split, groups.store(group)
        self._model = model = self._make(0)
        self._graphs = model.graphs
        self._seen = {t.name: visible_pairs(model.records[t.name].pairs, t.held_out) for t in self._graphs}
        self._profiles = {name: record.profile for name, record in model.records.items()}
        path = groups.gene_sets()
        self._scorer = Scorer(
            self._graphs,
            sets={} if path is None else model.gene_sets(read_gmt(path)),
            modules={},
            six=split == groups.REPORT_SPLITS[0] and group == "atlas",
        )
        self._gene_sets = split == groups.REPORT_SPLITS[0]
        self._reference_vectors: Mapping[str, NDArray[np.floating]] = {}
        self._reference = self._ours(0, whole=self._gene_sets)
        self._scorer.keep_as_reference()

    def score(self, job: Job) -> Result:
        """Score a model.

        Raises
        ------
        LookupError
            When its vectors are in no file, or in one of other data.
        """
        whole = is_whole(job)
        if job.model == OURS:
            return self._ours(job.seed, whole=whole)
        if job.model == UNTRAINED:
            return self._scored(self._make(job.seed).untrained(), whole=whole)
        if job.model in (*CLOSED, *ONCE):
            return self._closed(job.model, whole=whole)
        return self._from_file(job, whole=whole)

    def _make(self, seed: int) -> MuSeGNN:
        return vectors.make_model({}, self._group, self._split, seed, self._store)

    def _ours(self, seed: int, *, whole: bool) -> Result:
        model = self._make(seed)
        start = time.process_time()
        found = model.train().vectors()
        seconds = time.process_time() - start
        same = {name for name, x in self._reference_vectors.items() if np.array_equal(x, found[name])}
        if len(same) == len(found):  # as where nothing depends on the training seed
            result = replace(self._reference, measures=dict(self._reference.measures))
            result.add(_decoder(model))
        else:
            result = self._scored(model, whole=whole)
        self._reference_vectors = self._reference_vectors or found
        result.add({"seconds": seconds})
        return result

    def _scored(self, model: MuSeGNN, *, whole: bool) -> Result:

        result = self._space(model.vectors(), whole=whole, edges_of=model.graphs)
        result.add(_decoder(model))
        return result

    def _space(self, x: Mapping[str, NDArray[np.floating]], **options: Any) -> Result:  # of Scorer.space
        return self._scorer.space(x, sets=self._gene_sets, **options)

    @cached_property
    def _components(self) -> dict[str, Floats]:
        from musegnn.evaluation.baselines.alignment import pca_vectors

        return {name: pca_vectors(profile, max(DIMS)) for name, profile in self._profiles.items()}

    def _closed(self, model: str, *, whole: bool) -> Result:
        """Score a baseline without training."""
        from musegnn.evaluation.baselines import alignment
        from musegnn.evaluation.baselines.candidates import relational_vectors

        name, _, size = model.rpartition("_")
        if name.startswith("pca"):
            x = {dataset: scores[:, : int(size)] for dataset, scores in self._components.items()}
            if name == "pca_procrustes":
                return self._space(alignment.consensus_alignment(self._graphs, x), whole=whole)
            return self._scorer.similarity(lambda a, b: alignment.aligned_similarity(a, b, x[a.name], x[b.name]))
        if model == "relations":
            return self._space(relational_vectors(self._model.graphs, self._model.records), raw=True, whole=whole)
        if name == "coexpression":
            seen = {dataset: pair[model.endswith("_z")] for dataset, pair in self._seen.items()}
            return self._scorer.similarity(lambda a, b: alignment.coexpression_similarity(a, b, seen))
        mean = {dataset: record.genes.mean for dataset, record in self._model.records.items()}
        return self._scorer.similarity(lambda a, b: alignment.expression_similarity(a, b, mean))

    def _from_file(self, job: Job, *, whole: bool) -> Result:
        path = vectors.vector_file(job.model, job.group, job.split, job.seed)
        saved = vectors.load(path)
        if saved is None:
            msg = f"no vectors in {path.parent} (benchmarks/README.md says how they are made)"
            raise LookupError(msg)
        if any(saved.vectors[graph.name].shape[0] != graph.n_genes for graph in self._graphs):
            msg = f"{path} is of other genes"
            raise LookupError(msg)
        result = self._space(saved.vectors, whole=whole)
        noted = saved.meta["cosine"]
        if job.model in PUBLISHED:  # has the graphs of its own edge rule, and so held-out edges of its own
            result.add({f"edges_{which}": noted[which] for which in vectors.EDGES})
        elif abs(result.measures["edges_positive"] - noted["positive"]) > SAME_EDGES:
            msg = f"{path} is of other held-out edges"
            raise LookupError(msg)
        result.add({f"decoder_{which}": value for which, value in saved.meta.get("decoder", {}).items()})
        if "cpu" in saved.meta:
            result.add({"seconds": saved.meta["cpu"]})
        return result


def _decoder(model: MuSeGNN) -> dict[str, float]:
    """Return how well the decoder of a model tells its held-out edges."""
    found = vectors.edge_means(model.graphs, lambda name: partial(model.decoder_scores, name))
    return {f"decoder_{which}": value for which, value in found.items()}
