"""Training of a run folder with actors on a Ray cluster."""

from __future__ import annotations

import logging
import math
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from musegnn.cluster.cost import dataset_costs
from musegnn.cluster.ray_session import ray_session
from musegnn.cluster.run_monitor import RunMonitor
from musegnn.cluster.schedulers import cores
from musegnn.errors import ConfigError
from musegnn.training.checkpoint import announce, manifests, newest_group_epoch
from musegnn.training.torch_comm import NCCL_SETTINGS, rendezvous
from musegnn.training.trainer import refuse_old_checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from musegnn.cluster.messages import TrainTask
    from musegnn.cluster.options import ClusterOptions, Timeouts
    from musegnn.data_store import Store
    from musegnn.progress import Progress
    from musegnn.run_folder import RunFolder
    from musegnn.training.phases import PhaseState

logger = logging.getLogger(__name__)

GPU_SECONDS = 60.0
PASSED_ON = ("OMP_WAIT_POLICY", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_DEBUG", "NUMBA_CACHE_DIR")
DEFAULTS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that spin while they wait would hold the cores that other actors of the host need."""


def train_on_cluster(
    folder: RunFolder,
    store: Store,
    options: ClusterOptions,
    *,
    resume: bool = False,
    memory: int | None = None,
    progress: Progress | None = None,
    timeouts: Timeouts | None = None,
    owner: Sequence[int] | None = None,
    on_phase: Callable[[TrainTask, PhaseState], None] | None = None,
) -> RunMonitor:
    """Train the model of a run folder with several actors; the result is bitwise that of one process.

    Parameters
    ----------
    folder, store
        Run folder whose configuration is used, and store with the graphs; all nodes must see both under the same path.
    options
        Number of actors, at most one per dataset, and other options of the cluster.
    resume
        Whether to restore the newest whole checkpoint; without it an existing checkpoint is an error.
    memory
        Memory of each actor on a CPU in bytes; ``None``: not checked.
    owner
        Rank that owns each dataset; ``None``: datasets are placed by their cost.
    on_phase
        Function that every actor calls with its task as each phase begins, for tests.

    Returns
    -------
    RunMonitor
        Monitor of the run, with recovery times.

    Raises
    ------
    ConfigError
        E303 for sequential order and for added datasets, E305 when no cluster answers, E308 when it has fewer GPUs than
        actors.
    RunError
        E404 as in :meth:`musegnn.MuSeGNN.train`; E410 when numbers stop being finite; E411 when an actor's datasets
        need more than `memory`; E442 when too few actors start; E443 when actors fail repeatedly; E446 to E448 when
        hosts do not see the same files, differ, or do not reach one another.
    """
    config = folder.atlas()
    if config.training.published.sequential:
        msg = "sequential order takes one step after the other and so runs in one process"
        raise ConfigError(msg, code="E303", where="training.published", fix="train without --actors")
    names = [dataset.name for dataset in config.datasets]
    if any(dataset.added for dataset in config.datasets):
        msg = "datasets with `added` are placed in one process"
        raise ConfigError(msg, code="E303", where="datasets.added", fix="train without --actors")
    refuse_old_checkpoints(folder.path, resume=resume)
    actors = min(options.actors or 1, len(names))
    options = replace(options, actors=actors, min_actors=min(options.min_actors, actors))
    costs = dataset_costs(store, config)
    cpus = float(config.training.threads) if options.cpus is None else options.cpus
    offered = max(cores(), math.ceil((actors + options.spares + 1) * cpus))  # of a local cluster, one to replace
    with ray_session(options.address, cpus=offered, metrics_port=options.metrics_port) as ray:
        from musegnn.cluster.actor_pool import ActorPool
        from musegnn.cluster.controller import Controller
        from musegnn.cluster.preflight import Preflight
        from musegnn.cluster.prometheus import Metrics

        gpus = gpus_per_actor(ray, config.training.device, actors)
        preflight = Preflight(folder.path, folder.store_path(), names)
        pool = ActorPool(
            ray,
            str(folder.path),
            preflight=preflight,
            cpus=cpus,
            gpus=gpus,
            device="cuda" if gpus else "cpu",
            memory=memory,
            environment=actor_environment(),
            on_phase=on_phase,
        )
        metrics = Metrics(folder.path.name)
        monitor = RunMonitor(folder.path, names, config.training.rounds, progress=progress, metrics=metrics)
        checkpoints = folder.path / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        try:
            with preflight, pool, rendezvous(ray.util.get_node_ip_address()) as address:
                pool.start_actors(actors + options.spares)
                Controller(
                    pool,
                    costs,
                    options,
                    config=config,
                    store=str(folder.store_path()),
                    newest_checkpoint=lambda: _newest(checkpoints),
                    first_group_epoch=newest_group_epoch(checkpoints) + 1,
                    fence=lambda group_epoch: announce(checkpoints, group_epoch),
                    address=address,
                    monitor=monitor,
                    memory=memory,
                    timeouts=timeouts,
                    owner=owner,
                    left_out=_left_out(checkpoints),
                ).run()
        except BaseException as error:
            monitor.stopped(error)
            raise
    return monitor


def actor_environment() -> dict[str, str]:
    """Return the environment variables of actors: defaults, and what this process has of those that are passed on."""
    return NCCL_SETTINGS | DEFAULTS | {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def gpus_per_actor(ray: Any, device: str, actors: int, *, wait: float = GPU_SECONDS) -> int:  # an untyped module
    """Return how many GPUs each actor gets: one, or none where training runs on CPUs; waits for GPUs that are missing.

    Raises
    ------
    ConfigError
        E308 when GPUs are asked for, or some are there, and there are fewer than actors after `wait` seconds.
    """

    def count() -> int:
        return int(ray.cluster_resources().get("GPU", 0.0))

    found = 0 if device == "cpu" else count()
    if device == "cpu" or (device == "auto" and found == 0):
        return 0
    until = time.monotonic() + wait
    while found < actors:
        if time.monotonic() >= until:
            msg = f"{actors} actors train on a GPU each, and the cluster has {found} after {wait:.0f} s"
            fewer = f"take `--actors {found}`, " if found else ""
            raise ConfigError(msg, code="E308", where="device", fix=f"{fewer}start more nodes, or take `--device cpu`")
        time.sleep(wait / 60)
        found = count()
    return 1


def _newest(checkpoints: Path) -> tuple[int, str] | None:
    found = manifests(checkpoints)
    return (found[0].round, found[0].sha256) if found else None


def _left_out(checkpoints: Path) -> list[int]:
    """Return the datasets that an earlier part of the run went on without."""
    found = manifests(checkpoints)
    return list(found[0].plan.get("left_out", ())) if found else []
