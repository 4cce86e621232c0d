r"""Simulation of training rounds on many workers.

A round is that of the engine: encode, begin the all-to-all of vectors, reconstruct, wait for vectors, compare,
all-to-all of gradients, backward, two all-reduces, step. With latency a and bandwidth b of a worker, collectives of P
workers take

.. math:: t_\text{all-to-all} = a m + \max_w (s_w, r_w) / b,
          \qquad t_\text{all-reduce}(B) = 2 a \lceil \log_2 P \rceil + 2 \frac{P - 1}{P} \frac{B}{b}

with s, r the bytes that a worker sends and receives, and m the largest number of messages that one sends.

Legend: T datasets, P workers, N genes, d dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.stages import STAGES
from musegnn.cluster.placement import DatasetCost, place_datasets
from musegnn.training.schedule import partners

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Dataset:
    """Genes of a dataset, and its seconds per round in each stage.

    Attributes
    ----------
    overhead
        Seconds of all stages in which a GPU starts kernels or waits for its host.
    """

    n_genes: int
    encode: float
    reconstruct: float
    compare: float
    backward: float
    step: float
    overhead: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds per round."""
        return self.step + sum(getattr(self, stage) for stage in STAGES)


@dataclass(frozen=True, slots=True)
class Job:
    """Datasets to train, dimensions of their vectors, and bytes of the gradients that all workers add up."""

    datasets: tuple[Dataset, ...]
    dim: int = 32
    shared_bytes: float = 10e6


@dataclass(frozen=True, slots=True)
class Link:
    """Seconds of one message, and bytes per second of one worker."""

    latency: float
    bandwidth: float


FREE = Link(latency=0.0, bandwidth=math.inf)


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of all workers' time, which add up to one.

    Attributes
    ----------
    kernels, overhead
        Computing, and starting kernels or waiting for the host.
    uneven
        Waiting that remains over a free network.
    network
        The rest.
    """

    kernels: float
    overhead: float
    uneven: float
    network: float

    @property
    def efficiency(self) -> float:
        """Share of the time in which workers work on datasets."""
        return self.kernels + self.overhead

    @property
    def limit(self) -> str:
        """Name of the largest share."""
        return max(("kernels", "overhead", "uneven", "network"), key=lambda name: getattr(self, name))


def explain(job: Job, link: Link, n_workers: int) -> Shares:
    """Return where the time of `n_workers` goes, some of which may own nothing."""
    owner = place(job, n_workers)
    found, free = simulate(job, owner, link), simulate(job, owner, FREE)
    overhead, busy = (sum(getattr(d, name) for d in job.datasets) for name in ("overhead", "seconds"))
    total = found * n_workers
    return Shares(
        kernels=(busy - overhead) / total,
        overhead=overhead / total,
        uneven=(free * n_workers - busy) / total,
        network=(found - free) / found,
    )


def place(job: Job, n_workers: int) -> tuple[int, ...]:
    """Return the owner of each dataset, placed as training does."""
    costs = [DatasetCost(str(k), d.seconds, 0) for k, d in enumerate(job.datasets)]
    return place_datasets(costs, min(n_workers, len(costs))).owner


def simulate(job: Job, owner: Sequence[int], link: Link) -> float:
    """Return the seconds per round, the mean of some rounds with partners of their own."""
    owners, n = np.asarray(owner), max(owner) + 1
    work = {stage: np.bincount(owners, [getattr(d, stage) for d in job.datasets], n) for stage in (*STAGES, "step")}
    reduce = all_reduce(16.0, n, link) + all_reduce(job.shared_bytes, n, link)
    seconds = 0.0
    for round_ in range(1, ROUNDS + 1):
        there, back = _exchange(job, owners, link, round_)
        arrived = work["encode"].max() + there
        ready = np.maximum(work["encode"] + work["reconstruct"], arrived)
        compared = (ready + work["compare"]).max()
        seconds += compared + back + work["backward"].max() + reduce + work["step"].max()
    return float(seconds) / ROUNDS


def all_reduce(n_bytes: float, n_workers: int, link: Link) -> float:
    """Return the seconds of one all-reduce."""
    latency = 2 * math.ceil(math.log2(n_workers)) * link.latency
    return latency + 2 * (n_workers - 1) / n_workers * n_bytes / link.bandwidth


def _exchange(job: Job, owner: NDArray[np.int64], link: Link, round_: int) -> tuple[float, float]:
    """Return the seconds in which vectors travel, once per dataset and receiving worker, and gradients return."""
    partner = partners(0, round_, len(job.datasets))
    subject = np.flatnonzero(partner >= 0)
    other = partner[subject]
    away = owner[other] != owner[subject]
    dataset, target = np.unique(np.stack([other, owner[subject]])[:, away], axis=1)
    if len(dataset) == 0:
        return 0.0, 0.0
    size = 4.0 * job.dim * np.array([job.datasets[j].n_genes for j in dataset])
    ends = owner[dataset], target
    longest = max(float(np.bincount(end, size).max()) for end in ends) / link.bandwidth
    messages = np.unique(np.stack(ends), axis=1)  # those of one pair of workers travel together
    there, back = (int(np.bincount(end).max()) * link.latency for end in messages)
    return there + longest, back + longest
