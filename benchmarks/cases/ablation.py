"""What each part of the default model does: one taken away at a time, over three seeds, on PBMC and the example atlas.

Writes ``benchmarks/reports/ablation.md`` and a figure when both groups ran with all seeds.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.quality import groups, report
from benchmarks.quality.scores import Job, build, run
from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.quality.report import Table

SEEDS = (0, 1, 2)
GROUPS = ("pbmc", "atlas")
VARIANTS: dict[str, dict[str, Any]] = {  # values of any setting
    "default": {},
    "no message passing": {"model": {"encoder": "none"}},
    "spectral start": {"model": {"start": "spectral"}},
    "random start": {"model": {"start": "random"}},
    "no word dropout": {"model": {"feature_dropout": 0.0}},
    "no alignment loss": {"training": {"loss": {"alignment": 0.0}}},
    "reconstruction 1": {"training": {"loss": {"reconstruction": 1.0}}},
    "32 dimensions": {"model": {"dim": 32}},
}
MEASURES = ("mrr", "edges_cosine_positive", "edges_decoder_all", "rank_share", "function")
REPORTS = Path(__file__).resolve().parents[1] / "reports"


class Ablation:
    """The default without one part at a time."""

    name = "ablation"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that scores of noise are those of chance."""
        yield from report.noise_checks()
        yield Check(claim="every variant changes a setting", holds=all(_changes()), got=f"{sum(_changes())} do")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Train every variant."""
        names = [name for name in groups.present() if name in (GROUPS[-1:] if quick else GROUPS)]
        variants = dict(list(VARIANTS.items())[:2]) if quick else VARIANTS
        table = run_variants(names, SEEDS[:1] if quick else SEEDS, variants)
        for (group, variant), found in table.items():
            for measure in (m for m in MEASURES if m in found):
                values, default = found[measure], table[group, "default"][measure]
                deviation = statistics.stdev(values) if len(values) > 1 else 0.0
                yield Measurement(
                    shape=f"{group} {variant}",
                    metric=measure,
                    value=statistics.mean(values),
                    unit=f"sd {deviation:.2g}",
                    rival="" if variant == "default" else "default",
                    rival_value=None if variant == "default" else statistics.mean(default),
                    larger_is_better=True,
                )
        if not quick and len(names) == len(GROUPS):
            report.write_ablation(table, REPORTS)


def run_variants(names: list[str], seeds: tuple[int, ...], variants: dict[str, dict[str, Any]]) -> Table:
    """Score all variants of all groups and seeds, in as many processes as there are cores."""
    table: Table = {}
    with tempfile.TemporaryDirectory() as folder:
        stores = {name: build(name, Path(folder)) for name in names}
        keys = [(name, variant) for name in names for variant in variants for _ in seeds]
        jobs = [
            Job(name, seed, stores[name], settings, rivals=False)
            for name in names
            for settings in variants.values()
            for seed in seeds
        ]
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
            for key, scores in zip(keys, pool.map(run, jobs), strict=True):
                for measure, value in scores["musegnn"].items():
                    table.setdefault(key, {}).setdefault(measure, []).append(value)
    return table


def _changes() -> list[bool]:
    """Tell of each variant but the default whether it differs from it."""
    plain = groups.group_atlas("atlas", Path(), {})
    return [groups.group_atlas("atlas", Path(), v) != plain for name, v in VARIANTS.items() if name != "default"]


CASE = Ablation()
