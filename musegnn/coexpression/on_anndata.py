"""CS-CORE, sctransform and SPARK-X on AnnData objects, called and keyed as scanpy's users expect.

Each reads raw counts, writes its results into the object under `key_added`, and returns nothing, or with ``copy=True``
a copy that holds them. Counts are checked first, and what are no counts is refused as from a file.

Legend: C cells, G genes, N genes that are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from musegnn.coexpression.counts import CountTable
from musegnn.coexpression.cscore import cscore as cscore_matrix
from musegnn.coexpression.irls import MomentScan
from musegnn.coexpression.residuals import ResidualMoments, rank_variable
from musegnn.coexpression.sctransform import fit_sctransform, step_one_genes
from musegnn.coexpression.sparkx import sparkx as sparkx_matrix
from musegnn.data_store.formats.in_memory import MemoryContainer
from musegnn.data_store.validate import CountCheck
from musegnn.errors import InputError
from musegnn.kernels.moments import DepthBasis, chebyshev_order
from musegnn.kernels.residuals import dense_residuals
from musegnn.text import some_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from musegnn.coexpression.irls import Compat, NegativeVariance

MANY_GENES = 10_000


def cscore(
    adata: AnnData,
    *,
    layer: str | None = None,
    genes: str | Sequence[str] | NDArray[np.bool_] | None = None,
    depth_key: str | None = None,
    negative_variance: NegativeVariance = "clamp",
    compat: Compat = "R",
    key_added: str = "cscore",
    copy: bool = False,
) -> AnnData | None:
    """Estimate and test the co-expression of genes, corrected for depth (CS-CORE).

    Writes ``varp[key]`` (estimates in [-1, 1]), ``varp[key_z]`` and ``varp[key_pval]`` (test statistic and two-sided
    p-value), G x G: dense where all genes are used, else sparse with the pairs of those used; ``var[key_mu]`` and
    ``var[key_sigma2]``, NaN for others; and ``uns[key]``, the parameters.

    Parameters
    ----------
    layer
        Raw counts: ``None`` for ``X``, or a layer.
    genes
        Names, a mask, or a column of ``var`` such as ``highly_variable``; ``None``: that column where it is there, else
        all genes.
    depth_key
        Column of ``obs`` with depths; ``None``: total counts over all genes, used or not.
    negative_variance, compat
        As of :func:`musegnn.coexpression.cscore.cscore`.

    Raises
    ------
    InputError
        E201 to E206 for values that are not counts, E255 for columns and E420 for genes that are not there, E271 for
        more than 10,000 genes.
    """
    adata = adata.copy() if copy else adata
    counts = _counts(adata, layer)
    used = _chosen(adata, genes)
    if len(used) > MANY_GENES:
        msg = f"{len(used)} genes make matrices of {8 * len(used) ** 2 / 2**30:.0f} GiB"
        raise InputError(msg, code="E271", where="cscore", fix=f"choose at most {MANY_GENES} with `genes`")
    if depth_key is not None and depth_key not in adata.obs:
        msg = f"there is no column `{depth_key}` in obs"
        raise InputError(msg, code="E255", where="cscore", fix="name a column with total counts")
    depth = np.asarray(counts.sum(axis=1) if depth_key is None else adata.obs[depth_key], dtype=np.float64).ravel()
    cells = np.flatnonzero(depth > 0)
    result = cscore_matrix(counts[cells][:, used], depth[cells], negative_variance=negative_variance, compat=compat)
    matrices = {key_added: result.estimate, f"{key_added}_z": result.z, f"{key_added}_pval": result.p_value}
    for key, values in matrices.items():
        adata.varp[key] = _spread(values, used, adata.n_vars)
    for key, column in ((f"{key_added}_mu", result.fit.mu), (f"{key_added}_sigma2", result.fit.sigma)):
        adata.var[key] = _placed(column, used, adata.n_vars)
    adata.uns[key_added] = {
        "params": {"layer": layer or "X", "negative_variance": negative_variance, "n_cells": len(cells)},
        "genes": np.asarray(adata.var_names[used], dtype=object),
    }
    return adata if copy else None


def sctransform(
    adata: AnnData,
    *,
    layer: str | None = None,
    n_top_genes: int = 3000,
    min_cells: int = 5,
    residuals: bool = True,
    random_state: int = 0,
    key_added: str = "sctransform",
    copy: bool = False,
) -> AnnData | None:
    """Fit sctransform v2, mark the most variable genes, and compute their Pearson residuals.

    Writes ``var["highly_variable"]``, ``var["highly_variable_rank"]`` (0 for the most variable, NaN for others) and
    ``var["residual_variances"]`` as scanpy does, ``var[key_theta]`` and ``var[key_intercept]``, NaN for genes in fewer
    than `min_cells` cells; ``obsm[key]``, the residuals of the marked genes in the order of ``uns[key]["genes"]``,
    clipped at the square root of C / 30 as Seurat does, (C, n) float32, to be the input of a PCA; and ``uns[key]``.

    Parameters
    ----------
    n_top_genes
        Number of genes to mark.
    residuals
        Whether to compute residuals.
    random_state
        Seed of the genes that are fitted one by one, where there are more than 2000.

    Raises
    ------
    InputError
        E201 to E206 for values that are not counts, E253 when no gene is in `min_cells` cells.
    """
    adata = adata.copy() if copy else adata
    counts = _counts(adata, layer)
    depth = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    table = CountTable(adata.n_vars)
    table.update(counts, depth > 0)
    stats = table.stats(int((depth > 0).sum()))
    kept = np.flatnonzero(stats.n_detected >= min_cells)
    if not len(kept):
        msg = f"no gene is detected in {min_cells} cells"
        raise InputError(msg, code="E253", where="sctransform", fix="lower `min_cells`")
    filled = counts[depth > 0]
    basis = DepthBasis(*(ends := (float(depth[depth > 0].min()), float(depth.max()))), chebyshev_order(*ends))
    chosen = step_one_genes(stats, min_cells, seed=random_state)
    scan = MomentScan(len(chosen), basis)
    scan.update(filled[:, chosen], depth[depth > 0])
    moments = scan.finish()
    median = table.take(kept).median_nonzero()
    model = fit_sctransform(
        moments.first, moments.cells, basis.nodes, table.take(chosen), chosen, stats, median_nonzero=median,
        min_cells=min_cells,
    )  # fmt: skip
    sums = ResidualMoments(model.noise(model.clip))
    sums.update(filled, depth[depth > 0])
    _, variance = sums.finish(depth[depth > 0])
    ranking = rank_variable(variance)[:n_top_genes]
    rank = np.full(adata.n_vars, np.nan)
    rank[ranking] = np.arange(len(ranking))
    adata.var["highly_variable"] = ~np.isnan(rank)
    adata.var["highly_variable_rank"] = rank
    adata.var["residual_variances"] = variance
    adata.var[f"{key_added}_theta"] = model.theta
    adata.var[f"{key_added}_intercept"] = model.intercept
    top = np.sort(ranking)
    if residuals:
        noise = model.take(top).noise(model.profile_clip)
        values = np.zeros((adata.n_obs, len(top)), dtype=np.float32)
        values[depth > 0] = dense_residuals(filled[:, top], depth[depth > 0], noise)
        adata.obsm[key_added] = values
    adata.uns[key_added] = {
        "params": {"layer": layer or "X", "min_cells": min_cells, "random_state": random_state},
        "genes": np.asarray(adata.var_names[top], dtype=object),
        "report": dict(model.report),
    }
    return adata if copy else None


def sparkx(
    adata: AnnData,
    *,
    layer: str | None = None,
    spatial_key: str = "spatial",
    covariates: Sequence[str] = (),
    key_added: str = "sparkx",
    copy: bool = False,
) -> AnnData | None:
    """Test every gene for expression that depends on place (SPARK-X).

    Writes ``var[key_pval]`` (combined over the kernels) and ``var[key_qval]`` (Benjamini-Yekutieli), NaN for genes
    without counts; ``varm[key_pvals]`` and ``varm[key_stats]``, one column per kernel; and ``uns[key]``: names of the
    kernels, of those left out for these coordinates, and the genes by rising adjusted p-value.

    Parameters
    ----------
    spatial_key
        Entry of ``obsm`` with coordinates, (C, 2) or (C, 3).
    covariates
        Columns of ``obs`` with numbers whose effect is taken out.

    Raises
    ------
    InputError
        E201 to E206 for values that are not counts, E255 and E263 for columns, E260 for coordinates that do not serve.
    """
    adata = adata.copy() if copy else adata
    counts = _counts(adata, layer)
    if spatial_key not in adata.obsm:
        msg = f"there are no coordinates obsm[{spatial_key!r}] (entries: {some_of(list(adata.obsm), 6) or 'none'})"
        raise InputError(msg, code="E260", where="sparkx", fix="set `spatial_key`")
    coords = np.asarray(adata.obsm[spatial_key], dtype=np.float64)
    design = _design(adata, covariates)
    try:
        result = sparkx_matrix(counts, coords, design)
    except ValueError as error:
        raise InputError(str(error), code="E260", where="sparkx", fix="correct the coordinates or covariates") from None
    adata.var[f"{key_added}_pval"], adata.var[f"{key_added}_qval"] = result.p, result.p_adjusted
    adata.varm[f"{key_added}_pvals"], adata.varm[f"{key_added}_stats"] = result.p_kernel, result.statistic
    adata.uns[key_added] = {
        "params": {"layer": layer or "X", "spatial_key": spatial_key, "covariates": list(covariates)},
        "kernels": list(result.kernels),
        "skipped": list(result.skipped),
        "genes": np.asarray(adata.var_names[result.ranking()], dtype=object),
    }
    return adata if copy else None


def _counts(adata: AnnData, layer: str | None) -> sp.csr_matrix:
    """Return the counts of all cells as canonical int32 CSR."""
    container, name = MemoryContainer(adata, "AnnData"), layer or "X"
    if name not in container.matrices():
        msg = f"there is no matrix `{name}` (matrices: {some_of(list(container.matrices()), 6) or 'none'})"
        raise InputError(msg, code="E220", where="AnnData", fix="name a layer with raw counts")
    check = CountCheck("AnnData", np.asarray(adata.var_names, dtype=np.str_))
    parts = [check.add(*part) for part in container.matrix(name).rows(0, adata.n_obs, adata.n_obs)]
    if check.failed:
        from musegnn.data_store.description import count_layers

        elsewhere = next(iter(count_layers(container, besides=name)), "")
        check.finish(elsewhere=f'give layer="{elsewhere}", which holds raw counts' if elsewhere else "")
    return sp.vstack([part for part in parts if part is not None], format="csr")


def _chosen(adata: AnnData, genes: str | Sequence[str] | NDArray[np.bool_] | None) -> NDArray[np.intp]:
    """Return the positions of the genes that are used, in the order of the object."""
    if genes is None:
        genes = "highly_variable" if "highly_variable" in adata.var else np.ones(adata.n_vars, dtype=np.bool_)
    if isinstance(genes, str):
        if genes not in adata.var:
            msg = f"there is no column `{genes}` in var (columns: {some_of(list(adata.var), 6) or 'none'})"
            raise InputError(msg, code="E255", where="cscore", fix="name a column of truth values, or genes in a list")
        genes = adata.var[genes].to_numpy(dtype=np.bool_)
    given = np.asarray(genes)
    if given.dtype == np.bool_:
        return np.flatnonzero(given)
    unknown = [name for name in given.tolist() if name not in adata.var_names]
    if unknown:
        msg = f"{len(unknown)} of {len(given)} genes are not in var_names ({some_of(list(map(str, unknown)))})"
        raise InputError(msg, code="E420", where="cscore", fix="name genes as in var_names")
    return np.flatnonzero(adata.var_names.isin(given))


def _design(adata: AnnData, covariates: Sequence[str]) -> NDArray[np.float64] | None:
    for name in covariates:
        if name not in adata.obs or adata.obs[name].dtype.kind not in "biuf":
            msg = f"there is no column `{name}` of numbers in obs"
            raise InputError(msg, code="E263", where="sparkx", fix="name columns of obs with numbers")
    return np.stack([adata.obs[name].to_numpy(np.float64) for name in covariates], axis=1) if covariates else None


def _spread(values: NDArray[np.float64], used: NDArray[np.intp], n_genes: int) -> Any:  # a matrix, dense or sparse
    if len(used) == n_genes:
        return values
    rows, columns = np.repeat(used, len(used)), np.tile(used, len(used))
    return sp.csr_matrix((values.ravel(), (rows, columns)), shape=(n_genes, n_genes))


def _placed(values: NDArray[np.float64], used: NDArray[np.intp], n_genes: int) -> NDArray[np.float64]:
    placed = np.full(n_genes, np.nan)
    placed[used] = values
    return placed
