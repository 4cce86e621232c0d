r"""A simulation of training rounds on many workers, event by event.

A worker goes through a round as the engine does: encode, begin the all-to-all of vectors, reconstruct, wait for
vectors, compare, all-to-all of gradients, backward, two all-reduces, step. Collectives begin when all have come.
Workers that share cores share them equally (processor sharing), so a machine with fewer cores than workers can be
simulated, too.

Workers are g to a node. With latency a and bandwidth b of a worker to other nodes and a', b' within its node, the times
of collectives of P workers on M nodes are

.. math:: t_\text{all-to-all} = \max(a m + \max_w (s_w, r_w) / b,\ a' m' + \max_w (s'_w, r'_w) / b')

.. math:: t_\text{all-reduce}(B) = 2 a' \lceil \log_2 g \rceil + 2 \frac{g - 1}{g} \frac{B}{b'}
          + 2 a \lceil \log_2 M \rceil + 2 \frac{M - 1}{M} \frac{B}{g b}

with s, r the bytes that a worker sends and receives, and m the most messages that one sends; primes: within nodes. The
second is a reduction within each node, one between nodes in which each worker has its part, and the way back.

Legend: T datasets, P workers, N genes, d dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.stages import STAGES
from musegnn.cluster.cost import DatasetCost
from musegnn.cluster.plan import make_plan
from musegnn.training.schedule import partners

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset: its genes and its seconds per round in each stage.

    Attributes
    ----------
    launches, host
        How much of all stages together is the start of kernels, and work of the host that kernels wait for.
    group
        Whom it shares layers with.
    """

    n_genes: int
    encode: float
    reconstruct: float
    compare: float
    backward: float
    step: float
    launches: float = 0.0
    host: float = 0.0
    group: int = 0

    @property
    def seconds(self) -> float:
        """Seconds per round."""
        return sum(getattr(self, stage) for stage in STAGES)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the workers run on.

    Attributes
    ----------
    latency, bandwidth
        Seconds of one message to another node; bytes per second of one worker to other nodes.
    cores
        Workers that compute at full speed at a time; ``None``: all.
    per_node
        Workers of a node.
    local_latency, local_bandwidth
        As above, within a node.
    """

    latency: float
    bandwidth: float
    cores: int | None = None
    per_node: int = 1
    local_latency: float = 0.0
    local_bandwidth: float = math.inf


FREE = Machine(latency=0.0, bandwidth=math.inf)


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained.

    Attributes
    ----------
    datasets
        All datasets.
    dim
        d.
    shared_bytes
        Of the gradients of shared modules that all workers add up, as they travel.
    group_bytes
        Of the gradients of each group's layers where the group has a home worker, to which the others send sums and
        which sends weights of half the bytes back (owner-reduce); 0: they are among those that all add up.
    seed
        Of the schedule.
    """

    datasets: tuple[Dataset, ...]
    dim: int = 32
    shared_bytes: float = 10e6
    group_bytes: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the simulation found.

    Attributes
    ----------
    seconds
        Per round.
    busy
        Seconds per round that each worker computes, shape (P,).
    waits
        Seconds per round, mean over workers, that are spent in: ``exchange``, ``return``, ``reduce``.
    """

    seconds: float
    busy: NDArray[np.float64]
    waits: dict[str, float]

    @property
    def efficiency(self) -> float:
        """Share of all workers' time in which they compute."""
        return float(self.busy.sum() / (len(self.busy) * self.seconds))


@dataclass(frozen=True, slots=True)
class Shares:
    """Where a round goes, as shares of all workers' time; they add up to one.

    Attributes
    ----------
    kernels, launches, host
        Computing: on the device, starting kernels, and on the host.
    uneven
        Waiting that a free network would leave: workers without a dataset, or with less to do than others.
    network
        The rest.
    """

    kernels: float
    launches: float
    host: float
    uneven: float
    network: float

    @property
    def efficiency(self) -> float:
        """Share in which workers compute."""
        return self.kernels + self.launches + self.host

    @property
    def limit(self) -> str:
        """What a round would have to lose first; ``-`` when kernels take more than all else."""
        others = {name: getattr(self, name) for name in ("launches", "host", "uneven", "network")}
        return "-" if self.kernels > sum(others.values()) else max(others, key=lambda name: others[name])


def explain(job: Job, owner: Sequence[int], machine: Machine, n_workers: int, *, rounds: int = 4) -> Shares:
    """Return where the time of `n_workers` goes, some of which may own nothing; arguments as for :func:`simulate`."""
    found, free = (
        simulate(job, owner, m, rounds=rounds).seconds for m in (machine, replace(FREE, cores=machine.cores))
    )
    total = found * n_workers
    launches, host, busy = (sum(getattr(d, name) for d in job.datasets) for name in ("launches", "host", "seconds"))
    return Shares(
        kernels=(busy - launches - host) / total,
        launches=launches / total,
        host=host / total,
        uneven=(free * n_workers - busy) / total,
        network=(found - free) / found,
    )


def simulate(job: Job, owner: Sequence[int], machine: Machine, *, rounds: int = 4) -> Outcome:
    """Simulate rounds.

    Parameters
    ----------
    job
        What is trained.
    owner
        Worker of each dataset, shape (T,).
    machine
        Cores and links.
    rounds
        How many; each has its own partners.
    """
    owners, n = np.asarray(owner), max(owner) + 1
    work = {stage: np.bincount(owners, [getattr(d, stage) for d in job.datasets], n) for stage in STAGES}
    sharing = _Sharing(n, machine.cores)
    reduced = all_reduce(16.0, n, machine) + all_reduce(job.shared_bytes, n, machine)
    reduced += owner_reduce(job, owner, machine)
    waits = {"exchange": 0.0, "return": 0.0, "reduce": 0.0}
    at = np.zeros(n)  # when each worker begins the next stage
    for round_ in range(1, rounds + 1):
        there, back = _traffic(job, owners, n, machine, round_)
        encoded, reconstructed = sharing.run(at, work["encode"], work["reconstruct"])
        arrived = encoded.max() + there
        ready = np.maximum(reconstructed, arrived)
        (compared,) = sharing.run(ready, work["compare"])
        returned = np.full(n, compared.max() + back)
        (derived,) = sharing.run(returned, work["backward"])
        agreed = derived.max() + reduced
        (at,) = sharing.run(np.full(n, agreed), work["step"])
        waits["exchange"] += float((ready - reconstructed).mean())
        waits["return"] += float((returned - compared).mean())
        waits["reduce"] += float((agreed - derived).mean())
    busy = sum(work.values(), start=np.zeros(n))
    return Outcome(float(at.max()) / rounds, busy, {name: value / rounds for name, value in waits.items()})


def all_reduce(n_bytes: float, n_workers: int, machine: Machine) -> float:
    """Return the seconds of one all-reduce."""
    here = min(machine.per_node, n_workers)
    nodes = math.ceil(n_workers / here)
    seconds = 0.0
    if here > 1:
        seconds += 2 * math.ceil(math.log2(here)) * machine.local_latency
        seconds += 2 * (here - 1) / here * n_bytes / machine.local_bandwidth
    if nodes > 1:
        seconds += 2 * math.ceil(math.log2(nodes)) * machine.latency
        seconds += 2 * (nodes - 1) / nodes * n_bytes / (here * machine.bandwidth)
    return seconds


def owner_reduce(job: Job, owner: Sequence[int], machine: Machine) -> float:
    """Return the seconds in which sums of each group's gradients go to its home and weights come back.

    Homes are spread over the workers that own one of the group, the one with the fewest homes first.
    """
    if job.group_bytes == 0.0:
        return 0.0
    n = max(owner) + 1
    homes = np.zeros(n, dtype=np.int64)
    pairs: list[tuple[int, int]] = []
    for group in sorted({d.group for d in job.datasets}):
        workers = sorted({rank for rank, d in zip(owner, job.datasets, strict=True) if d.group == group})
        home = min(workers, key=lambda rank: (homes[rank], rank))
        homes[home] += 1
        pairs += [(rank, home) for rank in workers if rank != home]
    if not pairs:
        return 0.0
    source, target = np.array(pairs).T
    there = _all_to_all(source, target, np.full(len(pairs), job.group_bytes), n, machine)
    return there + _all_to_all(target, source, np.full(len(pairs), job.group_bytes / 2), n, machine)


def plan(job: Job, n_workers: int) -> tuple[int, ...]:
    """Return each dataset a worker, as training does."""
    costs = [DatasetCost(str(k), str(d.group), d.seconds, 0) for k, d in enumerate(job.datasets)]
    return make_plan(costs, min(n_workers, len(costs))).owner


def split(job: Job, n_workers: int, machine: Machine) -> Job:
    """Let teams share the reconstruction of datasets that take more than half of a mean load.

    The rows of such a dataset's decoder are dealt to k workers, so that a part is at most half of a mean load; each
    part needs the vectors and returns a gradient of their size.
    """
    mean = sum(d.seconds for d in job.datasets) / n_workers
    found: list[Dataset] = []
    for d in job.datasets:
        k = max(1, math.ceil(2 * d.reconstruct / mean)) if d.seconds > 0.5 * mean else 1
        travel = 0.0 if k == 1 else 2 * (machine.latency + 4.0 * d.n_genes * job.dim / machine.bandwidth)
        found.append(replace(d, reconstruct=d.reconstruct / k + travel))
        found += [Dataset(0, 0.0, d.reconstruct / k + travel, 0.0, 0.0, 0.0, group=d.group)] * (k - 1)
    return replace(job, datasets=tuple(found))


def _traffic(job: Job, owner: NDArray[np.int64], n: int, machine: Machine, round_: int) -> tuple[float, float]:
    """Return the seconds in which vectors travel, once per dataset and receiving worker, and gradients return."""
    real = np.array([k for k, d in enumerate(job.datasets) if d.n_genes])
    partner = partners(job.seed, round_, len(real))
    subject, other = real[partner >= 0], real[partner[partner >= 0]]
    source, target = owner[other], owner[subject]
    travels = np.unique(np.stack([other, source, target])[:, source != target], axis=1)
    size = 4.0 * job.dim * np.array([job.datasets[j].n_genes for j in travels[0]], dtype=np.float64)
    there = _all_to_all(travels[1], travels[2], size, n, machine)
    return there, _all_to_all(travels[2], travels[1], size, n, machine)


def _all_to_all(
    source: NDArray[np.int64], target: NDArray[np.int64], size: NDArray[np.float64], n: int, machine: Machine
) -> float:
    """Return the seconds of an all-to-all of messages; those of one pair of workers are one message."""
    local = source // machine.per_node == target // machine.per_node
    seconds = 0.0
    for which, latency, bandwidth in (
        (~local, machine.latency, machine.bandwidth),
        (local, machine.local_latency, machine.local_bandwidth),
    ):
        if which.any():
            sent = np.bincount(source[which], size[which], n)
            received = np.bincount(target[which], size[which], n)
            senders = np.unique(source[which] * n + target[which]) // n
            most = int(np.bincount(senders, minlength=n).max())
            leg = most * latency + float(np.maximum(sent, received).max()) / bandwidth
            seconds = max(seconds, leg)
    return seconds


class _Sharing:
    """Workers that share cores equally while they compute."""

    def __init__(self, n: int, cores: int | None) -> None:
        self._cores = n if cores is None else min(cores, n)

    def run(self, begin: NDArray[np.float64], *works: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Return when each worker ends each of several stages, which it begins at a time and does in turn."""
        if self._cores == len(begin):
            return list(begin + np.cumsum(works, axis=0))
        ends = [begin.copy() for _ in works]
        stage, left = np.zeros(len(begin), dtype=np.int64), np.array(works[0], dtype=float)
        now, waiting, active = 0.0, set(range(len(begin))), set[int]()
        while waiting or active:
            rate = min(1.0, self._cores / len(active)) if active else 1.0
            first = min((begin[w] for w in waiting), default=math.inf)
            done = min((now + left[w] / rate for w in active), default=math.inf)
            until = min(first, done)
            for w in active:
                left[w] -= (until - now) * rate
            now = until
            for w in [w for w in active if left[w] <= 1e-12]:
                ends[stage[w]][w] = now
                stage[w] += 1
                if stage[w] == len(works):
                    active.remove(w)
                else:
                    left[w] = works[stage[w]][w]
            for w in [w for w in waiting if begin[w] <= now]:
                waiting.remove(w)
                active.add(w)
        return ends
