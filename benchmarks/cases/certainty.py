"""Whether the certainty of a gene says how well its co-expression and its neighbours hold for other cells.

The cells of each dataset are cut in two once. The certainty comes from the first cells alone, from halves of them, and
is held against what the other cells give: the z of all pairs, the thirty partners of largest z, and the thirty nearest
genes among vectors trained on either. The baseline is the closed form ``1 - 1 / mean(z^2)``, which needs no sums of
halves.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from benchmarks.certainty.halves import (
    closed_form,
    dense,
    partners_kept,
    row_agreement,
    split_dataset,
    vectors_kept,
)
from benchmarks.certainty.plain import without_certainty
from benchmarks.quality import groups
from benchmarks.registry import Check, Measurement
from benchmarks.run import interleave
from benchmarks.synthetic import SyntheticCounts
from musegnn.analysis.certainty import LOW
from musegnn.coexpression.build import build_dataset
from musegnn.config import DatasetConfig, GraphConfig
from musegnn.datasets import open_counts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from benchmarks.certainty.halves import Pair

CLOSED = "1 - 1 / mean(z^2)"
GOAL, COST_GOAL = 0.6, 1.15
SYNTHETIC = {"20000x1000": (20_000, 1000, 0.1), "4000x2000": (4000, 2000, 0.05)}
ABOUT = {"modality": "scrna", "tissue": "none", "species": "human"}


class Certainty:
    """Every dataset of the groups that are here, at the default number of genes."""

    name = "certainty"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check the two ends: co-expressed and independent genes; and that the graph does not depend on it."""
        del quick
        source = SyntheticCounts(3000, 200, 0.2, seed=1)
        dataset = DatasetConfig.model_validate({"name": "synthetic", "path": "synthetic", **ABOUT})
        config = GraphConfig(selection="all", z_store=0.0)
        record = build_dataset(source, dataset, config)
        with without_certainty():
            plain = build_dataset(source, dataset, config)
        difference = float(np.abs(dense(record.pairs) - dense(plain.pairs)).max())
        claim = "z is that of a build without certainty, within 1e-5"
        yield Check(claim=claim, holds=difference <= 1e-5, got=f"{difference:.1e}")
        shuffled = _Shuffled(3000, 200, 0.2, seed=1)
        null = build_dataset(shuffled, dataset, config).genes.certainty
        claim = "independent genes have a certainty below .3, the 95 % quantile"
        yield Check(claim=claim, holds=bool(np.quantile(null, 0.95) < 0.3), got=f"{np.quantile(null, 0.95):.2f}")
        planted = float(np.median(record.genes.certainty))
        yield Check(
            claim="genes of planted groups have more than .6, the median", holds=planted > 0.6, got=f"{planted:.2f}"
        )

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Compare with other cells, then time builds."""
        for name in groups.present()[-1:] if quick else [g for g in groups.present() if g != "atlas"] or ["atlas"]:
            with TemporaryDirectory(prefix="musegnn-") as folder:
                atlas = groups.group_atlas(name, Path(folder), {})
                pairs = [split_dataset(dataset, atlas.graph) for dataset in atlas.datasets]
                for pair in pairs:
                    yield from _compare(pair)
                for pair, (known, kept) in zip(pairs, vectors_kept(pairs, atlas, Path(folder)).values(), strict=True):
                    yield _rank(pair, "nearest genes", known, kept)
        yield from _costs(quick=quick)


def _compare(pair: Pair) -> Iterator[Measurement]:
    certainty = pair.record.genes.certainty
    agreement, partners = row_agreement(pair), partners_kept(pair)
    yield _rank(pair, "correlation of z", pair.known, agreement[pair.known])
    yield _rank(pair, "partners", pair.known, partners[pair.known], goal=True)
    error = (certainty - np.maximum(agreement, 0.0))[pair.known]
    baseline = (closed_form(pair.z) - np.maximum(agreement, 0.0))[pair.known]
    for metric, ours, theirs in (
        ("certainty less correlation", error.mean(), baseline.mean()),
        ("their distance", np.abs(error).mean(), np.abs(baseline).mean()),
    ):
        yield Measurement(
            shape=pair.shape, metric=metric, value=float(ours), unit="mean over genes", baseline=CLOSED,
            baseline_value=float(theirs),
        )  # fmt: skip
    low = certainty < LOW
    yield Measurement(shape=pair.shape, metric="low genes", value=float(low.mean()), unit="share")
    for words, which in (("low", low), ("other", ~low)):
        if (which & pair.known).any():
            value = float(partners[which & pair.known].mean())
            yield Measurement(shape=pair.shape, metric=f"partners kept, {words}", value=value, unit="share")


def _rank(
    pair: Pair, what: str, known: NDArray[np.bool_], kept: NDArray[np.float64], *, goal: bool = False
) -> Measurement:
    """Correlate certainty, and the closed form, with what other cells keep."""
    values = (pair.record.genes.certainty[known], closed_form(pair.z)[known])
    ours, baseline = (float(spearmanr(value, kept).statistic) for value in values)
    return Measurement(
        shape=pair.shape,
        metric=f"rank correlation: {what}",
        value=ours,
        unit="",
        baseline=CLOSED,
        baseline_value=baseline,
        goal=("value", ">=", GOAL) if goal else None,
        larger_is_better=True,
    )


class _Shuffled(SyntheticCounts):
    """The same kind of counts without groups of genes."""

    def _unit(self, start: int):  # noqa: ANN202  as of the base class
        from scipy.sparse import csr_matrix

        from musegnn.random import stream

        rng = stream(self._seed, "bench_cells", start)
        n = min(500, self.n_cells - start)
        rate = rng.lognormal(0.0, 0.4, (n, 1)) * self._share * rng.gamma(2.0, 0.5, (n, self.n_genes))
        return csr_matrix(rng.poisson(rate).astype(np.int32))


def _costs(*, quick: bool) -> Iterator[Measurement]:
    """Time whole builds with and without certainty, in turns."""
    cases = []
    for shape, sizes in SYNTHETIC.items():
        dataset = DatasetConfig.model_validate({"name": "synthetic", "path": "synthetic", **ABOUT})
        cases.append((f"synthetic {shape}", SyntheticCounts(*sizes), dataset, GraphConfig(n_genes=sizes[1])))
    real = groups.shared_folder() / "data" / "hs_pbmc_10x_pbmc3k.h5ad"
    if real.is_file():
        dataset = DatasetConfig.model_validate({"name": "pbmc3k", "path": real, **ABOUT})
        cases.insert(0, ("pbmc3k 2700x1000", open_counts(dataset), dataset, GraphConfig()))
    for shape, source, dataset, config in cases[:1] if quick else cases:

        def ours(source=source, dataset=dataset, config=config) -> None:  # noqa: ANN001  of this round
            build_dataset(source, dataset, config)

        def baseline(source=source, dataset=dataset, config=config) -> None:  # noqa: ANN001
            with without_certainty():
                build_dataset(source, dataset, config)

        seconds, plain = interleave(ours, baseline, rounds=3 if quick else 5)
        yield Measurement(
            shape=shape, metric="cpu_time of a build", value=seconds, unit="s", baseline="without", baseline_value=plain
        )
        yield Measurement(
            shape=shape, metric="cpu_time over without", value=seconds / plain, unit="",
            goal=("value", "<=", COST_GOAL),
        )  # fmt: skip


CASE = Certainty()
