"""What the build of a dataset found: numbers for its provenance and warnings for its user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import erfc

from musegnn.coexpression import gene_selection
from musegnn.coexpression.edges import select_edges, strict_cutoff
from musegnn.config import EdgeConfig
from musegnn.errors import GraphError

if TYPE_CHECKING:
    from musegnn.coexpression.state import BuildState
    from musegnn.data_store.records import PairTable

UNDER_DISPERSED = 0.1
DENSE_GRAPH = 0.3


def describe_build(state: BuildState, pairs: PairTable, passes: int) -> dict[str, Any]:  # JSON
    """Return the report of a build, in the keys of ``report`` of a :class:`~musegnn.data_store.records.DatasetRecord`.

    `passes` is how often the source was read.
    """
    scan, fit, config = state.scan, state.fit, state.config
    warnings = _warnings(state)
    return {
        "n_cells": scan.n_cells,
        "cells_dropped": scan.cells_dropped,
        "genes_kept": len(scan.genes),
        "genes_dropped": scan.genes_dropped,
        "genes_selected": len(fit.mu),
        "shares": scan.shares,
        "negative_variance": int((fit.sigma < 0.0).sum()),
        "depth": {
            "min": float(scan.depth.min()),
            "median": float(np.median(scan.depth)),
            "max": float(scan.depth.max()),
        },
        "cscore": {
            "order": state.plan.basis.order,
            "iterations": fit.iterations,
            "converged": fit.converged,
            "theta_median": None if np.isnan(fit.theta_median) else fit.theta_median,
            "n_tests": pairs.n_tests,
        },
        "gram": {"scattered_genes": state.scattered, "tiled_genes": len(fit.mu) - state.scattered},
        "residuals": {"model": config.residuals, **state.model.report},
        "default_rule": _default_rule(pairs, scan.n_cells, warnings),
        "passes": passes,
        "warnings": warnings,
        "modality": state.dataset.modality,
    }


def _warnings(state: BuildState) -> list[str]:
    scan, fit, config, selection = state.scan, state.fit, state.config, state.selection
    negative, n_genes = int((fit.sigma < 0.0).sum()), len(fit.mu)
    warnings = [*state.source.warnings, *scan.warnings]
    if scan.merged:
        warnings.append(f"W236: {scan.merged} duplicate entries of the sparse matrix were summed")
    if negative > UNDER_DISPERSED * n_genes:
        warnings.append(
            f"W254: {negative} of {n_genes} genes ({100.0 * negative / n_genes:.0f} %) have a negative variance "
            "estimate, as binarised or otherwise under-dispersed counts give; tested with the Poisson variance, "
            "estimate 0"
        )
    if fit.has_nothing_to_settle:
        warnings.append("W255: no gene kept a positive variance estimate, so there was nothing to iterate on")
    elif not fit.converged:
        warnings.append(f"W255: the variance estimates still moved after {fit.iterations} iterations")
    if n_genes < config.n_genes and config.selection not in {"all", "list"}:
        warnings.append(f"W256: {n_genes} genes could be selected, {config.n_genes} were asked for")
    if selection.skipped:
        warnings.append(f"W257: SPARK-X kernels left out for these coordinates: {', '.join(selection.skipped)}")
    if selection.missing:
        warnings.append(
            f"W259: {len(selection.missing)} names of the list are of none of the {len(scan.genes)} genes detected "
            f"in {config.min_cells} cells or more ({gene_selection.first_names(selection.missing)})"
        )
    return warnings


def _default_rule(pairs: PairTable, n_cells: int, warnings: list[str]) -> dict[str, float]:
    """Describe the graph of the default rule; one without edges is a warning here and an error where it is used."""
    rule = EdgeConfig()
    try:
        edges = select_edges(pairs, n_cells, rule)
    except GraphError as error:
        warnings.append(f"W270: {error.message}")
        return {"density": 0.0, "mean_degree": 0.0, "negative_share": 0.0}
    magnitude = np.abs(edges.z.astype(np.float64))
    found, strict = edges.n_edges, int((magnitude >= strict_cutoff(pairs, n_cells, rule.fdr)).sum())
    if found > strict:
        expected = pairs.n_tests * erfc(edges.cutoff / np.sqrt(2.0)) / (found / 2)
        warnings.append(
            f"W258: {strict // 2} pairs pass the false discovery rate and the effect floor; the {found // 2} "
            f"strongest are edges, of which {100 * min(expected, 1):.0f} % are expected by chance"
        )
    if edges.density > DENSE_GRAPH:
        warnings.append(
            f"W274: {100 * edges.density:.0f} % of all pairs are edges by the default rule, as where cells differ in "
            "one way or in depth (docs/coexpression.md); edges.max_degree: 50 keeps the strongest"
        )
    return {
        "density": edges.density,
        "mean_degree": edges.mean_degree,
        "negative_share": edges.negative_share,
        "cutoff": edges.cutoff,
    }
