"""Training a run folder with actors on a Ray cluster: the entry that puts the parts together."""

from __future__ import annotations

import logging
import math
import os
from typing import TYPE_CHECKING, Any, Literal

from musegnn.cluster.cost import dataset_costs
from musegnn.cluster.ray_session import ray_session
from musegnn.cluster.schedulers import cores
from musegnn.cluster.status import RunMonitor
from musegnn.errors import ConfigError
from musegnn.training.checkpoint import announce, manifests, newest_group_epoch
from musegnn.training.torch_comm import rendezvous
from musegnn.training.trainer import refuse_old_checkpoints

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from musegnn.cluster.controller import Timeouts
    from musegnn.cluster.messages import Fault
    from musegnn.data_store import Store
    from musegnn.progress import Progress
    from musegnn.run_folder import RunFolder

logger = logging.getLogger(__name__)

PASSED_ON = ("OMP_WAIT_POLICY", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_DEBUG", "NUMBA_CACHE_DIR")


def train_on_cluster(
    folder: RunFolder,
    store: Store,
    *,
    actors: int,
    address: str | None = None,
    spares: int = 0,
    min_actors: int = 1,
    cpus: float | None = None,
    gpus: float | None = None,
    resume: bool = False,
    memory: int | None = None,
    on_repeated_failure: Literal["fail", "skip"] = "fail",
    metrics_port: int | None = None,
    progress: Progress | None = None,
    limits: Timeouts | None = None,
    placement: Sequence[int] | None = None,
    faults: Sequence[Sequence[Fault]] = (),
) -> RunMonitor:
    """Train the model of a run folder with several actors. The result has the same bits as that of one process.

    Parameters
    ----------
    folder
        Run folder whose configuration is used; all nodes must see it, and the store, under the same path.
    store
        Holds the graphs.
    actors
        How many processes train; at most one per dataset is used.
    address
        ``auto`` or ``host:port`` of a Ray cluster; ``None``: one of our own on this machine.
    spares
        Actors more, which stand by to replace one that fails at once.
    min_actors
        Training goes on with as few as this while replacements start.
    cpus, gpus
        That Ray sets aside per actor; ``cpus=None``: as many as ``training.threads``; ``gpus=None``: one where the
        cluster has one for each actor, else none.
    resume
        Take up the newest whole checkpoint; without it an existing checkpoint is an error.
    memory
        Bytes that each actor may take on a CPU; ``None``: not checked.
    on_repeated_failure
        What to do with a dataset on which three actors in turn have failed: ``fail`` stops, ``skip`` goes on
        without it.
    metrics_port
        Port for Prometheus of a cluster of our own; ``None``: Ray chooses.
    progress
        Called after each round.
    limits
        How long to wait for what.
    placement
        Rank that owns each dataset, instead of a plan; ``None``: datasets are spread by their cost.
    faults
        Failures to play, for tests; see :class:`musegnn.cluster.controller.Controller`.

    Returns
    -------
    RunMonitor
        What was seen: recovery times and the last status.

    Raises
    ------
    ConfigError
        E302 for numbers of actors that make no sense, E303 for sequential order, E305 when no cluster answers.
    RunError
        E404 as in :meth:`musegnn.MuSeGNN.train`; E410 when numbers stop being finite; E411 when an actor's datasets
        need more than `memory`; E442 when too few actors can be had; E443 when actors fail again and again.
    """
    config = folder.atlas()
    names = [dataset.name for dataset in config.datasets]
    _check(actors, min_actors, spares, sequential=config.training.published.sequential)
    refuse_old_checkpoints(folder.path, resume=resume)
    actors, min_actors = min(actors, len(names)), min(min_actors, len(names))
    costs = dataset_costs(store, config)
    cpus = float(config.training.threads) if cpus is None else cpus
    offered = max(cores(), math.ceil((actors + spares + 1) * cpus))  # of a cluster of our own, with room to replace one
    with ray_session(address, cpus=offered, metrics_port=metrics_port) as ray:
        from musegnn.cluster.actor_pool import ActorPool
        from musegnn.cluster.controller import Controller

        here = ray.util.get_node_ip_address()
        per_actor = _gpus(ray.cluster_resources(), actors) if gpus is None else gpus
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        watch = RunMonitor(
            folder.path, names, config.training.rounds, progress=progress, metrics=_metrics(folder.path.name)
        )
        pool = ActorPool(ray, str(folder.path), cpus=cpus, gpus=per_actor, memory=memory, environment=environment)
        checkpoints = folder.path / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)

        try:
            with pool, rendezvous(here) as place:
                pool.start_actors(actors + spares)
                Controller(
                    pool,
                    costs,
                    rounds=config.training.rounds,
                    actors=actors,
                    min_actors=min_actors,
                    first_generation=newest_group_epoch(checkpoints) + 1,
                    announce=lambda generation: announce(checkpoints, generation),
                    address=place,
                    watch=watch,
                    memory=memory,
                    left_out=_left_out(checkpoints),
                    on_repeated_failure=on_repeated_failure,
                    limits=limits,
                    faults=faults,
                    placement=placement,
                ).run()
        except BaseException as error:
            watch.stopped(error)
            raise
    return watch


def _left_out(checkpoints: Path) -> list[int]:
    """Return the datasets that an earlier part of the run went on without."""
    found = manifests(checkpoints)
    return list(found[0].plan.get("left_out", ())) if found else []


def _check(actors: int, min_actors: int, spares: int, *, sequential: bool) -> None:
    if actors < 1 or not 1 <= min_actors <= actors or spares < 0:
        msg = f"got {actors} actors, at least {min_actors}, and {spares} spares"
        raise ConfigError(msg, code="E302", where="actors", fix="1 <= min_actors <= actors, and 0 or more spares")
    if sequential:
        msg = "sequential order takes one step after the other and so runs in one process"
        raise ConfigError(msg, code="E303", where="training.published", fix="train without --actors")


def _gpus(resources: dict[str, float], actors: int) -> float:
    return 1.0 if resources.get("GPU", 0.0) >= actors else 0.0


def _metrics(run: str) -> Any:  # imported at use
    from musegnn.cluster.prometheus import Metrics

    return Metrics(run)
