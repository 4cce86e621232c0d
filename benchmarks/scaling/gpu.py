"""Assumed times of GPUs and links, which nobody has measured.

Legend: N genes, E entries of a graph, d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.scaling.simulate import Dataset, Job, Link

if TYPE_CHECKING:
    from collections.abc import Sequence

DENSITY, COLUMNS, ANCHORS = 0.05, 500, 20_000

LAUNCH = 6e-3
"""Seconds in which the many small kernels of one dataset are started, without CUDA graphs."""
HOST = 1.5e-6
"""Seconds per gene, dataset and round in which the host draws and compares genes while kernels wait."""
ENTRY = 1.5e-10
"""Seconds per edge entry, all heads of the encoder, forward and backward."""
FLOPS = 1.5e14
"""Floating-point operations of matrix products in TF32 per second: a third of what an H100 is sold with."""
MEMORY = 2.4e12
"""Bytes of device memory read or written per second."""
ADAM_BYTES = 28.0
"""Bytes read and written per weight and step: weight, gradient and two moments, three of them twice."""
SCORE_BYTES = 48.0
"""Bytes read and written per score: six passes forward and backward, in and out."""

LINKS = {
    "fast": (Link(latency=1e-5, bandwidth=2.5e10), "25 GB/s per GPU, 10 us"),
    "slow": (Link(latency=3e-5, bandwidth=1.25e10 / 8), "12.5 GB/s for 8 GPUs, 30 us"),
}


@dataclass(frozen=True, slots=True)
class Model:
    """Model that is trained.

    Attributes
    ----------
    dim
        d.
    largest
        Largest N for which weights and scores of a dataset fit on a GPU.
    has_layers
        Transformer layers and ``mlp`` decoder, as published, and no alignment; else maps and ``signed`` decoder.
    shared_weights
        Number of weights whose gradients all workers add up.
    """

    dim: int
    largest: int
    has_layers: bool
    shared_weights: int

    def job(self, n_genes: Sequence[int]) -> Job:
        """Return the job of datasets of given sizes."""
        return Job(tuple(map(self.dataset, n_genes)), self.dim, 8.0 * self.shared_weights)  # sums of 64-bit integers

    def dataset(self, n: int) -> Dataset:
        """Return the assumed times of one dataset."""
        pairs, shared = float(n) ** 2, (n / 2) ** 2
        if self.has_layers:
            encode = 2.0 * n * 4 * COLUMNS * 4 * self.dim / FLOPS + ENTRY * DENSITY * pairs / 3
            products, compare, weights = 2 * pairs * n, 0.0, 3 * pairs
        else:
            encode = 2.0 * n * (COLUMNS / 2 + 2 * n) * self.dim / FLOPS
            products, weights = pairs * self.dim, COLUMNS * self.dim / 2
            compare = 6.0 * shared * self.dim / FLOPS + SCORE_BYTES * shared / MEMORY
        reconstruct = 6.0 * products / FLOPS + SCORE_BYTES * pairs / MEMORY
        start = LAUNCH / 5
        return Dataset(
            n,
            encode=start + encode,
            reconstruct=start + reconstruct,
            compare=start + compare + HOST * n,
            backward=start + 2 * encode,
            step=start + ADAM_BYTES * weights / MEMORY,
            overhead=LAUNCH + HOST * n,
        )


MODELS = {
    "default": Model(dim=96, largest=20_000, has_layers=False, shared_weights=2 * ANCHORS * 96),
    "published": Model(dim=32, largest=5000, has_layers=True, shared_weights=60 * 58_000),
}
