"""Run jobs in parallel and bring what they find into one table of values over seeds."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import wilcoxon

from benchmarks.quality.scores import OURS, Job, build, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.quality.scores import Result

    Variants = Mapping[str, dict[str, Any]]  # values of any setting
    Table = dict[tuple[str, str], dict[str, list[float]]]

LEVEL = 0.05


def run_jobs(variants: Mapping[str, Variants], seeds: Sequence[int], *, rivals: bool) -> Table:
    """Train and score in as many processes as there are cores.

    Parameters
    ----------
    variants
        By group, settings of our model by what it is then called.
    seeds
        Training seeds.
    rivals
        Whether to train and score all others.

    Returns
    -------
    dict
        By group and model, and measure, the values over seeds; of rivals tried in several dimensions the best.
        ``stability`` (Jaccard index of nearest genes over pairs of seeds) and ``function_p`` (Wilcoxon's signed-rank
        test against ours over gene sets, each set's mean over seeds) have one value.
    """
    with tempfile.TemporaryDirectory() as folder:
        stores = {name: build(name, Path(folder)) for name in variants}
        jobs = [
            Job(name, seed, stores[name], settings, rivals=rivals, label=label)
            for seed in seeds
            for name, settings_by_label in variants.items()
            for label, settings in settings_by_label.items()
        ]
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
            return gather(jobs, list(pool.map(run, jobs)))


def gather(jobs: Sequence[Job], results: Sequence[Result]) -> Table:
    """Bring the results of jobs into one table, see :func:`run_jobs`."""
    from musegnn.evaluation.stability import neighbor_stability

    table: Table = {}
    nearest, by_set = defaultdict(list), defaultdict(list)
    for job, result in zip(jobs, results, strict=True):
        for model, found in result.measures.items():
            row = table.setdefault((job.group, model), {})
            for measure, value in found.items():
                row.setdefault(measure, []).append(value)
        for model, rows in result.nearest.items():
            nearest[job.group, model].append(rows)
        for model, values in result.by_set.items():
            by_set[job.group, model].append(values)
    for key, runs in nearest.items():
        if len(runs) > 1:
            table[key]["stability"] = [neighbor_stability(runs)]
    for (group, model), values in by_set.items():
        if model != OURS and (group, OURS) in by_set:
            table[group, model]["function_p"] = [_function_p(by_set[group, OURS], values)]
    return best_of_sizes(table)


def _function_p(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]]) -> float:
    difference = np.array([np.mean([a[k] for a in ours]) - np.mean([b[k] for b in theirs]) for k in ours[0]])
    return float(wilcoxon(difference).pvalue) if np.any(difference) else 1.0


def best_of_sizes(table: Table) -> Table:
    """Keep, of rivals that were tried in several dimensions, the best in each group, without the number in its name."""
    best: Table = {}
    for (group, model), found in table.items():
        stem, _, size = model.rpartition("_")
        key = (group, stem if size.isdigit() else model)
        if key not in best or _merit(found) > _merit(best[key]):
            best[key] = found
    return best


def _merit(found: Mapping[str, list[float]]) -> float:
    """Give what decides between sizes; 0 where none of it was measured, as without gene sets, and the first stays."""
    return next((statistics.mean(found[m]) for m in ("mrr", "function", "edges_cosine_positive") if m in found), 0.0)


def summarize(table: Table, measures: Sequence[str]) -> Iterator[tuple[str, str, str, float, float]]:
    """Give group, model, measure, mean and deviation over seeds (0 for one seed)."""
    for (group, model), found in table.items():
        for measure in (m for m in measures if m in found):
            yield group, model, measure, statistics.mean(found[measure]), deviation(found[measure])


def deviation(values: Sequence[float]) -> float:
    """Give the standard deviation over seeds, 0 for one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
