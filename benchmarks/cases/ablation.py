"""What each part of the default model does: one changed at a time, over three seeds, on PBMC and the example atlas.

Convolutions are compared after fewer rounds, as some of them take ten times as long.

Writes ``benchmarks/reports/ablation.md`` and a figure when both groups ran with all seeds.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.quality import groups, report
from benchmarks.quality.table import run_jobs, summarize
from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDS = (0, 1, 2)
CORE: dict[str, dict[str, Any]] = {  # values of any setting
    "default": {},
    "no message passing": {"model": {"encoder": "none"}},
    "layers alone": {"model": {"direct": False}},
    "profiles too": {"model": {"features": "both"}},
    "spectral start": {"model": {"start": "spectral"}},
    "random start": {"model": {"start": "random"}},
    "no word dropout": {"model": {"feature_dropout": 0.0}},
    "no alignment loss": {"training": {"loss": {"alignment": 0.0}}},
    "published losses": {
        "training": {"loss": {"alignment": 0.0, "similarity": 1.0, "contrast": 0.01, "reconstruction": 1.0}}
    },
    "reconstruction 1": {"training": {"loss": {"reconstruction": 1.0}}},
    "32 dimensions": {"model": {"dim": 32}},
}
MORE: dict[str, dict[str, Any]] = {
    "edge dropout 0.2": {"model": {"edge_dropout": 0.2}},
    "no similarity, no contrast": {"training": {"loss": {"similarity": 0.0, "contrast": 0.0}}},
    "temperature 0.2": {"training": {"loss": {"alignment_temperature": 0.2}}},
    "no reconstruction": {"training": {"loss": {"reconstruction": 0.0}}},
    "inner-product decoder": {"model": {"decoder": "inner"}},
    "uniform partners": {"training": {"partners": "uniform"}},
    "weight decay 0.01": {"training": {"weight_decay": 0.01}},
    "layers by tissue too": {"model": {"share_by": ["modality", "tissue"]}},
    "25 rounds": {"training": {"rounds": 25}},
    "300 rounds": {"training": {"rounds": 300}},
    "rates x 3": {"training": {"lr_dataset": 3e-4, "lr_shared": 1e-3}},
    "256 dimensions": {"model": {"dim": 256}},
}
ENCODER_ROUNDS = 40
ENCODERS: dict[str, dict[str, Any]] = {
    f"{encoder}, {ENCODER_ROUNDS} rounds": {"model": {"encoder": encoder}, "training": {"rounds": ENCODER_ROUNDS}}
    for encoder in ("transformer", "gcn", "gat", "gps", "graphormer", "magna")
}
VARIANTS = {"pbmc": CORE | MORE | ENCODERS, "atlas": CORE}
QUICK_VARIANTS = ("default", "no message passing")
MEASURES = ("mrr", "mrr_over_chance", "anchor_mrr", "edges_cosine_positive", "rank_share", "function", "modules")
REPORTS = Path(__file__).resolve().parents[1] / "reports"


class Ablation:
    """The default with one part changed at a time."""

    name = "ablation"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that scores of noise are those of chance, and that variants are variants."""
        yield from report.noise_checks()
        yield Check(claim="every variant changes a setting", holds=all(_changes()), got=f"{sum(_changes())} do")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Train every variant."""
        quickly = {"atlas": {name: CORE[name] for name in QUICK_VARIANTS}}
        variants = {group: v for group, v in (quickly if quick else VARIANTS).items() if group in groups.present()}
        table = run_jobs(variants, SEEDS[:1] if quick else SEEDS, rivals=False)
        for group, variant, measure, value, spread in summarize(table, MEASURES):
            default = None if variant == "default" else statistics.mean(table[group, "default"][measure])
            yield Measurement(
                shape=f"{group} {variant}",
                metric=measure,
                value=value,
                unit=f"sd {spread:.2g}",
                rival="" if default is None else "default",
                rival_value=default,
                larger_is_better=True,
            )
        if not quick and len(variants) == len(VARIANTS):
            report.write_ablation(table, REPORTS)


def _changes() -> list[bool]:
    """Tell of each variant but the default whether it differs from it."""
    plain = groups.group_atlas("atlas", Path(), {})
    variants = CORE | MORE | ENCODERS
    return [groups.group_atlas("atlas", Path(), v) != plain for name, v in variants.items() if name != "default"]


CASE = Ablation()
