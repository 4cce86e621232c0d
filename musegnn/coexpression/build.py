"""From raw counts of one dataset to its genes, pairs and profiles, in stages of restartable tasks.

1. ``scan``: quality control, depths, counts per gene (:mod:`musegnn.coexpression.scan`).
2. ``select``: sums for the residual model and for the test of spatial variation
   (:mod:`musegnn.coexpression.gene_selection`).
3. ``variance``: residual variances, where genes are chosen by them.
4. ``extract``: the counts of the chosen genes, copied to small files (:mod:`musegnn.coexpression.pairs`).

These read the source, so a build takes two to four passes over it. ``pairs`` (Gram stripes) and ``profile`` read the
copies. Between stages a few small results are merged here.

Legend: n cells kept, M genes kept, N genes selected.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.special import erfc
from threadpoolctl import threadpool_limits

from musegnn.atlas_file import read_genes
from musegnn.coexpression import gene_selection
from musegnn.coexpression import pairs as pair_stages
from musegnn.coexpression import profile as profile_stages
from musegnn.coexpression.edges import select_edges
from musegnn.coexpression.irls import fit_irls
from musegnn.coexpression.memory import check_profile_memory
from musegnn.coexpression.scan import check_genes, cut_shards, merge_scans, scan_shard
from musegnn.coexpression.tasks import DAMAGE, Task, load, opened, run_here, run_stage, save
from musegnn.config import EdgeConfig
from musegnn.data_store import build_id
from musegnn.data_store.records import DatasetRecord, GeneTable, PairTable
from musegnn.errors import ConfigError, GraphError
from musegnn.kernels.gram import scattered_genes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from musegnn.coexpression.gene_selection import Selection
    from musegnn.coexpression.irls import IRLSFit
    from musegnn.coexpression.scan import ScanResult
    from musegnn.coexpression.sctransform import SCTModel
    from musegnn.coexpression.tasks import Arrays, Runner
    from musegnn.config import DatasetConfig, GraphConfig
    from musegnn.data_store.readers import CountSource

    Call = tuple[Callable[..., Arrays], tuple[Any, ...]]  # a task's function and what it is called with

ALGORITHM = "coexpression-4"
MARK = "build.npz"
UNDER_DISPERSED = 0.1
DENSE_GRAPH = 0.3
STRIPE_BYTES = 1 << 30


class BuildProgress(Protocol):
    """Called as a build goes on."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report the stage and the cells worked through, of all stages together."""


def build_parameters(dataset: DatasetConfig, config: GraphConfig) -> dict[str, Any]:  # JSON
    """Return everything but the counts that a build depends on, for :func:`musegnn.data_store.build_id`."""
    return {
        "dataset": dataset.model_dump(mode="json", exclude={"path"}),
        "graph": config.model_dump(mode="json"),
    }


def stages_of(config: GraphConfig, modality: str) -> tuple[str, ...]:
    """Name the stages of a build; those before ``pairs`` each read the source once."""
    by_residuals = gene_selection.selects_by_residuals(config, modality)
    by_place = gene_selection.selects_by_place(config, modality)
    select = ("select",) if by_place or config.residuals == "sctransform" else ()
    variance = ("variance",) if by_residuals else ()
    profile = ("profile", "profile again") if config.profile == "randomized" else ("profile",)
    exact = ("exact",) if config.negative_variance == "reference" else ()
    return ("scan", *select, *variance, "extract", *exact, "pairs", *profile)


def build_dataset(
    source: CountSource,
    dataset: DatasetConfig,
    config: GraphConfig,
    *,
    work: Path | None = None,
    runner: Runner = run_here,
    parallel: int = 1,
    stripe_bytes: int = STRIPE_BYTES,
    memory: int | None = None,
    progress: BuildProgress | None = None,
) -> DatasetRecord:
    """Build the co-expression of one dataset.

    The result does not depend on `runner`, `parallel` and `stripe_bytes`. BLAS is held to one thread meanwhile, so that
    it does not depend on what else runs. That limit belongs to the process: who calls this from several threads holds
    it around all of them, as ``cluster.graphs`` does, and runners on other processes hold it there.

    Parameters
    ----------
    source
        Raw counts, cells x genes.
    dataset
        What the counts are of.
    config
        How to select genes and test pairs. A list of genes that is a path is read, and its names are what provenance
        holds.
    work
        Folder for the files of tasks, kept when the build is interrupted and taken up by the next call with the same
        source and settings, by which it is marked; ``None``: a temporary one.
    runner
        Where tasks run.
    parallel
        Tasks that can run at a time.
    stripe_bytes
        Largest size of the sums of one task over pairs.
    memory
        Bytes that this process may use to merge the profile; ``None``: not bounded.
    progress
        Called after each task.

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
    ConfigError
        E300 when a list of genes cannot be read; E310 when the profile does not fit into `memory`; E311 when `work`
        holds files of another build, none of which is touched.
    """
    if isinstance(config.genes, Path):
        config = config.model_copy(update={"genes": read_genes(config.genes)})
    check_genes(source, config)
    if work is not None:
        _claim(work, build_id(source.fingerprint(), build_parameters(dataset, config), ALGORITHM), dataset.name)
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(limits=1, user_api="blas"))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="musegnn-"))) if work is None else work
        stages = _Stages(folder, runner, stages_of(config, dataset.modality), source.n_cells, progress)
        return _build(source, dataset, config, stages, parallel, stripe_bytes, memory)


def _claim(work: Path, build: str, name: str) -> None:
    """Mark a folder as that of one build, or refuse one that holds files of another or of an unknown one."""
    mark = work / MARK
    if not mark.exists() and not any(work.glob("*/*.npz")):
        save(mark, {"build": np.array(build)})
        return
    try:
        found = str(load(mark)["build"])
    except (*DAMAGE, KeyError):
        found = "unknown"
    if found != build:
        msg = f"{work} holds files of another build ({found[:8]}), expected the counts and settings of {build[:8]}"
        raise ConfigError(
            msg, code="E311", where=name, fix="give each build an empty `work` folder, or remove this one"
        )


class _Stages:
    """Runs stages one after the other below one folder and tells how far they are."""

    def __init__(
        self, folder: Path, runner: Runner, names: tuple[str, ...], n_cells: int, progress: BuildProgress | None
    ) -> None:
        self.folder = folder
        self._runner = runner
        self._names = names
        self._n_cells = n_cells
        self._progress = progress or (lambda *_: None)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def run(self, name: str, work: Sequence[Call], labels: Sequence[str] | None = None) -> list[Path]:
        """Run one call per task, each counting for its share of the cells; give the files in order.

        `labels` name the files where the position of a task does not say what it computes.
        """
        before, total = self._names.index(name) * self._n_cells, len(self._names) * self._n_cells
        self._progress(name, before, total)
        finished = 0

        def done(_: Task) -> None:
            nonlocal finished
            finished += 1
            self._progress(name, before + self._n_cells * finished // len(work), total)

        place = self.folder / name.replace(" ", "-")
        labels = labels or [f"{k:05d}" for k in range(len(work))]
        tasks = [Task(place / f"{label}.npz", *call) for label, call in zip(labels, work, strict=True)]
        run_stage(tasks, self._runner, done)
        return [task.path for task in tasks]

    def put(self, name: str, arrays: Arrays) -> Path:
        """Write what tasks of the next stage read."""
        path = self.folder / f"{name}.npz"
        save(path, arrays)
        return path


def _build(
    source: CountSource,
    dataset: DatasetConfig,
    config: GraphConfig,
    stages: _Stages,
    parallel: int,
    stripe_bytes: int,
    memory: int | None,
) -> DatasetRecord:
    shards = cut_shards(source.n_cells, config.block_rows)
    scanned = stages.run("scan", [(scan_shard, (source, config, shard)) for shard in shards])
    result = merge_scans(source, config, scanned)
    inputs = [(source, config, shard, path) for shard, path in zip(shards, scanned, strict=True)]
    plan = gene_selection.plan_selection(source, dataset, config, result)
    collected = []
    if "select" in stages:
        collected = stages.run(
            "select", [(gene_selection.select_shard, (*given, result.genes, plan)) for given in inputs]
        )
    model = gene_selection.fit_model(config, result, plan, collected)
    varied = []
    if "variance" in stages:
        described = stages.put("model", profile_stages.model_arrays(model, model.clip))
        varied = stages.run(
            "variance", [(gene_selection.variance_shard, (*given, result.genes, described)) for given in inputs]
        )
    selection = gene_selection.choose_genes(source, dataset, config, result, plan, model, collected, varied)
    chosen = selection.genes
    check_profile_memory(dataset.name, config, len(chosen), result.n_cells, memory)
    ascending = np.argsort(result.stats.n_detected[chosen], kind="stable")
    columns = result.genes[chosen[ascending]]
    extracted = stages.run("extract", [(pair_stages.extract_shard, (*given, columns, plan.basis)) for given in inputs])
    moments = pair_stages.merge_moments(extracted, plan.basis)
    fit = fit_irls(moments)
    detected = result.stats.n_detected[chosen[ascending]]
    fitted = stages.put("fitted", pair_stages.Fitted(moments, fit, config.negative_variance).to_arrays())
    scattered = scattered_genes(detected, result.n_cells)
    pairs = _pairs(config, stages, fitted, extracted, detected, scattered, ascending, parallel, stripe_bytes)
    model = model.take(chosen[ascending])
    sparse = profile_stages.prefers_sparse(detected, len(np.unique(result.depth)), result.n_cells)
    sorted_profile = _profile(config, stages, model, extracted, result.depth if sparse else None)
    profile = np.empty_like(sorted_profile)
    profile[ascending] = sorted_profile
    rank = np.argsort(ascending)
    fit = replace(fit, mu=fit.mu[rank], sigma=fit.sigma[rank])
    return DatasetRecord(
        name=dataset.name,
        modality=dataset.modality,
        tissue=dataset.tissue,
        species=dataset.species,
        condition=dataset.condition,
        n_cells=result.n_cells,
        genes=_gene_table(source, result, chosen, fit, selection.score),
        pairs=pairs,
        profile=profile,
        report=_report(source, dataset, config, result, model, fit, pairs, plan.basis.order, scattered, selection),
        provenance={
            "algorithm": ALGORITHM,
            "input": source.fingerprint(),
            "parameters": build_parameters(dataset, config),
        },
    )


def _pairs(
    config: GraphConfig,
    stages: _Stages,
    fitted: Path,
    extracted: list[Path],
    detected: NDArray[np.int64],
    scattered: int,
    ascending: NDArray[np.intp],
    parallel: int,
    stripe_bytes: int,
) -> PairTable:
    exact = None
    if config.negative_variance == "reference":
        (exact,) = stages.run("exact", [(pair_stages.exact_sums, (fitted, extracted))])
    # A row's work: its entries against all later genes, dense or scattered alike, and the finish of its pairs.
    weight = (detected + 1.0) * np.arange(len(detected), 0, -1, dtype=np.float64)
    stripes = pair_stages.cut_stripes(weight, parallel, stripe_bytes)
    device = "cpu" if config.device == "auto" else config.device
    work: list[Call] = [
        (pair_stages.gram_stripe, (fitted, extracted, exact, rows, scattered, config.z_store, device))
        for rows in stripes
    ]
    paths = stages.run("pairs", work, [f"{start:06d}-{stop:06d}" for start, stop in stripes])
    with opened(paths) as parts:
        return pair_stages.collect_pairs(parts, ascending, config.z_store)


def _profile(
    config: GraphConfig,
    stages: _Stages,
    model: SCTModel,
    extracted: list[Path],
    depth: NDArray[np.float64] | None,
) -> NDArray[np.float32]:
    """Return the profile of genes in ascending density; `depth` where its Gram matrix comes from counts above zero."""
    clip = model.profile_clip if config.residuals == "sctransform" else model.clip
    described = stages.put("profile-model", profile_stages.model_arrays(model, clip))
    size = profile_stages.GROUP_SHARDS
    groups = [(described, extracted[first : first + size]) for first in range(0, len(extracted), size)]
    if config.profile == "full":
        return profile_stages.full_profile(stages.run("profile", [(profile_stages.full_group, g) for g in groups]))
    if config.profile == "gram" and depth is not None:
        sums = stages.run("profile", [(profile_stages.sparse_gram_group, g) for g in groups])
        return profile_stages.sparse_gram_profile(sums, described, depth)
    if config.profile == "gram":
        return profile_stages.gram_profile(stages.run("profile", [(profile_stages.gram_group, g) for g in groups]))
    drawn = profile_stages.first_sketch(model.n_genes, config.profile_rank, config.seed)
    sketch = stages.put("sketch", drawn)
    first = stages.run("profile", [(profile_stages.sketch_group, (*g, sketch)) for g in groups])
    basis = stages.put("sketch-again", profile_stages.second_sketch(sketch, first))
    second = stages.run("profile again", [(profile_stages.sketch_group, (*g, basis)) for g in groups])
    return profile_stages.randomized_profile(basis, second, config.profile_rank)


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
    scattered: int,
    selection: Selection,
) -> dict[str, Any]:  # JSON
    negative = int((fit.sigma < 0.0).sum())
    warnings = list(source.warnings)
    if result.merged:
        warnings.append(f"W236: {result.merged} duplicate entries of the sparse matrix were summed")
    if negative > UNDER_DISPERSED * len(fit.mu):
        handled = {"clamp": "tested with the Poisson variance", "drop": "left without edges"}
        how = handled.get(config.negative_variance, "tested with it as CS-CORE does")
        share = 100.0 * negative / len(fit.mu)
        warnings.append(
            f"W254: {negative} of {len(fit.mu)} genes ({share:.0f} %) have a negative variance estimate, as "
            f"binarised or otherwise under-dispersed counts give; {how}, estimate 0"
        )
    if fit.has_nothing_to_settle:
        warnings.append("W255: no gene kept a positive variance estimate, so there was nothing to iterate on")
    elif not fit.converged:
        warnings.append(f"W255: the variance estimates still moved after {fit.iterations} iterations")
    if len(fit.mu) < config.n_genes and config.selection not in {"all", "list"}:
        warnings.append(f"W256: {len(fit.mu)} genes could be selected, {config.n_genes} were asked for")
    if selection.skipped:
        warnings.append(f"W257: SPARK-X kernels left out for these coordinates: {', '.join(selection.skipped)}")
    if selection.missing:
        warnings.append(
            f"W259: {len(selection.missing)} names of the list are of none of the {len(result.genes)} genes detected "
            f"in {config.min_cells} cells or more ({gene_selection.first_names(selection.missing)})"
        )
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
        "gram": {"scattered_genes": scattered, "tiled_genes": len(fit.mu) - scattered},
        "residuals": {"model": config.residuals, **model.report},
        "default_rule": _default_rule(pairs, result.n_cells, warnings),
        "passes": stages_of(config, dataset.modality).index("extract") + 1,
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
