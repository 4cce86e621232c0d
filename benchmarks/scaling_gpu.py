"""What the simulation of GPUs assumes: nobody has measured any of it on a GPU or a network.

Legend: T datasets, N genes, E entries of a graph, d dimensions, P GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.scaling import Dataset, Job, Machine
from musegnn.training.overlap import KEEP_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

DENSITY, DIM, COLUMNS = 0.05, 32, 500
ROW_BLOCK, PAIRS = 512, 50_000
LARGEST_MLP, WHOLE = 5000, 1000

LAUNCH = 6e-3
"""Seconds in which the many small kernels of one dataset are started, without CUDA graphs."""
ENTRY = 1.5e-10
"""Seconds per edge entry, all eight heads of the encoder, forward and backward.

Twice the goal that is set for four heads on such a GPU, 6 ms for 8e7 entries.
"""
FLOPS = 1.5e14
"""Of matrix products in TF32 per second: a third of what an H100 is sold with."""
MEMORY = 2.4e12
"""Bytes of device memory read or written per second."""
ADAM_BYTES = 28.0
"""Read and written per weight and step: weight, gradient and two moments, three of them twice."""
SCORE_BYTES = 48.0
"""Read and written per score of the alignment: six passes forward and backward, in and out."""
PAIR_BYTES = 4.0 * DIM * 32 * 6
"""Read and written per pair of the ``pairwise`` decoder: six passes over the products times its width."""

WORDS = 20_000
PROJECTED = 256
GROUP_WEIGHTS = 58_000
"""Weights of the layers of one group at d = 32."""

FAST = Machine(latency=1e-5, bandwidth=2.5e10, per_node=8, local_latency=3e-6, local_bandwidth=3e11)
SLOW = Machine(latency=3e-5, bandwidth=1.25e10 / 8, per_node=8, local_latency=3e-6, local_bandwidth=3e11)
LINKS = {
    "fast": (FAST, "8 GPUs per node; 300 GB/s and 3 us within it, 25 GB/s per GPU and 10 us between nodes"),
    "slow": (SLOW, "the same nodes with one network card of 12.5 GB/s for 8 GPUs, 30 us"),
}


@dataclass(frozen=True, slots=True)
class Host:
    """Seconds of work on the host per dataset and round, as measured on a CPU, by genes.

    Attributes
    ----------
    n_genes
        N, ascending.
    draws
        Of genes for the contrast, and of pairs for the decoder above LARGEST_MLP genes.
    overlap
        Of one pair of datasets that is not kept.
    """

    n_genes: tuple[int, ...]
    draws: tuple[float, ...]
    overlap: tuple[float, ...]

    def seconds(self, n_genes: int, new: float) -> tuple[float, float]:
        """Return the seconds of draws and of overlaps of a dataset, of whose pairs a share is new in each round."""
        draws, overlap = (float(np.interp(n_genes, self.n_genes, part)) for part in (self.draws, self.overlap))
        return draws, new * overlap


def gpu_job(n_genes: Sequence[int], gpus: int, host: Host, *, groups: int = 3, owners: bool = False) -> Job:
    """Assume the times of datasets and the volume of shared gradients.

    Parameters
    ----------
    n_genes
        N of each dataset, shape (T,).
    gpus
        P, on which depends how many of its pairs' overlaps a process can keep.
    host
        What was measured on a CPU.
    groups
        Groups of datasets that share layers.
    owners
        Reduce each group's gradients at a home worker.
    """
    pairs = -(-len(n_genes) // gpus) * (len(n_genes) - 1)
    new = max(0.0, 1.0 - KEEP_BYTES / (40.0 * max(n_genes) * pairs))
    datasets = tuple(gpu_dataset(n, host, new=new, group=k % groups) for k, n in enumerate(n_genes))
    everyone = 8.0 * (WORDS * PROJECTED + (0 if owners else groups * GROUP_WEIGHTS))
    return Job(datasets, DIM, everyone, 8.0 * GROUP_WEIGHTS if owners else 0.0)


def gpu_dataset(n_genes: int, host: Host, *, new: float, group: int = 0) -> Dataset:
    """Assume the times of one dataset.

    ``mlp`` decoder up to LARGEST_MLP genes, in row blocks above WHOLE genes, then ``pairwise`` on drawn pairs; node
    features are the profile and the relations to all genes of the dataset.
    """
    entries, is_mlp = DENSITY * n_genes**2, n_genes <= LARGEST_MLP
    rows = n_genes if n_genes <= WHOLE else ROW_BLOCK
    products = n_genes * (4.0 * (COLUMNS + PROJECTED) * 4 * DIM + n_genes * PROJECTED)
    encode = 2.0 * products / FLOPS + ENTRY * entries / 3
    decode = 3 * 4.0 * rows * n_genes**2 / FLOPS if is_mlp else 2 * PAIRS * PAIR_BYTES / MEMORY
    shared = (n_genes / 2) ** 2
    compare = 6.0 * shared * DIM / FLOPS + SCORE_BYTES * shared / MEMORY
    weights = (3.0 * n_genes**2 if is_mlp else 0.0) + (COLUMNS + PROJECTED) * 4 * DIM * 4.0
    part = LAUNCH / 5
    draws, overlap = host.seconds(n_genes, new)
    return Dataset(
        n_genes,
        part + encode,
        part + decode,
        part + compare + draws + overlap,
        part + 2 * encode,
        part + ADAM_BYTES * weights / MEMORY,
        launches=LAUNCH,
        host=draws + overlap,
        group=group,
    )


def sizes(count: int, n_genes: int, *, equal: bool) -> list[int]:
    """Give N of each dataset: all alike, or uniform between a quarter of `n_genes` and it."""
    if equal:
        return [n_genes] * count
    drawn: list[int] = np.random.default_rng(0).integers(n_genes // 4, n_genes + 1, count).tolist()
    return drawn
