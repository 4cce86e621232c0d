r"""A simulation of training rounds on many workers, event by event.

A worker goes through a round as the engine does: encode, begin the all-to-all of vectors, reconstruct, wait for
vectors, compare, all-to-all of gradients, backward, two all-reduces, step. Collectives begin when all have come.
Workers that share cores share them equally (processor sharing), so a machine with fewer cores than workers can be
simulated, too.

Times of collectives, with latency a, bandwidth b per worker and P workers:

.. math:: t_\text{all-to-all} = a + \max_w (s_w, r_w) / b, \qquad
          t_\text{all-reduce}(B) = 2 a \lceil \log_2 P \rceil + 2 \frac{P - 1}{P} B / b

with s, r the bytes that a worker sends and receives. Legend: T datasets, P workers, N genes, d dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musegnn.cluster.cost import DatasetCost
from musegnn.cluster.plan import make_plan
from musegnn.training.schedule import partners

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

STAGES = ("encode", "reconstruct", "compare", "backward", "step")


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset: its genes and its seconds per round in each stage."""

    n_genes: int
    encode: float
    reconstruct: float
    compare: float
    backward: float
    step: float

    @property
    def seconds(self) -> float:
        """Seconds per round."""
        return sum(getattr(self, stage) for stage in STAGES)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the workers run on.

    Attributes
    ----------
    latency
        Of one message, seconds.
    bandwidth
        Of one worker to the others, bytes per second.
    cores
        Workers that compute at full speed at a time; ``None``: all.
    """

    latency: float
    bandwidth: float
    cores: int | None = None


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
        Of the gradients of shared modules, as they travel.
    seed
        Of the schedule.
    """

    datasets: tuple[Dataset, ...]
    dim: int = 32
    shared_bytes: float = 10e6
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

    @property
    def limit(self) -> str:
        """What costs most: uneven loads, or waiting for a collective beyond that."""
        uneven = float(self.busy.max() - self.busy.mean())
        network = self.seconds - float(self.busy.max())
        return "uneven loads" if uneven > network else "network"


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
    waits = {"exchange": 0.0, "return": 0.0, "reduce": 0.0}
    at = np.zeros(n)  # when each worker begins the next stage
    for round_ in range(1, rounds + 1):
        sent, received = _traffic(job, owners, n, round_)
        leg = _all_to_all(sent, received, machine)
        encoded, reconstructed = sharing.run(at, work["encode"], work["reconstruct"])
        arrived = encoded.max() + leg
        ready = np.maximum(reconstructed, arrived)
        (compared,) = sharing.run(ready, work["compare"])
        returned = np.full(n, compared.max() + _all_to_all(received, sent, machine))
        (derived,) = sharing.run(returned, work["backward"])
        agreed = derived.max() + all_reduce(16.0, n, machine) + all_reduce(job.shared_bytes, n, machine)
        (at,) = sharing.run(np.full(n, agreed), work["step"])
        waits["exchange"] += float((ready - reconstructed).mean())
        waits["return"] += float((returned - compared).mean())
        waits["reduce"] += float((agreed - derived).mean())
    busy = sum(work.values(), start=np.zeros(n))
    return Outcome(float(at.max()) / rounds, busy, {name: value / rounds for name, value in waits.items()})


def all_reduce(n_bytes: float, n_workers: int, machine: Machine) -> float:
    """Give the seconds of one all-reduce."""
    if n_workers == 1:
        return 0.0
    hops = 2 * math.ceil(math.log2(n_workers))
    return hops * machine.latency + 2 * (n_workers - 1) / n_workers * n_bytes / machine.bandwidth


def plan(job: Job, n_workers: int) -> tuple[int, ...]:
    """Give each dataset a worker, as training does."""
    costs = [DatasetCost(str(k), "", d.seconds, 0) for k, d in enumerate(job.datasets)]
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
        found.append(Dataset(d.n_genes, d.encode, d.reconstruct / k + travel, d.compare, d.backward, d.step))
        found += [Dataset(0, 0.0, d.reconstruct / k + travel, 0.0, 0.0, 0.0)] * (k - 1)
    return Job(tuple(found), job.dim, job.shared_bytes, job.seed)


def _traffic(
    job: Job, owner: NDArray[np.int64], n: int, round_: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the bytes of vectors that each worker sends and receives, once per dataset and receiving worker."""
    real = [k for k, d in enumerate(job.datasets) if d.n_genes]
    partner = partners(job.seed, round_, len(real)).tolist()
    pairs = {(real[j], int(owner[real[i]])) for i, j in enumerate(partner) if j >= 0}
    sent, received = np.zeros(n), np.zeros(n)
    for j, target in pairs:
        if owner[j] != target:
            size = 4.0 * job.datasets[j].n_genes * job.dim
            sent[owner[j]] += size
            received[target] += size
    return sent, received


def _all_to_all(sent: NDArray[np.float64], received: NDArray[np.float64], machine: Machine) -> float:
    if len(sent) == 1:
        return 0.0
    return machine.latency + float(np.maximum(sent, received).max()) / machine.bandwidth


class _Sharing:
    """Workers that share cores equally while they compute."""

    def __init__(self, n: int, cores: int | None) -> None:
        self._cores = n if cores is None else min(cores, n)

    def run(self, begin: NDArray[np.float64], *works: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Give when each worker ends each of several stages, which it begins at a time and does in turn."""
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
