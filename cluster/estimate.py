"""Estimate of what building the graphs of an atlas takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from musegnn.cluster.build import DRIVERS
from musegnn.cluster.schedulers import check_scheduler, expected_workers
from musegnn.coexpression.estimate import BuildEstimate, estimate_build, total_memory
from musegnn.coexpression.memory import check_profile_memory, memory_budget, most_genes, task_memory
from musegnn.data_store.strata import stratum_labels
from musegnn.datasets import expand_strata, open_counts

if TYPE_CHECKING:
    from musegnn.config import AtlasConfig


@dataclass(frozen=True, slots=True)
class AtlasEstimate:
    """Estimate of a build: bytes at the peak, processor time of all processes, and tasks that run at a time.

    ``memory`` is of the process that builds, with the tasks in it, and ``per_worker`` of each other process, if any.
    """

    datasets: list[BuildEstimate]
    memory: int
    per_worker: int
    cpu_seconds: float
    workers: int

    @property
    def store_bytes(self) -> int:
        """Bytes that stay in the store."""
        return sum(d.store_bytes for d in self.datasets)

    def to_json(self) -> dict[str, Any]:  # JSON
        """Return plain values."""
        return asdict(self) | {"work_bytes": sum(d.work_bytes for d in self.datasets), "store_bytes": self.store_bytes}


def estimate_graphs(atlas: AtlasConfig, *, scheduler: str = "threads", memory: int | None = None) -> AtlasEstimate:
    """Predict what :func:`~musegnn.cluster.build.build_graphs` takes with these arguments and an empty store.

    Reads the metadata of every file and up to 2048 of its cells. For a remote cluster, as many workers as this machine
    has cores are assumed. Errors are those of the build.
    """
    check_scheduler(scheduler)
    atlas = expand_strata(atlas)
    count, per_process = expected_workers(scheduler)
    sources = [open_counts(dataset) for dataset in atlas.datasets]
    genes = max(most_genes(atlas.graph, source.n_genes) for source in sources)
    budget = memory_budget(memory)
    stripe_bytes = task_memory(genes, budget, per_process)
    datasets = [
        estimate_build(
            source,
            dataset,
            atlas.graph,
            cells=None if dataset.stratum is None else len(stratum_labels(source, dataset.by or "")[dataset.stratum]),
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
