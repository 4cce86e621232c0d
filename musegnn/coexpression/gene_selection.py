"""Which genes of a dataset go into its graph: stages over shards, and the ranking at their end.

Legend: n cells kept, M genes kept by the scan, S genes of the first step of sctransform, K nodes of the moments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, vstack

from musegnn.coexpression.irls import MomentScan
from musegnn.coexpression.pearson import pearson_model
from musegnn.coexpression.profile import read_model
from musegnn.coexpression.residuals import ResidualMoments, rank_variable
from musegnn.coexpression.scan import kept_blocks
from musegnn.coexpression.sctransform import fit_sctransform, fit_sctransform_all, step_one_genes
from musegnn.coexpression.sparkx import SparkXBasis, SparkXScan
from musegnn.coexpression.tasks import load
from musegnn.errors import GraphError, InputError
from musegnn.kernels.moments import DepthBasis, chebyshev_order
from musegnn.random import stream
from musegnn.text import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.coexpression.scan import ScanResult, Shard
    from musegnn.coexpression.sctransform import SCTModel
    from musegnn.coexpression.tasks import Arrays
    from musegnn.config import DatasetConfig, GraphConfig
    from musegnn.data_store.readers import CountSource

SHOWN = 3


class SelectPlan(NamedTuple):
    """What the pass before the choice of genes collects.

    Attributes
    ----------
    basis
        The expansion over the range of depths.
    step_one
        Positions among the M genes whose moments the sctransform fit on all cells takes, shape (S,); none of them where
        no gene is over-dispersed, ``None`` for other fits.
    sample
        Cells of the source for a fit on a subsample, else empty.
    space
        Transforms of the coordinates where genes are chosen by spatial variation, else ``None``.
    """

    basis: DepthBasis
    step_one: NDArray[np.int64] | None
    sample: NDArray[np.intp]
    space: SparkXBasis | None


class Selection(NamedTuple):
    """The choice of genes.

    Attributes
    ----------
    genes
        Positions among the M genes, ascending, shape (N,).
    score
        What they were chosen by: residual variance or adjusted p-value, NaN where by neither; shape (M,), float64.
    skipped
        SPARK-X kernels that the coordinates do not allow.
    missing
        Names of a list that none of the M genes has, ascending.
    """

    genes: NDArray[np.intp]
    score: NDArray[np.float64]
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def selects_by_place(config: GraphConfig, modality: str) -> bool:
    """Return whether genes are chosen by spatial variation."""
    return config.selection == "svg" or (config.selection == "auto" and modality == "spatial")


def selects_by_residuals(config: GraphConfig, modality: str) -> bool:
    """Return whether genes are chosen by residual variance, which takes a pass of its own."""
    return config.selection == "hvg" or (config.selection == "auto" and modality != "spatial")


def plan_selection(source: CountSource, dataset: DatasetConfig, config: GraphConfig, result: ScanResult) -> SelectPlan:
    """Decide what the second pass has to collect.

    Raises
    ------
    InputError
        E260 when genes are to be chosen by place and there are no coordinates, or they do not serve.
    """
    lowest, highest = float(result.depth.min()), float(result.depth.max())
    basis = DepthBasis(lowest, highest, config.chebyshev_order or chebyshev_order(lowest, highest))
    step_one, sample = None, np.zeros(0, np.intp)
    if config.residuals == "sctransform" and config.sct_cells == "all":
        step_one = step_one_genes(result.stats, config.min_cells, config.sct_genes, config.seed)
    elif config.residuals == "sctransform":
        assert isinstance(config.sct_cells, int)
        cells = np.flatnonzero(result.keep)
        keys = stream(config.seed, "sctransform_cells").random(len(result.keep))[cells]
        sample = np.sort(cells[np.argsort(keys, kind="stable")[: config.sct_cells]])
    space = _space(source, dataset, config, result) if selects_by_place(config, dataset.modality) else None
    return SelectPlan(basis, step_one, sample, space)


def _space(source: CountSource, dataset: DatasetConfig, config: GraphConfig, result: ScanResult) -> SparkXBasis:
    if source.coords is None:
        msg = f"selection of spatially variable genes needs coordinates, and {source.path.name} was read without"
        need = "give coordinates" if dataset.modality == "spatial" else "set modality: spatial"
        raise InputError(msg, code="E260", where=dataset.name, fix=f"{need} or graph.selection: hvg")
    coords = np.asarray(source.coords, np.float64)[result.keep]
    bad = np.flatnonzero(~np.isfinite(coords.reshape(len(coords), -1)).all(axis=1))
    if len(bad):
        first = ", ".join(map(str, np.flatnonzero(result.keep)[bad[:SHOWN]]))
        msg = f"{len(bad)} of {len(coords)} cells have no finite coordinates (first: {first})"
        raise InputError(msg, code="E260", where=dataset.name, fix="remove these cells or correct their coordinates")
    covariates = _covariates(source, config)
    try:
        return SparkXBasis(coords, None if covariates is None else covariates[result.keep])
    except ValueError as error:
        fix = (
            f"correct the coordinates{' or graph.covariates' if config.covariates else ''}, or set graph.selection: hvg"
        )
        raise InputError(str(error), code="E260", where=dataset.name, fix=fix) from None


def _covariates(source: CountSource, config: GraphConfig) -> NDArray[np.float64] | None:
    """Read the columns of covariates of all cells, shape (C, q)."""
    columns = [np.asarray(source.obs(name)) for name in config.covariates]
    for name, values in zip(config.covariates, columns, strict=True):
        if values.dtype.kind != "f":
            msg = f"covariate {name!r} of SPARK-X holds text, expected numbers"
            raise InputError(msg, code="E263", where=source.path.name, fix="name columns of obs with numbers")
    return np.stack(columns, axis=1) if columns else None


def select_shard(
    source: CountSource,
    config: GraphConfig,
    shard: Shard,
    scanned: Path,
    genes: NDArray[np.intp],
    plan: SelectPlan,
) -> Arrays:
    """Collect over one shard what the residual model and the test for spatial variation need.

    Parameters
    ----------
    source, config, shard, scanned
        As in :func:`~musegnn.coexpression.scan.kept_blocks`.
    genes
        Columns of the M genes.
    plan
        What to collect.

    Returns
    -------
    dict
        ``first`` (S, K) and ``cells`` (K,) at the nodes; rows of the subsample as CSR with their depths; sums of
        SPARK-X: each where the plan asks for it.
    """
    keep = load(scanned)["reasons"] == 0
    inside = np.flatnonzero(keep) + shard.start
    sampled = np.isin(inside, plan.sample)
    moments = None if plan.step_one is None else MomentScan(len(plan.step_one), plan.basis)
    tests = SparkXScan(plan.space, len(genes)) if plan.space is not None else None
    covariates = _covariates(source, config) if tests is not None else None
    rows, depths = [csr_matrix((0, len(genes)), dtype=np.int32)], [np.zeros(0)]
    for cells, block, depth in kept_blocks(source, config, shard, scanned, genes):
        if moments is not None:
            moments.update(block[:, plan.step_one], depth)
        if sampled[cells].any():
            rows.append(block[sampled[cells]])
            depths.append(depth[sampled[cells]])
        if tests is not None:
            assert source.coords is not None
            numbers = None if covariates is None else covariates[inside[cells]]
            tests.update(block, source.coords[inside[cells]], numbers)
    result: Arrays = {}
    if moments is not None:
        at_nodes = moments.finish()
        result |= {"first": at_nodes.first, "cells": at_nodes.cells}
    if len(plan.sample):
        sample = vstack(rows, format="csr")
        result |= {"data": sample.data, "indices": sample.indices, "indptr": sample.indptr}
        result |= {"depth": np.concatenate(depths)}
    if tests is not None:
        result |= tests.to_arrays()
    return result


def fit_model(config: GraphConfig, result: ScanResult, plan: SelectPlan, paths: Sequence[Path]) -> SCTModel:
    """Fit the model behind residuals from what the shards collected.

    Returns
    -------
    SCTModel
        Of the M genes.
    """
    if config.residuals == "pearson":
        return pearson_model(result.stats, float(result.depth.sum()))
    parts = [load(path) for path in paths]
    if plan.step_one is not None:
        first, cells = parts[0]["first"], parts[0]["cells"]
        for part in parts[1:]:
            first += part["first"]
            cells += part["cells"]
        return fit_sctransform_all(
            first,
            cells,
            plan.basis.nodes,
            result.table.take(plan.step_one),
            plan.step_one,
            result.stats,
            median_nonzero=result.median_nonzero,
            min_cells=config.min_cells,
        )
    rows = [
        csr_matrix((p["data"], p["indices"], p["indptr"]), shape=(len(p["depth"]), len(result.genes))) for p in parts
    ]
    return fit_sctransform(
        vstack(rows, format="csr"),
        np.concatenate([part["depth"] for part in parts]),
        result.stats,
        median_nonzero=result.median_nonzero,
        min_cells=config.min_cells,
        n_genes=config.sct_genes,
        seed=config.seed,
    )


def variance_shard(
    source: CountSource, config: GraphConfig, shard: Shard, scanned: Path, genes: NDArray[np.intp], model: Path
) -> Arrays:
    """Sum over one shard what the variances of the residuals need.

    Parameters
    ----------
    source, config, shard, scanned
        As in :func:`~musegnn.coexpression.scan.kept_blocks`.
    genes
        Columns of the M genes.
    model
        File of the residual model of these genes.
    """
    sums = ResidualMoments(read_model(model))
    for _, block, depth in kept_blocks(source, config, shard, scanned, genes):
        sums.update(block, depth)
    return sums.to_arrays()


def choose_genes(
    source: CountSource,
    dataset: DatasetConfig,
    config: GraphConfig,
    result: ScanResult,
    plan: SelectPlan,
    model: SCTModel,
    collected: Sequence[Path],
    varied: Sequence[Path],
) -> Selection:
    """Choose the genes of the graph.

    Parameters
    ----------
    source, dataset, config, result, plan, model
        Of the stages before.
    collected, varied
        Files of :func:`select_shard` and :func:`variance_shard`, where these ran.

    Raises
    ------
    GraphError
        E273 when fewer than two genes can be selected.
    """
    score = np.full(len(result.genes), np.nan)
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    if plan.space is not None:
        tests = SparkXScan(plan.space, len(result.genes))
        for path in collected:
            tests.merge(load(path))
        outcome = tests.result(result.stats)
        score, skipped = outcome.p_adjusted, outcome.skipped
        ranking = outcome.ranking()[: config.n_genes]
    elif varied:
        sums = ResidualMoments(model)
        for path in varied:
            sums.merge(load(path))
        _, score = sums.finish(result.depth)
        ranking = rank_variable(score)[: config.n_genes]
    elif config.selection == "list":
        ranking, missing = _listed(source, config, result.genes)
    else:
        ranking = np.arange(len(result.genes))
    if len(ranking) < 2:
        raise _too_few(source, dataset, len(ranking), missing)
    return Selection(np.sort(ranking), score, skipped, missing)


def _listed(
    source: CountSource, config: GraphConfig, genes: NDArray[np.intp]
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Find genes of a list by name or identifier among some columns; give positions and the names not found."""
    assert isinstance(config.genes, tuple)  # build_dataset reads a list that is a path
    wanted = np.unique(np.array(config.genes, dtype=np.str_))
    names, ids = source.gene[genes], source.gene_id[genes]
    missing = wanted[~(np.isin(wanted, names) | np.isin(wanted, ids))]
    return np.flatnonzero(np.isin(names, wanted) | np.isin(ids, wanted)), tuple(missing.tolist())


def _too_few(source: CountSource, dataset: DatasetConfig, n_genes: int, missing: tuple[str, ...]) -> GraphError:
    """Make the error E273, which asks for other names where the source has no gene of a name of the list."""
    msg, fix = f"{n_genes} genes can be selected, expected at least 2", "lower graph.min_cells or use selection: all"
    names = np.array(missing, dtype=np.str_)
    unknown = names[~(np.isin(names, source.gene) | np.isin(names, source.gene_id))].tolist()
    if unknown:
        msg += f"; the dataset has no gene named as {len(unknown)} of the list ({first_names(unknown)})"
        have = first_names(np.unique([source.gene[0], source.gene_id[0]]).tolist())
        fix = f"check the names in graph.genes: case, and symbols or identifiers as in the dataset ({have})"
    return GraphError(msg, code="E273", where=dataset.name, fix=fix)


def first_names(names: Sequence[str]) -> str:
    """List the first few of some names for a message."""
    return ", ".join([*(shorten(name, 24) for name in names[:SHOWN]), *(["..."] if len(names) > SHOWN else [])])
