"""What models make of real tissues: ours, the former default, the published recipe and all baselines.

Defaults are chosen on other hold-outs than those here, see :mod:`benchmarks.quality.groups`. Writes
``benchmarks/reports/quality.md`` and a figure when all groups ran.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.quality import checks, groups, report
from benchmarks.quality.goals import goals
from benchmarks.quality.jobs import CLOSED, ONCE, OURS, PUBLISHED, TRAINED, UNTRAINED, Job, run_jobs
from benchmarks.quality.table import Table, summarize
from benchmarks.registry import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.registry import Check

QUICK_GROUPS = ("pbmc", "atlas")
REPORTS = Path(__file__).resolve().parents[1] / "reports"
LOWER = ("dataset_nmi", "seconds", "n_clusters")


class Quality:
    """All models on three groups of public data and on the example atlas."""

    name = "quality"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that noise scores like noise, and that what is held out is nowhere in what training sees."""
        yield from checks.noise_checks()
        yield from checks.holdout_checks()

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Score all models and hold ours against its goals."""
        names = [name for name in groups.present() if not quick or name in QUICK_GROUPS]
        splits, seeds = (groups.REPORT_SPLITS[:1], (0,)) if quick else (groups.REPORT_SPLITS, groups.SEEDS)
        table = Table(run_jobs(make_jobs(names, splits, seeds)))
        for group, model, measure, value, words in summarize(table):
            if " " in measure and model != OURS:  # single pairs and tissues
                continue
            yield Measurement(
                shape=f"{group} {model}",
                metric=measure,
                value=value,
                unit=words,
                larger_is_better=measure not in LOWER,
            )
        for group in table.groups():
            yield from goals(table, group)
        if not quick and len(names) == len(groups.NAMES):
            report.write_report(table, REPORTS)


def make_jobs(names: Sequence[str], splits: Sequence[int], seeds: Sequence[int]) -> list[Job]:
    """Return a job for every row of the comparison.

    Parameters
    ----------
    names
        Groups.
    splits, seeds
        Seeds of the hold-outs, and training seeds of our model on the first of them: they decide the first guess of
        eigenvectors. Slow models and those that say little are scored on the first split alone.
    """
    jobs = []
    for group in names:
        for split in splits:
            first = split == groups.REPORT_SPLITS[0]
            jobs += [Job(group, split, seed, OURS) for seed in (seeds if first else seeds[:1])]
            others = (UNTRAINED, *PUBLISHED, *ONCE, *TRAINED) if first else ()
            jobs += [Job(group, split, 0, model) for model in ("previous", *CLOSED, *others)]
    return jobs


CASE = Quality()
