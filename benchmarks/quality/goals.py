"""Goals of the model: bounds of its own, and the values of baselines on the same splits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.quality.jobs import OURS
from benchmarks.quality.table import LEVEL
from benchmarks.registry import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.quality.table import Table

BOUNDS = {
    "joint_mrr": {"pbmc": 0.18, "lung": 0.020, "brain": 0.013, "atlas": 0.026},
    "mixing_within_tissue": {"pbmc": 0.8, "lung": 0.6, "brain": 0.6},
    "edges_positive": {"pbmc": 0.86, "lung": 0.90, "brain": 0.85, "atlas": 0.86},
    "pair_over_chance A549_rna A549_atac": {"lung": 3.0},
    "pair_over_chance snare_rna snare_atac": {"brain": 3.0},
}
"""By measure and group. The last two are RNA and accessibility of the same cells."""

JOINT_RATIO, TRANSFER_SHARE = 1.5, 0.98
ALIGNED, PAIRWISE, PREVIOUS = "pca_procrustes", "pca_pairwise", "previous"


def goals(table: Table, group: str) -> Iterator[Measurement]:
    """Return the goals of a group; those whose models or measures are absent are left out."""
    for measure, bounds in BOUNDS.items():
        if group in bounds and table.splits(group, OURS, measure):
            yield Measurement(
                shape=f"{group} {OURS}",
                metric=measure,
                value=table.mean(group, OURS, measure),
                unit=f"sd {table.deviation(group, OURS, measure):.2g}",
                goal=("value", ">=", bounds[group]),
            )
    yield from _joint_goals(table, group)
    aligned = table.sizes(group, ALIGNED)
    others = {PREVIOUS: PREVIOUS, "aligned PCA": table.best(group, aligned, "pair_mrr")}
    others["PCA aligned in pairs"] = table.best(group, table.sizes(group, PAIRWISE), "pair_mrr")
    for label, other in others.items():
        if other is not None and table.splits(group, other, "pair_mrr"):
            yield _against(table, group, "pair_mrr", other, label)
    clustered = [model for model in aligned if table.splits(group, model, "dataset_nmi")]
    if clustered and table.splits(group, OURS, "dataset_nmi"):
        lowest = min(clustered, key=lambda model: table.mean(group, model, "dataset_nmi"))
        yield Measurement(
            shape=f"{group} {OURS}",
            metric="dataset_nmi",
            value=table.mean(group, OURS, "dataset_nmi"),
            unit=f"sd {table.deviation(group, OURS, 'dataset_nmi'):.2g}; lowest of aligned PCA, {lowest}",
            goal=("value", "<=", table.mean(group, lowest, "dataset_nmi")),
        )
    yield from _transfer_goals(table, group)


def _joint_goals(table: Table, group: str) -> Iterator[Measurement]:
    best = table.best(group, table.sizes(group, ALIGNED), "joint_mrr")
    if best is None:
        return
    yield _against(table, group, "joint_mrr", best, "aligned PCA", JOINT_RATIO)
    margin, spread = table.margin(group, OURS, best, "joint_mrr", JOINT_RATIO)
    yield Measurement(
        shape=f"{group} {OURS}",
        metric=f"joint_mrr - {JOINT_RATIO} x aligned PCA",
        value=margin,
        unit=f"{best}; to be at least its deviation over splits",
        goal=("value", ">=", 0.0 if math.isnan(spread) else spread),
    )


def _transfer_goals(table: Table, group: str) -> Iterator[Measurement]:
    if not table.splits(group, OURS, "transfer"):
        return
    best = table.best(group, baselines(table, group), "transfer")
    if best is not None:
        ahead, _ = table.margin(group, OURS, best, "transfer")
        tested = table.p_values(group, best, "transfer")
        ours, theirs = table.mean(group, OURS, "transfer"), table.mean(group, best, "transfer")
        yield Measurement(
            shape=f"{group} {OURS}",
            metric="transfer: p of being worse",
            value=1.0 if ahead >= 0 or tested is None else tested[0],
            unit=f"{ours:.3f}, best baseline {best} {theirs:.3f}",
            goal=("value", ">=", LEVEL),
        )
    share = table.mean(group, OURS, "transfer") / table.mean(group, OURS, "within")
    yield Measurement(
        shape=f"{group} {OURS}",
        metric="transfer / within",
        value=share,
        unit="",
        goal=("value", ">=", TRANSFER_SHARE),
    )


def baselines(table: Table, group: str) -> list[str]:
    """Return the baselines of a group: all models but musegnn and its earlier versions."""
    return [model for model in table.models(group) if model not in {OURS, PREVIOUS}]


def _against(table: Table, group: str, measure: str, other: str, label: str, ratio: float = 1.0) -> Measurement:
    """Return the ratio to the mean of another model, over the splits of both."""
    splits = table.splits(group, other, measure)
    return Measurement(
        shape=f"{group} {OURS}",
        metric=f"{measure} / {label}",
        value=table.mean(group, OURS, measure, splits),
        unit=f"{len(splits)} splits" if len(splits) > 1 else "1 split",
        baseline=other,
        baseline_value=table.mean(group, other, measure),
        goal=("ratio", ">=", ratio),
        larger_is_better=True,
    )
