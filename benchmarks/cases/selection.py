"""Choosing genes: analytic Pearson ranking against scanpy, the sctransform fit on all cells, SPARK-X.

Everything starts from counts in memory.
"""

from __future__ import annotations

import time
import warnings
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from benchmarks.cases.coexpression import GOLDEN
from benchmarks.peers.sctransform_in_memory import fit_from_cells, moments
from benchmarks.registry import Check, Measurement
from benchmarks.run import interleave
from benchmarks.synthetic import SyntheticCounts
from musegnn.coexpression.counts import CountTable
from musegnn.coexpression.residuals import ResidualMoments, rank_variable
from musegnn.coexpression.sctransform import SCTModel, fit_sctransform, pearson_model, step_one_genes
from musegnn.coexpression.sparkx import SparkXResult, sparkx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

TOLERANCE = 1e-10
FULL, QUICK = (10_000, 3000), (2000, 1000)
CLOSE = 1e-7


class SelectionCase:
    """Synthetic counts of density 0.1, and the breast cancer section of the golden files where they are at hand."""

    name = "selection"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Compare with scanpy, with the fit that sees every cell, and with R's statistics."""
        del quick
        counts = _counts(1500, 600)
        ours, theirs = pearson_variance(counts), scanpy_variance(counts)
        difference = float(np.abs(ours / theirs - 1.0).max())
        yield Check(
            claim=f"residual variances = scanpy's within {TOLERANCE:g}",
            holds=difference <= TOLERANCE,
            got=f"{difference:.1e}",
        )
        fast, slow = fit_from_sums(counts), _fit_from_cells(counts)
        difference = float(np.nanmax(np.abs(fast.intercept - slow.intercept)))
        yield Check(
            claim="sctransform from sums = from cells: intercepts within 1e-9",
            holds=difference <= 1e-9,
            got=f"{difference:.1e}",
        )
        finite = np.isfinite(slow.theta)
        difference = float(np.abs(fast.theta[finite] / slow.theta[finite] - 1.0).max())
        yield Check(
            claim=f"sctransform from sums = from cells: theta within {CLOSE:g}",
            holds=difference <= CLOSE,
            got=f"{difference:.1e}",
        )
        if GOLDEN.is_dir():
            spots, coords = _breast()
            expected = pd.read_csv(GOLDEN / "sparkx_bc_stats.csv.gz", index_col=0).to_numpy()
            difference = float(np.abs(sparkx(spots, coords).statistic - expected).max())
            yield Check(
                claim=f"SPARK-X statistics = R's within {TOLERANCE:g}",
                holds=difference <= TOLERANCE,
                got=f"{difference:.1e}",
            )

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Time each."""
        n_cells, n_genes = QUICK if quick else FULL
        counts, shape = _counts(n_cells, n_genes), f"{n_cells}x{n_genes} d=0.1"
        seconds, theirs = interleave(lambda: pearson_variance(counts), lambda: scanpy_variance(counts), rounds=3)
        yield Measurement(
            shape=shape,
            metric="pearson_ranking",
            value=seconds,
            unit="s",
            baseline="scanpy",
            baseline_value=theirs,
            goal=None if quick else ("ratio", ">=", 10.0),
        )
        goal = None if quick else ("value", "<=", 3.0)
        yield Measurement(
            shape=shape, metric="sctransform_fit_all_cells", value=_time(lambda: fit_from_sums(counts)), unit="s",
            goal=goal,
        )  # fmt: skip
        if GOLDEN.is_dir():
            spots, coords = _breast()
            yield Measurement(
                shape=f"breast {spots.shape[0]}x{spots.shape[1]}", metric="sparkx",
                value=_time(lambda: sparkx(spots, coords)), unit="s", goal=("value", "<=", 1.0),
            )  # fmt: skip


def pearson_variance(counts: csr_matrix) -> NDArray[np.float64]:
    """Return the residual variances, ddof 0 as scanpy has them, and rank them."""
    table, depth = _table(counts)
    model = pearson_model(table.stats(counts.shape[0]), float(depth.sum()))
    sums = ResidualMoments(model.noise(model.clip))
    sums.update(counts, depth)
    _, variance = sums.finish(depth)
    rank_variable(variance)
    return variance * (1.0 - 1.0 / counts.shape[0])


def scanpy_variance(counts: csr_matrix) -> NDArray[np.float64]:
    """Return scanpy's residual variances, and let it rank them."""
    import anndata as ad
    import scanpy as sc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table: Any = sc.experimental.pp.highly_variable_genes(  # scanpy publishes no types here
            ad.AnnData(counts), flavor="pearson_residuals", n_top_genes=100, check_values=False, inplace=False
        )
    result: NDArray[np.float64] = table["residual_variances"].to_numpy()
    return result


def fit_from_sums(counts: csr_matrix) -> SCTModel:
    """Fit sctransform on all cells, from counts to the parameters of all genes, as a build does."""
    table, depth = _table(counts)
    stats = table.stats(len(depth))
    genes = step_one_genes(stats, 5, seed=0)
    sums = moments(counts[:, genes], depth)
    median_nonzero = table.median_nonzero()
    return fit_sctransform(
        sums.first, sums.cells, sums.nodes, table.take(genes), genes, stats, median_nonzero=median_nonzero
    )


def _fit_from_cells(counts: csr_matrix) -> SCTModel:
    table, depth = _table(counts)
    return fit_from_cells(counts, depth, table.stats(len(depth)), median_nonzero=table.median_nonzero())


def _table(counts: csr_matrix) -> tuple[CountTable, NDArray[np.float64]]:
    table = CountTable(counts.shape[1])
    table.update(counts, np.ones(counts.shape[0], dtype=np.bool_))
    return table, np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()


def _counts(n_cells: int, n_genes: int) -> csr_matrix:
    counts, _ = SyntheticCounts(n_cells, n_genes, 0.1).load()
    filled = np.flatnonzero(np.diff(counts.indptr))
    counts = csr_matrix(counts[filled])
    return csr_matrix(counts[:, np.flatnonzero(np.asarray(counts.sum(axis=0)).ravel())])


def _breast() -> tuple[csr_matrix, NDArray[np.float64]]:
    coords = pd.read_csv(GOLDEN / "sparkx_bc_coords.csv", index_col=0).to_numpy()
    n_genes = len((GOLDEN / "sparkx_bc_genes.txt").read_text(encoding="utf-8").split())
    triplet = pd.read_csv(GOLDEN / "sparkx_bc_counts_triplet.csv.gz")
    place = (triplet["j"].to_numpy() - 1, triplet["i"].to_numpy() - 1)
    return csr_matrix((triplet["x"].to_numpy(np.int32), place), shape=(len(coords), n_genes)), coords


def _time(job: Callable[[], SCTModel | SparkXResult], rounds: int = 3) -> float:
    job()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        job()
        seconds.append(time.process_time() - start)
    return median(seconds)


CASE = SelectionCase()
