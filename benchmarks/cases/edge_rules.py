"""Edge rules on real data: how dense, how stable, why; and what serves scATAC."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import vstack

from benchmarks.edges.accessibility import (
    bernoulli_from_moments,
    bernoulli_test,
    measure_agreement,
    measure_calibration,
)
from benchmarks.edges.data import Counts, find_datasets, load_selected
from benchmarks.edges.stability import (
    measure_causes,
    measure_fresh,
    measure_halves,
    measure_repeats,
    measure_replication,
    repeat_cells,
)
from benchmarks.registry import Check, Measurement
from benchmarks.synthetic import SyntheticCounts
from musegnn.coexpression.cscore import cscore

if TYPE_CHECKING:
    from collections.abc import Iterator

N_GENES = 600
TOLERANCE = 1e-9
SEEDS, QUICK_SEEDS = 5, 1
PERMUTATIONS, QUICK_PERMUTATIONS = 10, 2
FRESH, QUICK_FRESH = (1000, 2000, 4000, 8000, 16_000, 32_000), (1000, 2000)
QUICK_DATASETS = ("hs_brain_dlpfc_151673", "hs_brain_dlpfc_151674", "dlpfc_151673", "dlpfc_151674")
REPEATED = 3000
LIKE = (
    ("hs_brain_dlpfc_151673", "hs_brain_dlpfc_151674"),
    ("hs_pbmc_ifnb_ctrl", "hs_pbmc_ifnb_stim"),
    ("hs_lung_balf_C144", "hs_lung_balf_C146"),
    ("dlpfc_151673", "dlpfc_151674"),
)
MODALITIES = (
    ("mm_cortex_snareseq_rna", "mm_cortex_snareseq_atac_ga"),
    ("hs_a549_scicar_rna", "hs_a549_scicar_atac_ga"),
    ("mm_cortex_snareseq_rna", "mm_forebrain_atac_ga"),
    ("hs_brain_dlpfc_151673", "mm_cortex_snareseq_atac_ga"),
    ("hs_brain_dlpfc_151673", "mm_forebrain_atac_ga"),
    ("cortex_rna", "forebrain_atac"),
)


class EdgeRules:
    """Every dataset beside the checkout (or of the example atlas) at 600 genes that the build selects."""

    name = "edge-rules"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check what the measurements rely on: z of repeated cells, and both forms of the Bernoulli model."""
        del quick
        counts, depth = SyntheticCounts(1500, 200, 0.1, seed=3).load()
        once, thrice = cscore(counts, depth), cscore(vstack([counts] * 3, format="csr"), np.tile(depth, 3))
        difference = np.nanmax(np.abs(thrice.z - repeat_cells(once.z, 3)))
        claim = "z of the same cells three times = sqrt(3) z within 1e-9"
        yield Check(claim=claim, holds=bool(difference <= TOLERANCE), got=f"{difference:.1e}")
        yield from _check_bernoulli()

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Measure densities and their stability, their causes, and the agreement of RNA and ATAC; five digits."""
        for row in self._measure(quick=quick):
            chance = None if row.baseline_value is None else float(f"{row.baseline_value:.5g}")
            yield replace(row, value=float(f"{row.value:.5g}"), baseline_value=chance)

    def _measure(self, *, quick: bool) -> Iterator[Measurement]:
        datasets = {dataset.name: dataset for dataset in find_datasets()}
        loaded: dict[str, Counts] = {}
        for name, dataset in datasets.items():
            if quick and name not in QUICK_DATASETS:
                continue
            loaded[name] = load_selected(dataset, N_GENES)
            yield from measure_halves(loaded[name], QUICK_SEEDS if quick else SEEDS)
            yield from measure_causes(loaded[name])
            if len(loaded[name].depth) >= REPEATED or quick:
                yield from measure_repeats(loaded[name])
        yield from measure_fresh(QUICK_FRESH if quick else FRESH, N_GENES)
        for one, other in LIKE:
            if one in loaded and other in loaded:
                yield from measure_replication(loaded[one], loaded[other])
                yield from measure_replication(loaded[other], loaded[one])
        for rna, atac in MODALITIES:
            if rna in datasets and atac in datasets:
                permutations = QUICK_PERMUTATIONS if quick else PERMUTATIONS
                yield from measure_agreement(datasets[rna], datasets[atac], permutations)
                if quick:
                    break
        for atac in dict.fromkeys(atac for _, atac in MODALITIES):
            if atac in datasets and not quick:
                yield from measure_calibration(datasets[atac], N_GENES)


def _check_bernoulli() -> Iterator[Check]:
    rng = np.random.default_rng(0)
    upper = np.triu_indices(40, 1)
    depth = np.clip(np.exp(rng.normal(6.0, 1.0, 3000)), 97.0, 12_408.0)
    rate = np.exp(rng.uniform(np.log(1e-5), np.log(3e-3), 40))
    binary = (rng.random((3000, 40)) < -np.expm1(-depth[:, None] * rate)).astype(np.float64)
    difference = np.abs(bernoulli_from_moments(binary, depth, 48) - bernoulli_test(binary, depth))[upper].max()
    claim = "Bernoulli test from 48 moments over a 128-fold range of depths = the sums as defined, within 1e-9"
    yield Check(claim=claim, holds=bool(difference <= TOLERANCE), got=f"{difference:.1e}")
    rare, even = (rng.random((2000, 40)) < 0.002).astype(np.float64), np.full(2000, 100.0)
    poisson = cscore(rare.astype(np.int32), even).z
    difference = np.nanmax(np.abs(bernoulli_test(rare, even) - poisson)[upper] / (1.0 + np.abs(poisson[upper])))
    claim = "for genes in 0.2 % of cells of equal depth it is the clamped test within 1 % of 1 + abs(z)"
    yield Check(claim=claim, holds=bool(difference <= 0.01), got=f"{difference:.1e}")


CASE = EdgeRules()
