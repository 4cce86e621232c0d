"""``python -m benchmarks.probes.gram``: microseconds per cell of the Gram kernel alone, for comparing its settings.

Legend: synthetic counts, 10,000 cells x 1000 genes of density 0.1, and 4000 x 500 of density 0.5.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from benchmarks.synthetic import SyntheticCounts
from musegnn.kernels.gram import WeightedGram, scattered_genes

SHAPES = ((10_000, 1000, 0.1), (4000, 500, 0.5))
ROUNDS = 7


def microseconds(n_cells: int, n_genes: int, density: float) -> float:
    """Return the median of seven sums, CPU time per cell."""
    counts, depth = SyntheticCounts(n_cells, n_genes, density).load()
    detected = np.bincount(counts.indices, minlength=n_genes)
    ascending = np.argsort(detected, kind="stable")
    counts = counts[:, ascending].tocsr()
    seconds = []
    for _ in range(ROUNDS):
        scattered = scattered_genes(detected[ascending], n_cells)
        gram = WeightedGram(np.full(n_genes, 1e-3), np.full((n_genes, 2), 1e-6), scattered=scattered)
        start = time.process_time()
        gram.add(counts, depth)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds) / n_cells * 1e6


if __name__ == "__main__":
    for shape in SHAPES:
        print(*shape, f"{microseconds(*shape):.2f} us per cell")
