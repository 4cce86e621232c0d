"""Build the co-expression graphs of an atlas: one dask task per dataset.

Tasks share nothing but the store. The bits of a dataset do not depend on the scheduler, on the order of tasks or on
what runs beside it: each task works through its own blocks in file order, with BLAS held to one thread.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dask.base import compute
from dask.delayed import delayed
from threadpoolctl import threadpool_limits

from musegnn.coexpression.build import ALGORITHM, build_dataset, build_parameters
from musegnn.coexpression.edges import select_edges
from musegnn.data_store import build_id, open_h5ad
from musegnn.errors import ConfigError, GraphError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from musegnn.config import AtlasConfig, DatasetConfig, EdgeConfig, GraphConfig
    from musegnn.data_store import DatasetRecord, Store
    from musegnn.data_store.readers import H5adSource
    from musegnn.progress import Progress

logger = logging.getLogger(__name__)

LOCAL_SCHEDULERS = ("threads", "synchronous")
STEPS = ("scan", "select", "pairs", "write")


@dataclass(frozen=True, slots=True)
class _Task:
    """One dataset to build."""

    source: H5adSource
    dataset: DatasetConfig
    graph: GraphConfig
    edges: EdgeConfig
    build: str


def build_graphs(
    atlas: AtlasConfig, store: Store, *, scheduler: str = "threads", progress: Progress | None = None
) -> list[str]:
    """Build every dataset of an atlas that the store does not hold yet.

    A dataset is held when its newest committed build is of the same counts, settings and algorithm. All files are
    opened and their structure is checked before the first is built.

    Parameters
    ----------
    atlas
        Datasets, graph settings and the edge rule, by which each new graph must have edges.
    store
        Where graphs are committed, each as soon as it is done.
    scheduler
        ``threads`` (this process), ``synchronous`` (one after the other, for debugging), or the address of a dask
        scheduler such as ``tcp://host:8786``, whose workers see the same files.
    progress
        Called as ``progress("build NAME", done, total, note)``.

    Returns
    -------
    list of str
        Names of the datasets built now, in the order of the atlas.

    Raises
    ------
    InputError
        When a dataset cannot be used, or two hold the same counts (E252); nothing of it is written.
    GraphError
        When a graph has no edges under the rule of the atlas (E270).
    ConfigError
        For an unknown scheduler.
    """
    if scheduler not in LOCAL_SCHEDULERS and "://" not in scheduler:
        msg = f"there is no scheduler {scheduler!r}"
        fix = f"use {', '.join(LOCAL_SCHEDULERS)} or the address of a dask scheduler (tcp://host:port)"
        raise ConfigError(msg, code="E303", where="scheduler", fix=fix)
    tasks = _plan(atlas, store, progress)
    if not tasks:
        return []
    lock = threading.Lock()

    def commit(task: _Task, record: DatasetRecord) -> str:
        with lock:
            store.commit(record, task.build)
        _tell(progress, task.dataset.name, "write", done=True)
        return task.dataset.name

    if scheduler in LOCAL_SCHEDULERS:

        def build_and_commit(task: _Task) -> str:
            return commit(task, _build(task, progress))

        jobs = [delayed(build_and_commit, pure=False)(delayed(task, traverse=False)) for task in tasks]
        # Set here, because libraries take the limit of one controlling thread only, and it has to outlast all tasks.
        with threadpool_limits(limits=1, user_api="blas"):
            return list(compute(*jobs, scheduler=scheduler))  # type: ignore[no-untyped-call]  # dask publishes no types
    return _build_remotely(tasks, scheduler, commit)


def _plan(atlas: AtlasConfig, store: Store, progress: Progress | None) -> list[_Task]:
    sources = [_open(dataset) for dataset in atlas.datasets]
    seen: dict[tuple[str, str | None], str] = {}
    tasks = []
    for source, dataset in zip(sources, atlas.datasets, strict=True):
        fingerprint = source.fingerprint()
        key = (fingerprint["sha256"], dataset.layer)
        if key in seen:
            msg = f"holds the same counts as dataset `{seen[key]}`, so results would leak between them"
            raise InputError(msg, code="E252", where=dataset.name, fix="leave one of the two out")
        seen[key] = dataset.name
        build = build_id(fingerprint, build_parameters(dataset, atlas.graph), ALGORITHM)
        if store.build_of(dataset.name) == build:
            _tell(progress, dataset.name, "write", done=True, note="in the store")
        else:
            tasks.append(_Task(source, dataset, atlas.graph, atlas.edges, build))
    return tasks


def _open(dataset: DatasetConfig) -> H5adSource:
    return open_h5ad(
        dataset.path,
        layer=dataset.layer,
        gene_id_key=dataset.gene_id_key,
        spatial_key=dataset.spatial_key if dataset.modality == "spatial" else None,
    )


def _build(task: _Task, progress: Progress | None) -> DatasetRecord:
    name = task.dataset.name
    record = build_dataset(task.source, task.dataset, task.graph, progress=lambda step: _tell(progress, name, step))
    try:
        select_edges(record.pairs, record.n_cells, task.edges)
    except GraphError as error:
        raise GraphError(error.message, code=error.code, where=name, fix=error.fix) from None
    for warning in record.report["warnings"]:
        logger.warning("%s: %s", name, warning)
    return record


def _build_remotely(tasks: list[_Task], address: str, commit: Callable[[_Task, DatasetRecord], str]) -> list[str]:
    """Build on the workers of a dask scheduler and commit here, as results come."""
    from distributed import Client, WorkerPlugin, as_completed

    class OneBlasThread(WorkerPlugin):
        """Hold BLAS to one thread on each worker, from its event loop, so that it outlasts every task."""

        name = "musegnn-one-blas-thread"

        def setup(self, worker: object) -> None:
            self.limit = threadpool_limits(limits=1, user_api="blas")

        def teardown(self, worker: object) -> None:
            self.limit.restore_original_limits()

    with Client(address) as client:  # type: ignore[no-untyped-call]  # distributed publishes no types
        client.register_plugin(OneBlasThread())
        try:
            futures = {client.submit(_build, task, None, pure=False): task for task in tasks}
            results = as_completed(futures, with_results=True)  # type: ignore[no-untyped-call]  # as above
            done = {commit(futures[future], record) for future, record in results}
        finally:
            client.unregister_worker_plugin(OneBlasThread.name)
    return [task.dataset.name for task in tasks if task.dataset.name in done]


def _tell(progress: Progress | None, name: str, step: str, *, done: bool = False, note: str = "") -> None:
    if progress is not None:
        progress(f"build {name}", STEPS.index(step) + int(done), len(STEPS), note or ("" if done else step))
