"""What models make of real tissues, over three seeds: ours beside its start, the published recipe and all rivals.

Writes ``benchmarks/reports/quality.md`` and a figure when all groups ran with all seeds.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.quality import groups, report
from benchmarks.quality.scores import OURS
from benchmarks.quality.table import LEVEL, deviation, run_jobs, summarize
from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.quality.table import Table

SEEDS = (0, 1, 2)
QUICK_GROUPS = ("pbmc", "atlas")
RIVALS = ("untrained", "published", "pca_procrustes", "coexpression_profile", "coexpression_z")
REPORTS = Path(__file__).resolve().parents[1] / "reports"
POSITIVE_EDGES, RANK_SHARE, OVER_CHANCE = 0.9, 1 / 3, 5.0


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
        table = run_jobs({name: {OURS: {}} for name in names}, SEEDS[:1] if quick else SEEDS, rivals=True)
        for group, model, measure, value, spread in summarize(table, report.MEASURES):
            shape, unit = f"{group} {model}", f"sd {spread:.2g}"
            yield Measurement(shape=shape, metric=measure, value=value, unit=unit, larger_is_better=True)
        for group in dict.fromkeys(group for group, _ in table):
            yield from goals(group, table)
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


def goals(group: str, table: Table) -> Iterator[Measurement]:
    """Hold ours against the goals in one group."""
    ours = table[group, OURS]
    spread = deviation(ours["mrr"])
    for rival in RIVALS:
        theirs = table[group, rival]
        margin = statistics.mean(ours["mrr"]) - statistics.mean(theirs["mrr"])
        yield Measurement(
            shape=f"{group} {OURS} - {rival}",
            metric="mrr margin",
            value=margin,
            unit=f"2 sd {2 * spread:.2g}, largest p over seeds {max(theirs['mrr_p']):.2g}",
            goal=("value", ">=", 2 * spread),
        )
    yield _goal(group, "edges_cosine_positive", statistics.mean(ours["edges_cosine_positive"]), POSITIVE_EDGES)
    yield _goal(group, "rank_share", statistics.mean(ours["rank_share"]), RANK_SHARE)
    if "function" in ours:
        yield _function_goal(group, table)
    for pair in (p for p in report.PAIRS if f"over_chance {p}" in ours):
        yield _goal(group, f"over_chance {pair}", statistics.mean(ours[f"over_chance {pair}"]), OVER_CHANCE)


def _function_goal(group: str, table: Table) -> Measurement:
    """Ask whether the best rival at gene sets is better than ours beyond chance; 1 where none is better."""
    values = {m: statistics.mean(t["function"]) for (g, m), t in table.items() if g == group and "function" in t}
    best = max((m for m in values if not m.startswith(OURS)), key=lambda m: values[m])
    behind = values[OURS] < values[best]
    return Measurement(
        shape=f"{group} {OURS}",
        metric="function: p of being worse",
        value=table[group, best]["function_p"][0] if behind else 1.0,
        unit=f"{values[OURS]:.3f}, best rival {best} {values[best]:.3f}",
        goal=("value", ">=", LEVEL),
    )


def _goal(group: str, measure: str, value: float, bound: float) -> Measurement:
    return Measurement(shape=f"{group} {OURS}", metric=measure, value=value, unit="", goal=("value", ">=", bound))


CASE = Quality()
