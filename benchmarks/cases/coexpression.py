"""CS-CORE: the moment and sparse Gram formulation against dense matrices; time and agreement."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix, load_npz

from benchmarks.peers.cscore_dense import DenseResult, cscore_dense
from benchmarks.registry import Check, Measurement
from benchmarks.run import interleave
from benchmarks.synthetic import SyntheticCounts
from musegnn.coexpression.cscore import CSCoreResult, cscore
from musegnn.coexpression.edges import critical_z

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-9
QUICK = ((5000, 1000, 0.1, None), (2000, 2000, 0.1, None))
FULL = ((50_000, 1000, 0.1, 30.0), (10_000, 3000, 0.1, 15.0))
DEPTHS = ((900, 29_000), (200, 63_000), (100, 100_000), (10, 100_000), (1, 1_000_000))
GOLDEN = Path(os.environ.get("MUSEGNN_SHARED", ROOT.parent / "shared")) / "golden"


class Coexpression:
    """Cells x genes of synthetic counts; the microglia and synthetic golden files where they are at hand."""

    name = "coexpression"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Compare ours with the baseline, and both with the published programs' own output."""
        del quick
        counts, depth = SyntheticCounts(3000, 400, 0.1, seed=1).load()
        yield from _agree("synthetic 3000x400", cscore(counts, depth), cscore_dense(counts.toarray() * 1.0, depth))
        if GOLDEN.is_dir():
            yield from _golden(GOLDEN)

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Time both on the same counts, and check every timed result."""
        rounds = 2 if quick else 5
        yield from _depth_ranges()
        if GOLDEN.is_dir():
            yield from _microglia(GOLDEN, rounds=15)
        for n_cells, n_genes, density, goal in QUICK if quick else FULL:
            counts, depth = SyntheticCounts(n_cells, n_genes, density).load()
            yield from _compare(_shape(counts), counts, depth, goal, rounds)


def _golden(folder: Path) -> Iterator[Check]:
    given = np.load(folder / "cscore_mic500_input.npz")
    golden = np.load(folder / "cscore_mic500_R.npz")
    counts = csr_matrix((given["data"], given["indices"], given["indptr"]), shape=tuple(given["shape"]))
    ours = cscore(counts, given["seq_depth"])
    baseline = cscore_dense(counts.toarray().astype(np.float64), given["seq_depth"])
    for who, z, estimate in (("ours", ours.z, ours.estimate), ("dense", baseline.z, baseline.estimate)):
        yield _within(f"{who} = CS-CORE R, microglia: z", np.abs(z - golden["test_stat"]).max())
        yield _within(f"{who} = CS-CORE R, microglia: estimate", np.abs(estimate - golden["est"]).max())
    counts = load_npz(folder / "cscore_syn1000x2000_input.npz")
    depth = np.load(folder / "cscore_syn1000x2000_seq_depth.npy")
    expected = np.load(folder / "cscore_syn1000x2000_py_upper.npz")["test_stat"]
    exact = cscore(counts, depth, negative_variance="reference", compat="python")
    difference = np.nanmax(np.abs(exact.z[np.triu_indices(1000)] - expected))
    yield _within("ours (reference) = CS-CORE Python, 291 genes of negative variance: z", difference)


def _within(claim: str, difference: float) -> Check:
    return Check(claim=f"{claim} within {TOLERANCE:g}", holds=bool(difference <= TOLERANCE), got=f"{difference:.1e}")


def _agree(what: str, ours: CSCoreResult, baseline: DenseResult) -> Iterator[Check]:
    positive = baseline.sigma > 0
    pairs = np.ix_(positive, positive)
    z, other = ours.z[pairs], baseline.z[pairs]
    yield _within(f"ours = dense, {what}: z", np.abs(z - other).max())
    yield _within(f"ours = dense, {what}: estimate", np.abs(ours.estimate - baseline.estimate)[pairs].max())
    cut = critical_z(0.005)
    differ = int(((np.abs(z) >= cut) != (np.abs(other) >= cut)).sum())
    yield Check(claim=f"ours = dense, {what}: the same edges", holds=differ == 0, got=f"{differ} differ")


def _compare(
    shape: str, counts: csr_matrix, depth: NDArray[np.float64], goal: float | None, rounds: int
) -> Iterator[Measurement]:
    dense = counts.toarray().astype(np.float64)
    results: dict[str, CSCoreResult | DenseResult] = {}

    def ours() -> None:
        results["ours"] = cscore(counts, depth)

    def baseline() -> None:
        results["baseline"] = cscore_dense(dense, depth)

    seconds, baseline_seconds = interleave(ours, baseline, rounds=rounds)
    mine, theirs = results["ours"], results["baseline"]
    assert isinstance(mine, CSCoreResult)
    assert isinstance(theirs, DenseResult)
    yield Measurement(
        shape=shape,
        metric="cpu_time",
        value=seconds,
        unit="s",
        baseline="dense IRLS",
        baseline_value=baseline_seconds,
        goal=None if goal is None else ("ratio", ">=", goal),
    )
    positive = np.ix_(theirs.sigma > 0, theirs.sigma > 0)
    z, estimate = np.abs(mine.z - theirs.z)[positive].max(), np.abs(mine.estimate - theirs.estimate)[positive].max()
    cut = critical_z(0.005)
    differ = ((np.abs(mine.z) >= cut) != (np.abs(theirs.z) >= cut))[positive].sum()
    bound = ("value", "<=", TOLERANCE)
    yield Measurement(shape=shape, metric="largest_dz", value=float(z), unit="", goal=bound)
    yield Measurement(shape=shape, metric="largest_destimate", value=float(estimate), unit="", goal=bound)
    yield Measurement(shape=shape, metric="edges_that_differ", value=int(differ), unit="", goal=("value", "<=", 0.0))


def _depth_ranges() -> Iterator[Measurement]:
    """Compare z where depths range widely, with dense counts, whose numerators cancel most."""
    rng = np.random.default_rng(0)
    n_cells, n_genes = 3000, 60
    for lowest, highest in DEPTHS:
        depth = np.exp(rng.uniform(np.log(lowest), np.log(highest), n_cells)).round()
        level = rng.gamma(2.0, 0.5, (n_cells, n_genes)) * rng.gamma(4.0, 0.25, (n_cells, 1))
        counts = rng.poisson(depth[:, None] * level * 2e-3 * rng.lognormal(0.0, 1.0, n_genes))
        ours, theirs = cscore(counts, depth), cscore_dense(counts.astype(np.float64), depth)
        both = np.ix_(theirs.sigma > 0, theirs.sigma > 0)
        yield Measurement(
            shape=f"depths {lowest:g} to {highest:g}, K={ours.order}",
            metric="largest_dz",
            value=float(np.abs(ours.z - theirs.z)[both].max()),
            unit="",
            goal=("value", "<=", TOLERANCE) if highest <= 1000 * lowest else None,
        )


def _microglia(folder: Path, *, rounds: int) -> Iterator[Measurement]:
    given = np.load(folder / "cscore_mic500_input.npz")
    counts = csr_matrix((given["data"], given["indices"], given["indptr"]), shape=tuple(given["shape"]))
    yield from _compare(f"microglia {_shape(counts)}", counts, given["seq_depth"].astype(np.float64), 3.0, rounds)


def _shape(counts: csr_matrix) -> str:
    n_cells, n_genes = counts.shape
    return f"{n_cells}x{n_genes} d={counts.nnz / n_cells / n_genes:.2f}"


CASE = Coexpression()
