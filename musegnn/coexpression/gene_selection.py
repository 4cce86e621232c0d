"""Which genes of a dataset go into its graph: stages over ranges of cells, and the ranking at their end.

Legend: n cells kept, M genes kept by the scan, S genes of the first step of sctransform, K nodes of the moments.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from musegnn.coexpression.irls import MomentScan
from musegnn.coexpression.residuals import ResidualMoments, VarianceSums, rank_variable
from musegnn.coexpression.sctransform import fit_sctransform, pearson_model, step_one_genes
from musegnn.coexpression.sparkx import SparkXBasis, SparkXScan
from musegnn.coexpression.state import Selection, SelectPlan
from musegnn.coexpression.tasks import load
from musegnn.errors import GraphError, InputError
from musegnn.kernels.moments import DepthBasis, chebyshev_order
from musegnn.kernels.residuals import NoiseModel
from musegnn.text import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.coexpression.scan import ScannedCells
    from musegnn.coexpression.sctransform import SCTModel
    from musegnn.coexpression.shared_selection import SharedGenes
    from musegnn.coexpression.state import BuildState
    from musegnn.config import GraphConfig
    from musegnn.data_store.readers import CountSource

SHOWN = 3


class SelectSums(NamedTuple):
    """What :func:`select_range` collects, each where the plan asks for it.

    `first` and `cells` are moments of the S genes at the nodes, shapes (S, K) and (K,); `cross` and `n_seen` are the
    sums of :class:`~musegnn.coexpression.sparkx.SparkXScan`.
    """

    first: NDArray[np.float64] | None = None
    cells: NDArray[np.float64] | None = None
    cross: NDArray[np.float64] | None = None
    n_seen: int | None = None


class Ranking(NamedTuple):
    """Genes of a dataset, best first.

    Attributes
    ----------
    order
        Positions among the M genes; all of them where they are ranked.
    score, skipped, missing
        As in :class:`~musegnn.coexpression.state.Selection`.
    """

    order: NDArray[np.intp]
    score: NDArray[np.float64]
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def selects_by_place(config: GraphConfig, modality: str) -> bool:
    """Return whether genes are chosen by spatial variation."""
    return config.selection == "svg" or (config.selection == "auto" and modality == "spatial")


def selects_by_residuals(config: GraphConfig, modality: str) -> bool:
    """Return whether genes are chosen by residual variance, which takes a pass of its own."""
    return config.selection == "hvg" or (config.selection == "auto" and modality != "spatial")


def plan_selection(state: BuildState) -> SelectPlan:
    """Decide what the second pass has to collect.

    Raises
    ------
    InputError
        E260 when genes are to be chosen by place and there are no coordinates, or they do not serve.
    """
    config, scan = state.config, state.scan
    lowest, highest = float(scan.depth.min()), float(scan.depth.max())
    step_one = None
    if config.residuals == "sctransform":
        step_one = step_one_genes(scan.stats, config.min_cells, seed=config.seed)
    space = _space(state) if selects_by_place(config, state.dataset.modality) else None
    return SelectPlan(DepthBasis(lowest, highest, chebyshev_order(lowest, highest)), step_one, space)


def _space(state: BuildState) -> SparkXBasis:
    source, config, keep, where = state.source, state.config, state.scan.keep, state.dataset.name
    if source.coords is None:
        msg = f"selection of spatially variable genes needs coordinates, and {Path(source.path).name} was read without"
        need = "give coordinates" if state.dataset.modality == "spatial" else "set modality: spatial"
        raise InputError(msg, code="E260", where=where, fix=f"{need} or graph.selection: hvg")
    coords = np.asarray(source.coords, np.float64)[keep]
    bad = np.flatnonzero(~np.isfinite(coords.reshape(len(coords), -1)).all(axis=1))
    if len(bad):
        first = ", ".join(map(str, np.flatnonzero(keep)[bad[:SHOWN]]))
        msg = f"{len(bad)} of {len(coords)} cells have no finite coordinates (first: {first})"
        raise InputError(msg, code="E260", where=where, fix="remove these cells or correct their coordinates")
    covariates = _covariates(source, config)
    try:
        return SparkXBasis(coords, None if covariates is None else covariates[keep])
    except ValueError as error:
        also = " or graph.covariates" if config.covariates else ""
        fix = f"correct the coordinates{also}, or set graph.selection: hvg"
        raise InputError(str(error), code="E260", where=where, fix=fix) from None


def _covariates(source: CountSource, config: GraphConfig) -> NDArray[np.float64] | None:
    """Read the columns of covariates of all cells, shape (C, q)."""
    columns = [np.asarray(source.obs(name)) for name in config.covariates]
    for name, values in zip(config.covariates, columns, strict=True):
        if values.dtype.kind != "f":
            msg = f"covariate {name!r} of SPARK-X holds text, expected numbers"
            raise InputError(msg, code="E263", where=Path(source.path).name, fix="name columns of obs with numbers")
    return np.stack(columns, axis=1) if columns else None


def select_range(cells: ScannedCells, config: GraphConfig, genes: NDArray[np.intp], plan: SelectPlan) -> SelectSums:
    """Collect what the plan asks for over some cells; `genes` are the columns of the M genes."""
    source = cells.source
    moments = None if plan.step_one is None else MomentScan(len(plan.step_one), plan.basis)
    tests = None if plan.space is None else SparkXScan(plan.space, len(genes))
    inside = np.flatnonzero(cells.keep()) + cells.cells.start
    covariates = _covariates(source, config) if tests is not None else None
    for place, block, depth in cells.blocks(genes):
        if moments is not None:
            moments.update(block[:, plan.step_one], depth)
        if tests is not None:
            assert source.coords is not None
            numbers = None if covariates is None else covariates[inside[place]]
            tests.update(block, source.coords[inside[place]], numbers)
    sums = SelectSums()
    if moments is not None:
        at_nodes = moments.finish()
        sums = sums._replace(first=at_nodes.first, cells=at_nodes.cells)
    if tests is not None:
        sums = sums._replace(cross=tests.cross, n_seen=tests.n_seen)
    return sums


def fit_model(state: BuildState, paths: Sequence[Path]) -> SCTModel:
    """Fit the residual model of the M genes from the files of :func:`select_range`, where that ran."""
    scan, plan = state.scan, state.plan
    if plan.step_one is None:
        return pearson_model(scan.stats, float(scan.depth.sum()))
    first, cells = np.zeros((len(plan.step_one), plan.basis.order)), np.zeros(plan.basis.order)
    for path in paths:
        part = load(path, SelectSums)
        assert part.first is not None
        assert part.cells is not None
        first += part.first
        cells += part.cells
    return fit_sctransform(
        first,
        cells,
        plan.basis.nodes,
        scan.table.take(plan.step_one),
        plan.step_one,
        scan.stats,
        median_nonzero=scan.median_nonzero,
        min_cells=state.config.min_cells,
    )


def variance_range(cells: ScannedCells, genes: NDArray[np.intp], model: Path) -> VarianceSums:
    """Sum over some cells what the variances of the residuals need, by the file of the model of these M genes."""
    sums = ResidualMoments(load(model, NoiseModel))
    for _, block, depth in cells.blocks(genes):
        sums.update(block, depth)
    return sums.parts()


def rank_genes(state: BuildState, collected: Sequence[Path], varied: Sequence[Path]) -> Ranking:
    """Rank the genes from the files of :func:`select_range` and :func:`variance_range`."""
    config, scan, n_genes = state.config, state.scan, len(state.scan.genes)
    score = np.full(n_genes, np.nan)
    if state.plan.space is not None:
        tests = SparkXScan(state.plan.space, n_genes)
        for path in collected:
            part = load(path, SelectSums)
            assert part.cross is not None
            assert part.n_seen is not None
            tests.merge(part.cross, part.n_seen)
        outcome = tests.result(scan.stats)
        return Ranking(outcome.ranking(), outcome.p_adjusted, outcome.skipped)
    if varied:
        sums = ResidualMoments(state.model.noise(state.model.clip))
        for path in varied:
            sums.merge(load(path, VarianceSums))
        _, score = sums.finish(scan.depth)
        return Ranking(rank_variable(score), score)
    if config.selection == "list":
        listed, missing = _listed(state.source, config, scan.genes)
        return Ranking(listed, score, missing=missing)
    return Ranking(np.arange(n_genes), score)


def choose_genes(state: BuildState, ranking: Ranking, shared: SharedGenes | None) -> Selection:
    """Choose the genes of the graph, by the order that several datasets share where there is one.

    Raises
    ------
    GraphError
        E273 when fewer than two genes can be selected.
    """
    config, order = state.config, ranking.order
    if shared is not None:
        order = order[shared.positions(state.source.gene[state.scan.genes[order]])]
    if config.selection not in {"all", "list"}:
        order = order[: config.n_genes]
    if len(order) < 2:
        raise _too_few(state, len(order), ranking.missing)
    return Selection(np.sort(order), ranking.score, ranking.skipped, ranking.missing)


def _listed(
    source: CountSource, config: GraphConfig, genes: NDArray[np.intp]
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return positions among some columns of the genes of a list, by name or identifier, and the names not found."""
    assert isinstance(config.genes, tuple)  # build_dataset reads a list that is a path
    wanted = np.unique(np.array(config.genes, dtype=np.str_))
    names, ids = source.gene[genes], source.gene_id[genes]
    missing = wanted[~(np.isin(wanted, names) | np.isin(wanted, ids))]
    return np.flatnonzero(np.isin(names, wanted) | np.isin(ids, wanted)), tuple(missing.tolist())


def _too_few(state: BuildState, n_genes: int, missing: tuple[str, ...]) -> GraphError:
    """Make the error E273, which asks for other names where the source has no gene of a name of the list."""
    source = state.source
    msg, fix = f"{n_genes} genes can be selected, expected at least 2", "lower graph.min_cells or use selection: all"
    names = np.array(missing, dtype=np.str_)
    unknown = names[~(np.isin(names, source.gene) | np.isin(names, source.gene_id))].tolist()
    if unknown:
        msg += f"; the dataset has no gene named as {len(unknown)} of the list ({first_names(unknown)})"
        have = first_names(np.unique([source.gene[0], source.gene_id[0]]).tolist())
        fix = f"check the names in graph.genes: case, and symbols or identifiers as in the dataset ({have})"
    return GraphError(msg, code="E273", where=state.dataset.name, fix=fix)


def first_names(names: Sequence[str]) -> str:
    """List the first few of some names for a message."""
    return ", ".join([*(shorten(name, 24) for name in names[:SHOWN]), *(["..."] if len(names) > SHOWN else [])])
