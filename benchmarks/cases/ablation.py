"""What each part of the model adds: one changed at a time, on the hold-outs on which defaults are chosen.

Writes ``benchmarks/reports/ablation.md`` and a figure when all groups ran.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.quality import checks, groups, report
from benchmarks.quality.jobs import Job, run_jobs
from benchmarks.quality.table import Table, summarize
from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT = "default"
VARIANTS: dict[str, dict[str, Any]] = {  # values of any setting
    DEFAULT: {},
    "attention, 100 rounds": {"model": {"encoder": "transformer"}, "training": {"rounds": 100}},
    "100 rounds": {"training": {"rounds": 100}},
}
QUICK_GROUP, QUICK_VARIANTS = "pbmc", (DEFAULT,)
MEASURES = ("joint_mrr", "pair_mrr", "mixing", "edges_positive", "decoder_all", "transfer", "seconds")
REPORTS = Path(__file__).resolve().parents[1] / "reports"


class Ablation:
    """The default with one part changed at a time."""

    name = "ablation"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that scores of noise are those of chance, and that variants are variants."""
        yield from checks.noise_checks()
        yield Check(claim="every variant changes a setting", holds=all(_changes()), got=f"{sum(_changes())} do")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Train and score every variant."""
        names = [name for name in groups.CHOICE_GROUPS if name in groups.present()]
        if quick:
            names = [name for name in names if name == QUICK_GROUP]
        chosen = {name: VARIANTS[name] for name in (QUICK_VARIANTS if quick else VARIANTS)}
        splits = groups.CHOICE_SPLITS[:1] if quick else groups.CHOICE_SPLITS
        jobs = [
            Job(group, split, 0, variant, settings)
            for group in names
            for split in splits
            for variant, settings in chosen.items()
        ]
        table = Table(run_jobs(jobs), subject=DEFAULT)
        for group, variant, measure, value, words in summarize(table):
            if measure in MEASURES:
                yield Measurement(
                    shape=f"{group} {variant}",
                    metric=measure,
                    value=value,
                    unit=words,
                    baseline="" if variant == DEFAULT else DEFAULT,
                    baseline_value=None if variant == DEFAULT else table.mean(group, DEFAULT, measure),
                    larger_is_better=measure != "seconds",
                )
        if not quick and len(names) == len(groups.CHOICE_GROUPS):
            report.write_ablation(table, REPORTS)


def _changes() -> list[bool]:
    """Return of each variant but the default whether it differs from it."""
    plain = groups.group_atlas("atlas", Path(), {})
    return [groups.group_atlas("atlas", Path(), v) != plain for name, v in VARIANTS.items() if name != DEFAULT]


CASE = Ablation()
