"""What building the graphs of an atlas will take, before it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from musegnn.cluster.build import DRIVERS
from musegnn.cluster.schedulers import check_scheduler, expected_workers
from musegnn.coexpression.estimate import BuildEstimate, estimate_build, total_memory
from musegnn.coexpression.memory import check_profile_memory, memory_budget, most_genes, task_memory
from musegnn.data_store.strata import stratum_labels
from musegnn.datasets import expand_strata, open_source

if TYPE_CHECKING:
    from musegnn.config import AtlasConfig, DatasetConfig
    from musegnn.data_store.readers import H5adSource


@dataclass(frozen=True, slots=True)
class AtlasEstimate:
    """What building an atlas takes.

    Attributes
    ----------
    datasets
        In the order of the atlas, split ones by stratum.
    memory
        Peak of the process that builds, with the tasks that run in it, in bytes.
    per_worker
        Peak of each other process that runs tasks, in bytes; 0 where there is none.
    cpu_seconds
        Processor time of all.
    workers
        Tasks that run at a time.
    """

    datasets: list[BuildEstimate]
    memory: int
    per_worker: int
    cpu_seconds: float
    workers: int

    @property
    def store_bytes(self) -> int:
        """What stays in the store, in bytes."""
        return sum(d.store_bytes for d in self.datasets)

    def to_json(self) -> dict[str, Any]:  # JSON
        """Return plain values."""
        return {
            "memory": self.memory,
            "per_worker": self.per_worker,
            "cpu_seconds": self.cpu_seconds,
            "workers": self.workers,
            "work_bytes": sum(d.work_bytes for d in self.datasets),
            "store_bytes": self.store_bytes,
            "datasets": [asdict(d) for d in self.datasets],
        }


def estimate_graphs(atlas: AtlasConfig, *, scheduler: str = "threads", memory: int | None = None) -> AtlasEstimate:
    """Predict what :func:`~musegnn.cluster.build.build_graphs` takes with the same arguments and an empty store.

    Reads the head of every file and up to 2048 of its cells.

    Parameters
    ----------
    atlas, scheduler, memory
        As for the build. Of a cluster that runs elsewhere, as many workers as this machine has cores are assumed.

    Returns
    -------
    AtlasEstimate
        Of everything.

    Raises
    ------
    InputError
        When a file cannot be used.
    ConfigError
        For an unknown scheduler (E302), or memory in which the work does not fit (E310).
    """
    check_scheduler(scheduler)
    atlas = expand_strata(atlas)
    count, per_process = expected_workers(scheduler)
    sources = [open_source(dataset) for dataset in atlas.datasets]
    genes = max(most_genes(atlas.graph, source.n_genes) for source in sources)
    budget = memory_budget(memory)
    stripe_bytes = task_memory(genes, budget, per_process)
    datasets = [
        estimate_build(
            source,
            dataset,
            atlas.graph,
            cells=_stratum_cells(source, dataset),
            parallel=count,
            per_process=per_process,
            stripe_bytes=stripe_bytes,
        )
        for source, dataset in zip(sources, atlas.datasets, strict=True)
    ]
    for found in datasets:
        check_profile_memory(found.name, atlas.graph, found.selected, budget)
    remote = scheduler not in {"threads", "synchronous"}
    peak = total_memory(datasets, min(count, DRIVERS))
    return AtlasEstimate(
        datasets=datasets,
        memory=peak,
        per_worker=peak if remote else 0,
        cpu_seconds=sum(d.cpu_seconds for d in datasets),
        workers=count,
    )


def _stratum_cells(source: H5adSource, dataset: DatasetConfig) -> int | None:
    if dataset.by is None or dataset.stratum is None:
        return None
    return len(stratum_labels(source, dataset.by)[dataset.stratum])
