"""From raw counts of one dataset to its genes, pairs and profiles, in three passes over the counts.

1. :func:`~musegnn.coexpression.scan.scan`: quality control, depths, sums per gene, subsample for sctransform.
2. Selection scores of all genes (residual variance, or SPARK-X for spatial data) and their moments over depth.
3. Gram matrices of the selected genes: of the weighted counts for CS-CORE, and of the residuals for profiles.

Legend: n cells kept, M genes kept, N genes selected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import erfc
from threadpoolctl import threadpool_limits

from musegnn.coexpression.cscore import GramScan, finish
from musegnn.coexpression.edges import BIN_WIDTH, select_edges
from musegnn.coexpression.irls import MomentScan, fit_irls
from musegnn.coexpression.profile import FullProfile, GramProfile
from musegnn.coexpression.residuals import ResidualMoments, rank_variable
from musegnn.coexpression.scan import kept_blocks, scan
from musegnn.coexpression.sctransform import fit_sctransform
from musegnn.coexpression.sparkx import SparkXScan
from musegnn.config import EdgeConfig
from musegnn.data_store.records import DatasetRecord, GeneTable, PairTable
from musegnn.errors import GraphError, InputError
from musegnn.kernels.moments import DepthBasis, chebyshev_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from musegnn.coexpression.cscore import Stripe
    from musegnn.coexpression.irls import DepthMoments, IRLSFit
    from musegnn.coexpression.scan import ScanResult
    from musegnn.coexpression.sctransform import SCTModel
    from musegnn.config import DatasetConfig, GraphConfig
    from musegnn.data_store.readers import CountSource

ALGORITHM = "coexpression-1"
HISTOGRAM_BINS = 801
UNDER_DISPERSED = 0.1


def build_parameters(dataset: DatasetConfig, config: GraphConfig) -> dict[str, Any]:  # JSON
    """Give everything but the counts that a build depends on, for :func:`musegnn.data_store.build_id`."""
    return {
        "dataset": dataset.model_dump(mode="json", exclude={"path"}),
        "graph": config.model_dump(mode="json"),
    }


def build_dataset(
    source: CountSource,
    dataset: DatasetConfig,
    config: GraphConfig,
    *,
    progress: Callable[[str], None] | None = None,
) -> DatasetRecord:
    """Build the co-expression of one dataset.

    BLAS is held to one thread meanwhile, so that results do not depend on what else runs. That limit belongs to the
    process: who calls this from several threads holds it around all of them, as ``cluster.graphs`` does.

    Parameters
    ----------
    source
        Raw counts, cells x genes.
    dataset
        What the counts are of.
    config
        How to select genes and test pairs.
    progress
        Called with the name of each step before it starts.

    Returns
    -------
    DatasetRecord
        With a report of what was kept, dropped and estimated.

    Raises
    ------
    InputError
        When the counts cannot be used.
    GraphError
        When fewer than two genes can be selected.
    """
    tell = progress or (lambda _: None)
    with threadpool_limits(limits=1, user_api="blas"):
        tell("scan")
        result = scan(source, config)
        tell("select")
        model = fit_sctransform(
            result.step1,
            result.step1_depth,
            result.stats,
            median_nonzero=result.median_nonzero,
            min_cells=config.min_cells,
            n_genes=config.sct_genes,
            seed=config.seed,
        )
        score, ranking, moments, skipped = _second_pass(source, dataset, config, result, model)
        chosen = np.sort(ranking[: config.n_genes] if config.selection != "all" else ranking)
        if len(chosen) < 2:
            msg = f"{len(chosen)} genes can be selected, expected at least 2"
            raise GraphError(msg, code="E273", where=dataset.name, fix="lower graph.min_cells or use selection: all")
        moments = moments.select(chosen)
        fit = fit_irls(moments)
        tell("pairs")
        gram = GramScan(fit, config.negative_variance)
        profile = _profile(config, model.take(chosen), result.n_cells)
        for _, block, depth in kept_blocks(source, result, result.genes[chosen], config.block_rows):
            gram.update(block, depth)
            profile.update(block, depth)
        pairs = collect_pairs(finish(moments, gram, fit, config.negative_variance), len(chosen), config.z_store)
        return DatasetRecord(
            name=dataset.name,
            modality=dataset.modality,
            tissue=dataset.tissue,
            species=dataset.species,
            condition=dataset.condition,
            n_cells=result.n_cells,
            genes=_gene_table(source, result, chosen, fit, score),
            pairs=pairs,
            profile=profile.finish(),
            report=_report(source, dataset, config, result, model, fit, pairs, len(moments.nodes), skipped),
            provenance={
                "algorithm": ALGORITHM,
                "input": source.fingerprint(),
                "parameters": build_parameters(dataset, config),
            },
        )


def collect_pairs(stripes: Iterable[Stripe], n_genes: int, z_store: float) -> PairTable:
    """Keep the pairs with ``abs(z) >= z_store`` and count the others.

    Parameters
    ----------
    stripes
        Statistics from the diagonal on, rows in order.
    n_genes
        Number of genes N.
    z_store
        Bound on ``abs(z)``.

    Returns
    -------
    PairTable
        Symmetric, sorted, without diagonal.
    """
    histogram = np.zeros(HISTOGRAM_BINS, dtype=np.int64)
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]] = []
    for stripe in stripes:
        tested = np.triu(np.isfinite(stripe.z), 1)
        magnitude = np.abs(stripe.z)
        bins = np.minimum(magnitude[tested] / BIN_WIDTH, HISTOGRAM_BINS - 1).astype(np.int64)
        histogram += np.bincount(bins, minlength=HISTOGRAM_BINS)
        rows, columns = np.nonzero(tested & (magnitude >= z_store))
        z, estimate = stripe.z[rows, columns], stripe.estimate[rows, columns]
        parts.append((rows + stripe.start, columns + stripe.start, z.astype(np.float32), estimate.astype(np.float32)))
    low, high, z, estimate = (np.concatenate(column) for column in zip(*parts, strict=True))
    rows, columns = np.concatenate([low, high]), np.concatenate([high, low])
    order = np.lexsort((columns, rows))
    indptr = np.zeros(n_genes + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=n_genes), out=indptr[1:])
    return PairTable(
        indptr=indptr,
        indices=columns[order].astype(np.int32),
        z=np.concatenate([z, z])[order],
        estimate=np.concatenate([estimate, estimate])[order],
        n_tests=int(histogram.sum()),
        z_store=z_store,
        histogram=histogram,
    )


def _second_pass(
    source: CountSource, dataset: DatasetConfig, config: GraphConfig, result: ScanResult, model: SCTModel
) -> tuple[NDArray[np.float64], NDArray[np.int64], DepthMoments, tuple[str, ...]]:
    """Give scores and ranking of the M genes, their moments, and the SPARK-X kernels that could not be used."""
    lowest, highest = float(result.depth.min()), float(result.depth.max())
    basis = DepthBasis(lowest, highest, config.chebyshev_order or chebyshev_order(lowest, highest))
    moments = MomentScan(len(result.genes), basis)
    spatial = config.selection == "svg" or (config.selection == "auto" and dataset.modality == "spatial")
    sparkx = _sparkx(source, dataset, result) if spatial else None
    residuals = ResidualMoments(model, result.depth)
    for start, block, depth in kept_blocks(source, result, result.genes, config.block_rows):
        moments.update(block, depth)
        if sparkx is not None:
            sparkx.update(start, block)
        else:
            residuals.update(block, depth)
    if sparkx is not None:
        tests = sparkx.result()
        return tests.p_adjusted, tests.ranking(), moments.finish(), tests.skipped
    _, variance = residuals.finish()
    return variance, rank_variable(variance), moments.finish(), ()


def _sparkx(source: CountSource, dataset: DatasetConfig, result: ScanResult) -> SparkXScan:
    if source.coords is None:
        msg = f"selection of spatially variable genes needs coordinates, and {source.path.name} was read without"
        raise InputError(msg, code="E260", where=dataset.name, fix="set modality: spatial or graph.selection: hvg")
    return SparkXScan(source.coords[result.keep], len(result.genes))


def _profile(config: GraphConfig, model: SCTModel, n_cells: int) -> GramProfile | FullProfile:
    return GramProfile(model) if config.profile == "gram" else FullProfile(model, n_cells)


def _gene_table(
    source: CountSource,
    result: ScanResult,
    chosen: NDArray[np.int64],
    fit: IRLSFit,
    score: NDArray[np.float64],
) -> GeneTable:
    columns = result.genes[chosen]
    return GeneTable(
        gene=source.gene[columns],
        gene_id=source.gene_id[columns],
        mean=result.stats.mean[chosen],
        variance=result.stats.variance[chosen],
        n_cells=result.stats.n_detected[chosen],
        mu=fit.mu,
        sigma=fit.sigma,
        score=score[chosen],
    )


def _report(
    source: CountSource,
    dataset: DatasetConfig,
    config: GraphConfig,
    result: ScanResult,
    model: SCTModel,
    fit: IRLSFit,
    pairs: PairTable,
    order: int,
    skipped: tuple[str, ...],
) -> dict[str, Any]:  # JSON
    negative = int((fit.sigma < 0.0).sum())
    warnings = list(source.warnings)
    if negative > UNDER_DISPERSED * len(fit.mu):
        handled = {"clamp": "tested with the Poisson variance", "drop": "left without edges"}
        how = handled.get(config.negative_variance, "tested with it as CS-CORE does")
        share = 100.0 * negative / len(fit.mu)
        warnings.append(
            f"W254: {negative} of {len(fit.mu)} genes ({share:.0f} %) have a negative variance estimate, as "
            f"binarised or otherwise under-dispersed counts give; {how}, estimate 0"
        )
    if not fit.converged:
        warnings.append(f"W255: the variance estimates still moved after {fit.iterations} iterations")
    if len(fit.mu) < config.n_genes and config.selection != "all":
        warnings.append(f"W256: {len(fit.mu)} genes could be selected, {config.n_genes} were asked for")
    if skipped:
        warnings.append(f"W257: SPARK-X kernels left out for these coordinates: {', '.join(skipped)}")
    return {
        "n_cells": result.n_cells,
        "cells_dropped": result.cells_dropped,
        "genes_kept": len(result.genes),
        "genes_dropped": result.genes_dropped,
        "genes_selected": len(fit.mu),
        "negative_variance": negative,
        "depth": {
            "min": float(result.depth.min()),
            "median": float(np.median(result.depth)),
            "max": float(result.depth.max()),
        },
        "cscore": {
            "order": order,
            "iterations": fit.iterations,
            "converged": fit.converged,
            "theta_median": None if np.isnan(fit.theta_median) else fit.theta_median,
            "n_tests": pairs.n_tests,
        },
        "sctransform": model.report,
        "default_rule": _default_rule(pairs, result.n_cells, warnings),
        "passes": 3,
        "warnings": warnings,
        "modality": dataset.modality,
    }


def _default_rule(pairs: PairTable, n_cells: int, warnings: list[str]) -> dict[str, float]:
    """Describe the graph of the default rule; one without edges is a warning here and an error where it is used."""
    try:
        edges = select_edges(pairs, n_cells, EdgeConfig())
        strict = select_edges(pairs, n_cells, EdgeConfig(min_mean_degree=0.0))
    except GraphError as error:
        warnings.append(f"W270: {error.message}")
        return {"density": 0.0, "mean_degree": 0.0, "negative_share": 0.0}
    if edges.n_edges > strict.n_edges:
        expected = pairs.n_tests * erfc(edges.cutoff / np.sqrt(2.0)) / (edges.n_edges / 2)
        warnings.append(
            f"W258: {strict.n_edges // 2} pairs pass the false discovery rate and the effect floor; the "
            f"{edges.n_edges // 2} strongest are edges, of which {100 * min(expected, 1):.0f} % are expected by chance"
        )
    return {
        "density": edges.density,
        "mean_degree": edges.mean_degree,
        "negative_share": edges.negative_share,
        "cutoff": edges.cutoff,
    }
