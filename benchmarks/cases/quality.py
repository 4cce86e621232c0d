"""What models make of real tissues, over three seeds: ours beside its start, the published recipe and all rivals.

Writes ``benchmarks/reports/quality.md`` and a figure when all groups ran with all seeds.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.quality import groups, report
from benchmarks.quality.scores import Job, build, run
from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.quality.report import Table

SEEDS = (0, 1, 2)
QUICK_GROUPS = ("pbmc", "atlas")
RIVALS = ("untrained", "published", "pca_procrustes", "coexpression_profile", "coexpression_z")
REPORTS = Path(__file__).resolve().parents[1] / "reports"
POSITIVE_EDGES, RANK_SHARE = 0.9, 1 / 3


class Quality:
    """Ours and all rivals on three groups of public data and on the example atlas."""

    name = "quality"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that noise scores like noise, and that what is held out is nowhere in what training sees."""
        yield from report.noise_checks()
        yield from holdout_checks()

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Train and score, then compare over seeds."""
        names = [name for name in groups.present() if not quick or name in QUICK_GROUPS]
        seeds = SEEDS[:1] if quick else SEEDS
        table = run_jobs(names, seeds)
        yield from compare(table)
        if not quick and len(names) == len(groups.NAMES):
            report.write_report(table, REPORTS)


def holdout_checks() -> Iterator[Check]:
    """Look for held-out edges and genes of the example atlas in what training sees."""
    import musegnn as mg

    with tempfile.TemporaryDirectory() as folder:
        atlas = groups.group_atlas("atlas", Path(folder), {"graph": {"n_genes": 200}})
        model = mg.MuSeGNN(mg.build_graphs(atlas, Path(folder) / "store"), atlas)
    leaked = 0
    for graph in model.graphs:
        split = model.holdout.datasets[graph.name]
        seen = {(int(r), int(c)) for r, c in zip(graph.edges.rows, graph.edges.indices, strict=True)}
        held = zip(split.rows.tolist(), split.columns.tolist(), strict=True)
        leaked += sum((r, c) in seen or (c, r) in seen for r, c in held)
    yield Check(claim="no held-out edge is a training edge", holds=leaked == 0, got=f"{leaked} are")
    hidden = {key for graph in model.graphs for key in graph.keys[~graph.trainable].tolist()}
    shown = {key for graph in model.graphs for key in graph.keys[graph.trainable].tolist()}
    both = len(hidden & shown)
    yield Check(claim="a gene held out in one dataset is held out in all", holds=both == 0, got=f"{both} are not")


def run_jobs(names: list[str], seeds: tuple[int, ...]) -> Table:
    """Score all models of all groups and seeds, in as many processes as there are cores."""
    table: Table = {}
    with tempfile.TemporaryDirectory() as folder:
        stores = {name: build(name, Path(folder)) for name in names}
        jobs = [Job(name, seed, stores[name], {}, rivals=True) for seed in seeds for name in names]
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
            for job, scores in zip(jobs, pool.map(run, jobs), strict=True):
                for model, found in scores.items():
                    for measure, value in found.items():
                        table.setdefault((job.group, model), {}).setdefault(measure, []).append(value)
    return report.best_of_sizes(table)


def compare(table: Table) -> Iterator[Measurement]:
    """Turn scores into rows: means over seeds, ours against those that matter, and the goals."""
    for (group, model), found in table.items():
        for measure in (m for m in report.MEASURES if m in found):
            value = statistics.mean(found[measure])
            deviation = statistics.stdev(found[measure]) if len(found[measure]) > 1 else 0.0
            yield Measurement(
                shape=f"{group} {model}", metric=measure, value=value, unit=f"sd {deviation:.2g}", larger_is_better=True
            )
    for group in dict.fromkeys(group for group, _ in table):
        ours = table[group, "musegnn"]
        deviation = statistics.stdev(ours["mrr"]) if len(ours["mrr"]) > 1 else 0.0
        for rival in RIVALS:
            theirs = statistics.mean(table[group, rival]["mrr"])
            margin = statistics.mean(ours["mrr"]) - theirs
            yield Measurement(
                shape=f"{group} musegnn - {rival}",
                metric="mrr margin",
                value=margin,
                unit=f"2 sd {2 * deviation:.2g}",
                goal=("value", ">=", 2 * deviation),
            )
        yield _goal(group, "edges_cosine_positive", statistics.mean(ours["edges_cosine_positive"]), POSITIVE_EDGES)
        yield _goal(group, "rank_share", statistics.mean(ours["rank_share"]), RANK_SHARE)
        if "function" in ours:
            rivals = {
                m: statistics.mean(t["function"]) for (g, m), t in table.items() if g == group and "function" in t
            }
            best = max((name for name in rivals if name != "musegnn"), key=lambda name: rivals[name])
            yield Measurement(
                shape=f"{group} musegnn",
                metric="function",
                value=rivals["musegnn"],
                unit="AUROC",
                rival=f"best rival: {best}",
                rival_value=rivals[best],
                goal=("ratio", ">=", 1.0),
                larger_is_better=True,
            )
        for pair in (p for p in report.PAIRS if f"over_chance {p}" in ours):
            yield _goal(group, f"over_chance {pair}", statistics.mean(ours[f"over_chance {pair}"]), 5.0)


def _goal(group: str, measure: str, value: float, bound: float) -> Measurement:
    return Measurement(shape=f"{group} musegnn", metric=measure, value=value, unit="", goal=("value", ">=", bound))


CASE = Quality()
