"""Build the co-expression graphs of an atlas: stages of tasks that share nothing but files.

Each dataset has a thread that goes through its stages and hands their tasks to the scheduler, so that the tasks of
several datasets fill the workers. What a dataset becomes does not depend on the scheduler, on the order of tasks or on
what runs beside it, and a build that was killed goes on where it stopped.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from musegnn.aliases import species_name
from musegnn.atlas_file import read_lists
from musegnn.cluster.pack import PackedFile, pack_file, split_identity
from musegnn.cluster.schedulers import StoppedError, Workers, check_scheduler, open_workers
from musegnn.coexpression.build import ALGORITHM, build_dataset, build_parameters, rank_dataset, stages_of
from musegnn.coexpression.edges import select_edges
from musegnn.coexpression.memory import memory_budget, most_genes, task_memory
from musegnn.coexpression.scan import BLOCK_ROWS
from musegnn.coexpression.shared_selection import SharedGenes, combine_rankings, groups_that_choose
from musegnn.config import IN_MEMORY
from musegnn.data_store import build_id, check_sources
from musegnn.data_store.atlas_checks import SourceDataset
from musegnn.datasets import expand_strata, log_inputs, open_all, open_counts
from musegnn.errors import ConfigError, GraphError, InputError
from musegnn.machine import resolve_device
from musegnn.text import public_path
from musegnn.training.genes import check_orthologs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from musegnn.config import AtlasConfig, DatasetConfig, EdgeConfig, GraphConfig
    from musegnn.data_store import DatasetRecord, Store
    from musegnn.data_store.readers import CountSource, FileSource
    from musegnn.progress import Progress

logger = logging.getLogger(__name__)

T = TypeVar("T")
DRIVERS = 4
IN_THIS_PROCESS = ("threads", "synchronous")


@dataclass(frozen=True, slots=True)
class _Job:
    """Dataset to build."""

    file: FileSource
    dataset: DatasetConfig
    graph: GraphConfig
    edges: EdgeConfig
    build: str
    split: str | None
    """Identity of the copy that the build reads; ``None``: it reads the file."""
    shared: SharedGenes | None
    """Genes that it chooses together with the datasets of the same `members`; ``None``: it chooses for itself."""
    in_store: bool
    """Whether it is there already, and only ranks genes for others."""


@dataclass(slots=True)
class _Site:
    """Store, workers and memory of all jobs."""

    store: Store
    workers: Workers
    stripe_bytes: int
    memory: int
    block_rows: int
    device: str
    progress: Progress | None
    packed: dict[str, PackedFile] = field(default_factory=dict)


def build_graphs(
    atlas: AtlasConfig,
    store: Store,
    *,
    scheduler: str = "threads",
    memory: int | None = None,
    device: str = "auto",
    block_rows: int = BLOCK_ROWS,
    progress: Progress | None = None,
    beside: Sequence[DatasetConfig] = (),
) -> list[str]:
    """Build every dataset of an atlas that the store does not hold yet, and return their names in its order.

    A dataset is held when its newest committed build is of the same counts, settings and algorithm. All files are
    opened and their structure is checked before the first is built; each graph is committed as soon as it is done.

    Parameters
    ----------
    atlas
        Datasets, graph settings and the edge rule, by which each new graph must have edges. Datasets with ``by`` are
        split (:func:`~musegnn.datasets.expand_strata`).
    scheduler
        ``threads``, ``synchronous``, ``distributed``, ``ray`` or the address of a dask scheduler, see
        :func:`~musegnn.cluster.schedulers.open_workers`. Workers must see the same files.
    memory
        Bytes that each process may use; ``None``: half of what this machine has free. It changes the number of tasks,
        never the result.
    device
        Where Gram matrices are summed: ``cpu``, ``cuda``, or ``auto``: CUDA where this machine has it.
    block_rows
        Cells per task. Like `device` it changes results by rounding alone, and is part of a build's identity.
    beside
        Datasets that are not built, with which those of the atlas are compared where their counts are still there.
    progress
        Called as ``progress("build NAME", done, total, note)``, in cells times stages.

    Raises
    ------
    InputError
        When a dataset cannot be used, or two hold the same counts (E252); nothing of it is written.
    GraphError
        When a graph has no edges under the rule of the atlas (E270).
    ConfigError
        For an unknown scheduler (E302), or memory in which the work does not fit (E310).
    """
    check_scheduler(scheduler)
    device = resolve_device(device)
    if scheduler not in IN_THIS_PROCESS and any(dataset.adata is not None for dataset in atlas.datasets):
        msg = f"AnnData objects in memory cannot be read by the workers of `{scheduler}`"
        raise ConfigError(msg, code="E303", fix="leave `scheduler` out, or write the objects to files")
    jobs = _plan(atlas, store, device, block_rows, progress, beside)
    if not jobs:
        return []
    with ExitStack() as stack:
        workers = stack.enter_context(open_workers(scheduler))
        genes = max(most_genes(job.graph, job.file.n_genes) for job in jobs)
        budget = memory_budget(memory)
        stripe_bytes = task_memory(genes, budget, workers.per_process)
        site = _Site(store, workers, stripe_bytes, budget, block_rows, device, progress)
        for job in sorted(jobs, key=lambda job: job.split or ""):
            _pack(job, site, stack)
        return _in_threads(_build, _choose_together(jobs, site), site)


def _plan(
    atlas: AtlasConfig,
    store: Store,
    device: str,
    block_rows: int,
    progress: Progress | None,
    beside: Sequence[DatasetConfig] = (),
) -> list[_Job]:
    atlas = atlas.model_copy(update={"graph": read_lists(atlas.graph)})
    orthologs = check_orthologs(atlas)
    atlas = expand_strata(atlas)
    graph = atlas.graph
    files = open_all(atlas.datasets)
    members = [_member(d, file) for d, file in zip(atlas.datasets, files, strict=True)]
    log_inputs(atlas.datasets, files)
    for warning in check_sources([*_readable(beside), *members]):
        logger.warning("%s", warning)
    for dataset, file in zip(atlas.datasets, files, strict=True):
        known = {} if orthologs is None else orthologs.keys[species_name(dataset.species)]
        if known and known.keys().isdisjoint(file.gene.tolist()):
            logger.warning("W305: none of the genes of %s is in the table of orthologs", dataset.name)
    jobs = []
    for file, dataset, shared in zip(files, atlas.datasets, _shared(atlas, files, block_rows, device), strict=True):
        build = _identity(file, dataset, graph, block_rows, device, shared)
        in_store = store.build_of(dataset.name) == build
        if in_store:
            store.clear_workspace(dataset.name, build)
            if progress is not None:
                progress(f"build {dataset.name}", 1, 1, "in the store")
        split = split_identity(file, dataset, block_rows)
        jobs.append(_Job(file, dataset, graph, atlas.edges, build, split, shared, in_store))
    wanted = {job.shared.members for job in jobs if job.shared is not None and not job.in_store}
    jobs = [job for job in jobs if not job.in_store or (job.shared is not None and job.shared.members in wanted)]
    if not jobs:
        for file, dataset in zip(files, atlas.datasets, strict=True):
            identity = split_identity(file, dataset, block_rows)
            if identity is not None:
                store.clear_split(identity)
    return jobs


def _identity(
    file: FileSource, dataset: DatasetConfig, graph: GraphConfig, rows: int, device: str, shared: SharedGenes | None
) -> str:
    fingerprint = file.fingerprint()
    if dataset.stratum is not None:
        fingerprint |= {"by": dataset.by, "stratum": dataset.stratum}
    parameters = build_parameters(dataset, graph, block_rows=rows, device=device, shared=shared)
    return build_id(fingerprint, parameters, ALGORITHM)


def _shared(atlas: AtlasConfig, files: Sequence[FileSource], rows: int, device: str) -> list[SharedGenes | None]:
    """Return for each dataset which choose genes together with it, if any do."""
    groups = groups_that_choose(atlas.datasets, atlas.graph)
    members = {
        group: tuple(sorted(_identity(files[i], atlas.datasets[i], atlas.graph, rows, device, None) for i in group))
        for group in set(groups)
        if group is not None
    }
    unknown = np.empty(0, dtype=np.str_)
    return [None if group is None else SharedGenes(members[group], unknown) for group in groups]


def _choose_together(jobs: Sequence[_Job], site: _Site) -> list[_Job]:
    """Rank the genes of datasets that choose together, and return the datasets to build with the orders found."""
    joint = [(job, job.shared) for job in jobs if job.shared is not None]
    rankings: dict[tuple[str, ...], list[NDArray[np.str_]]] = {}
    for (_, shared), ranking in zip(joint, _in_threads(_rank, [job for job, _ in joint], site), strict=True):
        rankings.setdefault(shared.members, []).append(ranking)
    orders = {members: combine_rankings(several, jobs[0].graph.n_genes) for members, several in rankings.items()}
    return [
        job if job.shared is None else replace(job, shared=job.shared._replace(order=orders[job.shared.members]))
        for job in jobs
        if not job.in_store
    ]


def _rank(job: _Job, site: _Site) -> NDArray[np.str_]:
    dataset, name = job.dataset, job.dataset.name
    assert job.shared is not None
    with site.store.workspace(name, job.build, keep=not job.in_store) as work:
        return rank_dataset(
            _source(job, site),
            dataset,
            job.graph,
            work=work,
            shared=job.shared,
            runner=site.workers.run,
            block_rows=site.block_rows,
            device=site.device,
            progress=lambda stage, done, total: _tell(site, name, stage, done, total),
        )


def _member(dataset: DatasetConfig, file: FileSource) -> SourceDataset:
    return SourceDataset(
        name=dataset.name,
        species=species_name(dataset.species),
        layer=dataset.layer,
        source=file,
        by=dataset.by,
        stratum=dataset.stratum,
    )


def _readable(datasets: Sequence[DatasetConfig]) -> list[SourceDataset]:
    """Open the counts of datasets that are not built; those that are gone are named in a warning."""
    found = []
    for dataset in datasets:
        try:
            found.append(_member(dataset, open_counts(dataset)))
        except InputError:
            logger.warning("%s: W224: its counts are gone, so that new ones are not compared with them", dataset.name)
    return found


def _in_threads(work: Callable[[_Job, _Site], T], jobs: Sequence[_Job], site: _Site) -> list[T]:
    """Work on several datasets at a time, and raise the first error once the others have stopped."""
    errors: list[BaseException] = []

    def one(job: _Job) -> T | None:
        try:
            if not site.workers.stop.is_set():
                return work(job, site)
        except StoppedError:
            pass
        except BaseException as error:
            errors.append(error)
            site.workers.stop.set()
        return None

    with ThreadPoolExecutor(max(1, min(len(jobs), site.workers.count, DRIVERS))) as drivers:
        try:
            found = list(drivers.map(one, jobs))
        except BaseException:  # Ctrl-C, which Python raises here whatever the drivers do
            site.workers.stop.set()
            raise
    if errors:
        raise errors[0]
    if site.workers.stop.is_set():
        raise StoppedError
    return cast("list[T]", found)


def _build(job: _Job, site: _Site) -> str:
    dataset, name = job.dataset, job.dataset.name
    with site.store.workspace(name, job.build) as work:
        if site.store.build_of(name) == job.build:
            return name
        record = build_dataset(
            _source(job, site),
            dataset,
            job.graph,
            work=work,
            runner=site.workers.run,
            parallel=site.workers.count,
            stripe_bytes=site.stripe_bytes,
            memory=site.memory,
            block_rows=site.block_rows,
            device=site.device,
            shared=job.shared,
            progress=lambda stage, done, total: _tell(site, name, stage, done, total),
        )
        _check_edges(record, job.edges)
        for warning in record.report["warnings"]:
            logger.warning("%s: %s", name, warning)
        path = job.file.path if dataset.adata is None else dataset.path
        place = public_path(path if isinstance(path, str) or path == IN_MEMORY else path.absolute())
        site.store.commit(record, job.build, log={"path": place})
    total = job.file.n_cells * len(stages_of(job.graph, dataset.modality))
    _tell(site, name, "", total, total)
    return name


def _check_edges(record: DatasetRecord, rule: EdgeConfig) -> None:
    try:
        select_edges(record.pairs, record.n_cells, rule)
    except GraphError as error:
        raise type(error)(error.message, code=error.code, where=record.name, fix=error.fix) from None


def _pack(job: _Job, site: _Site, stack: ExitStack) -> None:
    """Copy the counts of a file once, where it is split or stored by columns."""
    if job.split is None or job.split in site.packed:
        return
    folder = stack.enter_context(site.store.split_workspace(job.split))
    site.packed[job.split] = pack_file(
        job.file,
        job.dataset,
        folder=folder,
        run=site.workers.run,
        block_rows=site.block_rows,
        done=lambda: _tell(site, job.dataset.name, "split", 0, 1),
    )


def _source(job: _Job, site: _Site) -> CountSource:
    return job.file if job.split is None else site.packed[job.split].source(job.file, job.dataset)


def _tell(site: _Site, name: str, stage: str, done: int, total: int) -> None:
    if site.progress is not None:
        site.progress(f"build {name}", done, total, stage)
