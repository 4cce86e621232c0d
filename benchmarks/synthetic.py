"""Synthetic counts of a given density, made block by block, the same for a seed and however blocks are cut.

Legend: n cells, N genes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix, vstack

from musegnn.data_store.blocks import check_range, cut_blocks
from musegnn.data_store.hdf5 import no_column
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

UNIT = 500
GROUP = 20
KEPT = 0.9


class SyntheticCounts:
    """Over-dispersed counts with groups of co-expressed genes, as a source of blocks.

    Parameters
    ----------
    n_cells, n_genes
        Shape.
    density
        Expected share of nonzeros.
    seed
        Seed of everything.
    """

    def __init__(self, n_cells: int, n_genes: int, density: float, *, seed: int = 0) -> None:
        self.n_cells, self.n_genes = n_cells, n_genes
        self.path: Path | str = Path("synthetic")
        self.gene = np.array([f"G{j}" for j in range(n_genes)])
        self.gene_id = self.gene
        self.mitochondrial = np.zeros(n_genes, dtype=np.bool_)
        self.coords = None
        self.warnings: list[str] = []
        self.n_entries: int | None = None
        self._seed = seed
        share = stream(seed, "bench_share").lognormal(0.0, 1.0, n_genes)
        self._share = share * _scale(share, density)

    def n_merged(self, start: int = 0, stop: int | None = None) -> int:
        """Return 0: there are no duplicates."""
        del start, stop
        return 0

    def blocks(
        self, rows: int, *, start: int = 0, stop: int | None = None, validate: bool = True
    ) -> Iterator[tuple[int, csr_matrix]]:
        """Make the cells [start, stop) in order; there is nothing to validate."""
        start, stop = check_range(rows, start, stop, self.n_cells)
        yield from cut_blocks(self._units(start, stop), rows, start=start)

    def _units(self, start: int, stop: int) -> Iterator[csr_matrix]:
        for first in range(start // UNIT * UNIT, stop, UNIT):
            unit = self._unit(first)
            inside = slice(max(start - first, 0), stop - first)
            yield unit if inside.start == 0 and stop >= first + UNIT else unit[inside]

    def obs(self, column: str) -> NDArray[np.float64]:
        """Refuse: these cells have no table."""
        raise no_column(column, [], where="synthetic")

    def _unit(self, start: int) -> csr_matrix:
        rng = stream(self._seed, "bench_cells", start)
        n = min(UNIT, self.n_cells - start)
        factors = np.repeat(rng.gamma(2.0, 0.5, (n, -(-self.n_genes // GROUP))), GROUP, axis=1)[:, : self.n_genes]
        rate = rng.lognormal(0.0, 0.4, (n, 1)) * self._share * factors
        return csr_matrix(rng.poisson(rate).astype(np.int32))

    def fingerprint(self) -> dict[str, Any]:  # JSON
        """Describe the counts."""
        return {"name": "synthetic", "bytes": 0, "sha256": f"{self.n_cells}x{self.n_genes} seed {self._seed}"}

    def load(self) -> tuple[csr_matrix, NDArray[np.float64]]:
        """Make the whole matrix and depths (ten times the counts, so that they are not the sum of few genes)."""
        counts = vstack([block for _, block in self.blocks(16384)], format="csr", dtype=np.int32)
        depth = 10.0 * np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
        return counts, depth.astype(np.float64)


class ThinnedCounts(SyntheticCounts):
    """Counts of many cells at little cost: each is drawn from few that are made, and loses a share of its counts anew.

    Parameters
    ----------
    n_distinct
        Number of cells that are made.
    """

    def __init__(self, n_cells: int, n_genes: int, density: float, *, n_distinct: int = 20_000, seed: int = 0) -> None:
        super().__init__(n_cells, n_genes, density, seed=seed)
        few = SyntheticCounts(n_distinct, n_genes, density, seed=seed)
        self.made = vstack([block for _, block in few.blocks(n_distinct)], format="csr", dtype=np.int32)

    def _unit(self, start: int) -> csr_matrix:
        rng = stream(self._seed, "bench_thinned", start)
        chosen = rng.integers(self.made.shape[0], size=min(UNIT, self.n_cells - start))
        unit = self.made[chosen]
        kept = (rng.random(unit.nnz, dtype=np.float32) < KEPT).astype(np.int32)
        several = unit.data > 1
        kept[several] = rng.binomial(unit.data[several], KEPT)
        thinned = csr_matrix((kept, unit.indices, unit.indptr), shape=unit.shape)
        thinned.eliminate_zeros()
        return thinned


def _scale(share: NDArray[np.float64], density: float) -> float:
    """Find the factor that gives the density, for the mixture of Poisson rates of the cells."""
    rng = stream(0, "bench_scale")
    mixture = rng.lognormal(0.0, 0.4, 4000) * rng.gamma(2.0, 0.5, 4000)
    low, high = 1e-6, 1e3
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        reached = 1.0 - np.exp(-middle * share[:200, None] * mixture).mean()
        low, high = (middle, high) if reached < density else (low, middle)
    return low
