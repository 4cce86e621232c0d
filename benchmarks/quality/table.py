"""Rows of results as one table: values by measure, split and training seed, and what is computed from them.

A mean is over splits, of each split's mean over training seeds, and so is the deviation: it says how far another split
would differ. Means of two models are compared over the splits that both have.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import wilcoxon

from benchmarks.quality.jobs import OURS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from benchmarks.quality.jobs import Job
    from benchmarks.quality.scores import Result

LEVEL = 0.05
SET_MEASURES = ("transfer", "within")
MRR_P = {"joint_mrr": "joint_p", "pair_mrr": "pair_p"}


class Table:
    """All values of all models.

    Parameters
    ----------
    rows
        Jobs and what they found.
    """

    def __init__(self, rows: Iterable[tuple[Job, Result]]) -> None:
        self._values: dict[tuple[str, str], dict[str, dict[int, list[float]]]] = {}
        self._sets: dict[tuple[str, str, str], dict[int, list[dict[str, float]]]] = defaultdict(dict)
        for job, result in rows:
            found = self._values.setdefault((job.group, job.model), {})
            for measure, value in result.measures.items():
                found.setdefault(measure, {}).setdefault(job.split, []).append(value)
            for measure, by_set in result.by_set.items():
                self._sets[job.group, job.model, measure].setdefault(job.split, []).append(by_set)

    def groups(self) -> list[str]:
        """Return the groups in the order of the rows."""
        return list(dict.fromkeys(group for group, _ in self._values))

    def models(self, group: str) -> list[str]:
        """Return the models of a group in the order of the rows."""
        return [model for where, model in self._values if where == group]

    def measures(self, group: str, model: str) -> list[str]:
        """Return the measures that a model has."""
        return list(self._values.get((group, model), {}))

    def splits(self, group: str, model: str, measure: str) -> dict[int, float]:
        """Return the mean over training seeds of each split; empty where the model lacks the measure."""
        found = self._values.get((group, model), {}).get(measure, {})
        return {split: statistics.mean(values) for split, values in found.items()}

    def mean(self, group: str, model: str, measure: str, over: Iterable[int] | None = None) -> float:
        """Return the mean over splits, or over those of `over` alone; nan where there are none."""
        found = self.splits(group, model, measure)
        values = [value for split, value in found.items() if over is None or split in set(over)]
        return statistics.mean(values) if values else float("nan")

    def deviation(self, group: str, model: str, measure: str) -> float:
        """Return the standard deviation over splits; nan for fewer than two."""
        return deviation(list(self.splits(group, model, measure).values()))

    def seed_deviation(self, group: str, model: str, measure: str) -> float:
        """Return the standard deviation over training seeds within a split, mean over splits; nan for one seed."""
        found = self._values.get((group, model), {}).get(measure, {})
        spreads = [deviation(values) for values in found.values() if len(values) > 1]
        return statistics.mean(spreads) if spreads else float("nan")

    def p_values(self, group: str, model: str, measure: str) -> tuple[float, float] | None:
        """Return the largest and the median p of a model against musegnn; ``None`` where there is no test.

        For the MRRs over splits, each split's mean over training seeds; for gene sets twice the one p of Wilcoxon's
        signed-rank test over sets, each set's mean over the splits and seeds of both models.
        """
        if model == OURS or measure not in {*MRR_P, *SET_MEASURES}:
            return None
        if measure in SET_MEASURES:
            p = self._set_p(group, model, measure)
            return None if p is None else (p, p)
        found = self.splits(group, model, MRR_P[measure])
        return (max(found.values()), statistics.median(found.values())) if found else None

    def verdict(self, group: str, model: str, measure: str) -> str:
        """Return whether a model is ``better`` or ``worse`` than musegnn, or ``tied`` by its largest p."""
        found = self.p_values(group, model, measure)
        if found is None:
            return ""
        if found[0] >= LEVEL:
            return "tied"
        return "worse" if self.margin(group, OURS, model, measure)[0] > 0 else "better"

    def margin(self, group: str, model: str, other: str, measure: str, factor: float = 1.0) -> tuple[float, float]:
        """Return mean and deviation over the splits of both of ``model - factor * other``; nan where there are none."""
        one, two = self.splits(group, model, measure), self.splits(group, other, measure)
        values = [one[split] - factor * two[split] for split in one if split in two]
        return (statistics.mean(values), deviation(values)) if values else (float("nan"), float("nan"))

    def best(self, group: str, models: Iterable[str], measure: str) -> str | None:
        """Return the model of the largest mean; ``None`` where none has the measure."""
        known = [model for model in models if self.splits(group, model, measure)]
        return max(known, key=lambda model: self.mean(group, model, measure), default=None)

    def sizes(self, group: str, stem: str) -> list[str]:
        """Return a baseline in all of its dimensions: ``STEM_DIM``."""
        found = (model.rpartition("_") for model in self.models(group))
        return [f"{name}_{size}" for name, _, size in found if name == stem and size.isdigit()]

    def _set_p(self, group: str, model: str, measure: str) -> float | None:
        ours, theirs = (self._sets.get((group, name, measure), {}) for name in (OURS, model))
        both = [split for split in ours if split in theirs]
        if not both:
            return None
        one, two = (_mean_by_set([s for split in both for s in by[split]]) for by in (ours, theirs))
        difference = np.array([one[name] - two[name] for name in one if name in two])
        return float(wilcoxon(difference).pvalue) if np.any(difference) else 1.0


def _mean_by_set(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for by_set in found:
        for name, value in by_set.items():
            values[name].append(value)
    return {name: statistics.mean(each) for name, each in values.items()}


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation; nan for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def summarize(table: Table) -> Iterator[tuple[str, str, str, float, str]]:
    """Return group, model, measure, mean, and in words the deviation and how many splits, for every value."""
    for group in table.groups():
        for model in table.models(group):
            for measure in table.measures(group, model):
                n = len(table.splits(group, model, measure))
                spread = table.deviation(group, model, measure)
                words = f"sd {spread:.2g}, {n} splits" if n > 1 else "1 split"
                yield group, model, measure, table.mean(group, model, measure), words
