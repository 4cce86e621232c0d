"""From raw counts of one dataset to its genes, pairs and profiles, in stages of restartable tasks.

1. ``scan``: quality control, depths, counts per gene (:mod:`musegnn.coexpression.scan`).
2. ``select``: sums for the residual model and for the test of spatial variation
   (:mod:`musegnn.coexpression.gene_selection`).
3. ``variance``: residual variances, where genes are chosen by them.
4. ``extract``: the counts of the chosen genes, copied to small files (:mod:`musegnn.coexpression.pairs`).

These read the source, so a build takes two to four passes over it. ``pairs`` (Gram stripes) and ``profile`` read the
copies. Between stages a few small results are merged here, into a :class:`~musegnn.coexpression.state.BuildState`.

Legend: n cells kept, M genes kept, N genes selected.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from musegnn.atlas_file import read_lists
from musegnn.coexpression import gene_selection
from musegnn.coexpression import pairs as pair_stages
from musegnn.coexpression import profile as profile_stages
from musegnn.coexpression.irls import fit_irls
from musegnn.coexpression.memory import check_profile_memory
from musegnn.coexpression.report import describe_build
from musegnn.coexpression.scan import BLOCK_ROWS, ScannedCells, check_genes, cut_ranges, merge_scans, scan_range
from musegnn.coexpression.state import BuildState
from musegnn.coexpression.tasks import DAMAGE, Task, load, run_here, run_stage, save
from musegnn.data_store import build_id
from musegnn.data_store.records import DatasetRecord, GeneTable
from musegnn.errors import ConfigError
from musegnn.kernels.gram import scattered_genes
from musegnn.removed_settings import with_removed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from musegnn.coexpression.gene_selection import Ranking
    from musegnn.coexpression.shared_selection import SharedGenes
    from musegnn.coexpression.tasks import Fields, Runner
    from musegnn.config import DatasetConfig, GraphConfig
    from musegnn.data_store.readers import CountSource
    from musegnn.data_store.records import PairTable

    Call = tuple[Callable[..., Fields], tuple[Any, ...]]  # a task's function and its arguments

ALGORITHM = "coexpression-5"
NEW = {"mod": None, "transpose": False, "gene_name_key": None, "mitochondrial": None}
NO_PART = {"select_by"}
NOT_OF_A_GRAPH = {"path", "annotation", "added"}  # the fingerprint tells what files hold
MARK = "build.npz"
STRIPE_BYTES = 1 << 30


class BuildProgress(Protocol):
    """Called with the stage and the cells worked through, of all stages together."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report a step."""


class _Mark(NamedTuple):
    build: str


def build_parameters(
    dataset: DatasetConfig,
    config: GraphConfig,
    *,
    block_rows: int = BLOCK_ROWS,
    device: str = "cpu",
    shared: SharedGenes | None = None,
) -> dict[str, Any]:  # JSON
    """Return everything but the counts that a build depends on, for :func:`musegnn.data_store.build_id`.

    Settings that earlier versions had are among them, and those they did not have only where they say something, so
    that what these built is recognised. Of the datasets that choose genes together, their identities are.
    """
    rank = config.profile_rank
    graph = with_removed(config.model_dump(mode="json", exclude=NO_PART), "graph") | {
        "block_rows": block_rows,
        "device": device,
    }
    settings = dataset.model_dump(mode="json", exclude=NOT_OF_A_GRAPH)
    graph |= {"profile": "gram", "profile_rank": 256} if rank is None else {"profile": "randomized"}
    together = {} if shared is None else {"shared_with": list(shared.members)}
    return {
        "dataset": _without_new(with_removed(settings, "datasets")),
        "graph": _without_new(graph),
    } | together


def _without_new(settings: dict[str, Any]) -> dict[str, Any]:
    """Drop settings that earlier versions did not have, where builds are as theirs."""
    return {name: value for name, value in settings.items() if name not in NEW or value != NEW[name]}


def stages_of(config: GraphConfig, modality: str) -> tuple[str, ...]:
    """Name the stages of a build; those before ``pairs`` each read the source once."""
    by_residuals = gene_selection.selects_by_residuals(config, modality)
    by_place = gene_selection.selects_by_place(config, modality)
    select = ("select",) if by_place or config.residuals == "sctransform" else ()
    variance = ("variance",) if by_residuals else ()
    profile = ("profile",) if config.profile_rank is None else ("profile", "profile again")
    return ("scan", *select, *variance, "extract", "pairs", *profile)


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
    block_rows: int = BLOCK_ROWS,
    device: str = "cpu",
    shared: SharedGenes | None = None,
    progress: BuildProgress | None = None,
) -> DatasetRecord:
    """Build the co-expression of one dataset, with a report of what was kept, dropped and estimated.

    The result does not depend on `runner`, `parallel` and `stripe_bytes`. BLAS is held to one thread meanwhile, so that
    it does not depend on what else runs. That limit belongs to the process: who calls this from several threads holds
    it around all of them, as ``cluster.build`` does, and runners on other processes hold it there.

    Parameters
    ----------
    source, dataset
        Raw counts, cells x genes, and their description.
    config
        How to select genes and test pairs. A list of genes that is a path is read, and provenance holds its names.
    work
        Folder for the files of tasks, kept when the build is interrupted and reused by the next call with the same
        source and settings, by which it is marked; ``None``: a temporary one.
    runner, parallel
        Runs the tasks of a stage, so many at a time.
    stripe_bytes
        Largest size of the sums of one task over pairs.
    memory
        Bytes that this process may use to merge the profile; ``None``: not bounded.
    block_rows
        Cells per range, the unit of work and of resuming. Like `device` it changes the result by rounding alone, and
        is part of the identity of the build.
    device
        Where Gram matrices are summed: ``cpu``, or a torch device.
    shared
        Order of genes that this dataset has in common with others; ``None``: it chooses for itself.
    progress
        Called after each task.

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
    config = read_lists(config)
    check_genes(source, config)
    parameters = build_parameters(dataset, config, block_rows=block_rows, device=device, shared=shared)
    if work is not None:
        _claim(work, build_id(source.fingerprint(), parameters, ALGORITHM), dataset.name)
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(limits=1, user_api="blas"))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="musegnn-"))) if work is None else work
        stages = _Stages(folder, runner, stages_of(config, dataset.modality), source.n_cells, progress)
        state = BuildState(source, dataset, config, cut_ranges(source.n_cells, block_rows))
        _scan(state, stages)
        _select(state, _rank(state, stages), shared)
        check_profile_memory(dataset.name, config, len(state.selection.genes), memory)
        _extract(state, stages, device)
        pairs, certainty = _pairs(state, stages, parallel, stripe_bytes)
        profile = _profile(state, stages)
    return _record(state, pairs, certainty, profile, parameters)


def rank_dataset(
    source: CountSource,
    dataset: DatasetConfig,
    config: GraphConfig,
    *,
    work: Path,
    shared: SharedGenes,
    runner: Runner = run_here,
    block_rows: int = BLOCK_ROWS,
    device: str = "cpu",
    progress: BuildProgress | None = None,
) -> NDArray[np.str_]:
    """Run the first stages of :func:`build_dataset`, and return the names of the genes, best first.

    Parameters and errors are those of :func:`build_dataset`, which reuses the files of these stages in `work`; `shared`
    has no order yet.
    """
    check_genes(source, config)
    parameters = build_parameters(dataset, config, block_rows=block_rows, device=device, shared=shared)
    _claim(work, build_id(source.fingerprint(), parameters, ALGORITHM), dataset.name)
    stages = _Stages(work, runner, stages_of(config, dataset.modality), source.n_cells, progress)
    state = BuildState(source, dataset, config, cut_ranges(source.n_cells, block_rows))
    with threadpool_limits(limits=1, user_api="blas"):
        _scan(state, stages)
        order = _rank(state, stages).order
    return np.asarray(source.gene[state.scan.genes][order], dtype=np.str_)


def _claim(work: Path, build: str, name: str) -> None:
    """Mark a folder as that of one build, or refuse one that holds files of another or of an unknown one."""
    mark = work / MARK
    if not mark.exists() and not any(work.glob("*/*.npz")):
        save(mark, _Mark(build))
        return
    try:
        found = load(mark, _Mark).build
    except (*DAMAGE, TypeError):
        found = "unknown"
    if found != build:
        msg = f"{work} holds files of another build ({found[:8]}), expected the counts and settings of {build[:8]}"
        raise ConfigError(
            msg, code="E311", where=name, fix="give each build an empty `work` folder, or remove this one"
        )


class _Stages:
    """Runs stages one after the other below one folder and reports how far they are."""

    def __init__(
        self, folder: Path, runner: Runner, names: tuple[str, ...], n_cells: int, progress: BuildProgress | None
    ) -> None:
        self._folder = folder
        self._runner = runner
        self._names = names
        self._n_cells = n_cells
        self._progress = progress or (lambda *_: None)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def run(self, name: str, work: Sequence[Call], labels: Sequence[str] | None = None) -> list[Path]:
        """Run one call per task, each counting for its share of the cells; return the files in order.

        `labels` name the files where the position of a task does not say what it computes.
        """
        before, total = self._names.index(name) * self._n_cells, len(self._names) * self._n_cells
        self._progress(name, before, total)
        finished = 0

        def done(_: Task) -> None:
            nonlocal finished
            finished += 1
            self._progress(name, before + self._n_cells * finished // len(work), total)

        place = self._folder / name.replace(" ", "-")
        labels = labels or [f"{k:05d}" for k in range(len(work))]
        tasks = [Task(place / f"{label}.npz", *call) for label, call in zip(labels, work, strict=True)]
        run_stage(tasks, self._runner, done)
        return [task.path for task in tasks]

    def put(self, name: str, fields: Fields) -> Path:
        """Write a file that tasks of the next stage read."""
        path = self._folder / f"{name}.npz"
        save(path, fields)
        return path


def _scan(state: BuildState, stages: _Stages) -> None:
    """Judge cells and count what they hold."""
    source, config = state.source, state.config
    scanned = stages.run("scan", [(scan_range, (source, config, cells)) for cells in state.ranges])
    state.scan = merge_scans(source, config, scanned)
    state.cells = [ScannedCells(source, cells, path) for cells, path in zip(state.ranges, scanned, strict=True)]


def _rank(state: BuildState, stages: _Stages) -> Ranking:
    """Fit the residual model and rank genes."""
    columns, collected, varied = state.scan.genes, list[Path](), list[Path]()
    state.plan = gene_selection.plan_selection(state)
    if "select" in stages:
        shared = (state.config, columns, state.plan)
        collected = stages.run("select", [(gene_selection.select_range, (cells, *shared)) for cells in state.cells])
    state.model = gene_selection.fit_model(state, collected)
    if "variance" in stages:
        model = stages.put("model", state.model.noise(state.model.clip))
        varied = stages.run(
            "variance", [(gene_selection.variance_range, (cells, columns, model)) for cells in state.cells]
        )
    return gene_selection.rank_genes(state, collected, varied)


def _select(state: BuildState, ranking: Ranking, shared: SharedGenes | None) -> None:
    state.selection = gene_selection.choose_genes(state, ranking, shared)
    state.ascending = np.argsort(state.scan.stats.n_detected[state.selection.genes], kind="stable")


def _extract(state: BuildState, stages: _Stages, device: str) -> None:
    """Copy the counts of the chosen genes, and estimate their means and variances."""
    columns, basis = state.scan.genes[state.chosen], state.plan.basis
    state.extracted = stages.run(
        "extract", [(pair_stages.extract_range, (cells, columns, basis)) for cells in state.cells]
    )
    moments = pair_stages.merge_moments(state.extracted, len(columns), basis)
    state.fit = fit_irls(moments.whole)
    state.scattered = scattered_genes(state.detected, state.scan.n_cells)
    state.pair_inputs = stages.put(
        "fitted",
        pair_stages.PairInputs(
            **moments._asdict(),
            **state.fit._asdict(),
            scattered=state.scattered,
            z_store=state.config.z_store,
            device=device,
        ),
    )


def _pairs(
    state: BuildState, stages: _Stages, parallel: int, stripe_bytes: int
) -> tuple[PairTable, NDArray[np.float32]]:
    """Return the pairs, and the certainty of each gene."""
    # A row's work: its entries against all later genes, dense or scattered alike, and the finish of its pairs.
    n_genes = len(state.chosen)
    weight = (state.detected + 1.0) * np.arange(n_genes, 0, -1, dtype=np.float64)
    stripes = pair_stages.cut_stripes(weight, parallel, stripe_bytes)
    work: list[Call] = [(pair_stages.gram_stripe, (state.pair_inputs, state.extracted, rows)) for rows in stripes]
    paths = stages.run("pairs", work, [f"{start:06d}-{stop:06d}" for start, stop in stripes])
    pairs = pair_stages.collect_pairs(paths, state.ascending, state.config.z_store)
    return pairs, pair_stages.collect_certainty(paths, state.ascending)


def _profile(state: BuildState, stages: _Stages) -> NDArray[np.float32]:
    """Return the profile of the genes in the order of the graph."""
    config, scan, size = state.config, state.scan, profile_stages.GROUP_RANGES
    model = state.model.take(state.chosen)
    noise = model.noise(model.profile_clip if config.residuals == "sctransform" else model.clip)
    path = stages.put("profile-model", noise)
    groups = [(path, state.extracted[first : first + size]) for first in range(0, len(state.extracted), size)]
    if config.profile_rank is not None:
        drawn = profile_stages.first_sketch(model.n_genes, config.profile_rank, config.seed)
        sketch = stages.put("sketch", drawn)
        first = stages.run("profile", [(profile_stages.sketch_group, (*group, sketch)) for group in groups])
        basis = stages.put("sketch-again", profile_stages.second_sketch(sketch, first))
        second = stages.run("profile again", [(profile_stages.sketch_group, (*group, basis)) for group in groups])
        found = profile_stages.randomized_profile(basis, second, config.profile_rank)
    elif profile_stages.prefers_sparse(state.detected, len(np.unique(scan.depth)), scan.n_cells):
        sums = stages.run("profile", [(profile_stages.sparse_gram_group, group) for group in groups])
        found = profile_stages.sparse_gram_profile(sums, path, scan.depth)
    else:
        sums = stages.run("profile", [(profile_stages.gram_group, group) for group in groups])
        found = profile_stages.gram_profile(sums)
    profile = np.empty_like(found)
    profile[state.ascending] = found
    return profile


def _record(
    state: BuildState,
    pairs: PairTable,
    certainty: NDArray[np.float32],
    profile: NDArray[np.float32],
    parameters: dict[str, Any],
) -> DatasetRecord:
    dataset, source, scan = state.dataset, state.source, state.scan
    chosen, rank = state.selection.genes, np.argsort(state.ascending)
    columns = scan.genes[chosen]
    return DatasetRecord(
        name=dataset.name,
        modality=dataset.modality,
        tissue=dataset.tissue,
        species=dataset.species,
        condition=dataset.condition,
        n_cells=scan.n_cells,
        genes=GeneTable(
            gene=source.gene[columns],
            gene_id=source.gene_id[columns],
            mean=scan.stats.mean[chosen],
            variance=scan.stats.variance[chosen],
            n_cells=scan.stats.n_detected[chosen],
            mu=state.fit.mu[rank],
            sigma=state.fit.sigma[rank],
            score=state.selection.score[chosen],
            certainty=certainty,
        ),
        pairs=pairs,
        profile=profile,
        report=describe_build(state, pairs, stages_of(state.config, dataset.modality).index("extract") + 1),
        provenance={"algorithm": ALGORITHM, "input": source.fingerprint(), "parameters": parameters},
    )
