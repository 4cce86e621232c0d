"""Synthetic graphs and profiles of many datasets, the same for a seed, for the parts that start from graphs.

Legend: N genes of a dataset, E entries of a graph (each edge twice), M cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from musegnn.graph import EdgeSet, GraphData, HeldOutPairs
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


def random_graphs(
    n_graphs: int, n_genes: int, density: float, *, n_pool: int, negative: float = 0.0, seed: int = 0
) -> list[GraphData]:
    """Make datasets whose genes are drawn from one pool and joined at random.

    Parameters
    ----------
    n_graphs
        Number of datasets.
    n_genes
        N.
    density
        Expected share of pairs that are edges.
    n_pool
        Genes that exist; two datasets share about ``N^2 / n_pool``.
    negative
        Expected share of negative edges.
    seed
        Seed of everything.
    """
    return [_graph(f"dataset{k}", n_genes, density, n_pool, negative, seed) for k in range(n_graphs)]


def _graph(name: str, n_genes: int, density: float, n_pool: int, negative: float, seed: int) -> GraphData:
    rng = stream(seed, "bench_graph", name)
    genes = np.sort(rng.permutation(n_pool)[:n_genes])
    per_row = [i + 1 + np.flatnonzero(rng.random(n_genes - i - 1) < density) for i in range(n_genes)]
    rows = np.repeat(np.arange(n_genes), [len(columns) for columns in per_row])
    columns = np.concatenate(per_row)
    z = rng.uniform(3.0, 12.0, len(rows)) * np.where(rng.random(len(rows)) < negative, -1.0, 1.0)
    both = (np.concatenate([rows, columns]), np.concatenate([columns, rows]))
    matrix = sparse.csr_array((np.tile(z.astype(np.float32), 2), both), shape=(n_genes, n_genes))
    estimate = np.clip(matrix.data / 20.0, -1.0, 1.0)
    edges = EdgeSet(
        indptr=matrix.indptr.astype(np.int64),
        indices=matrix.indices.astype(np.int32),
        z=matrix.data,
        estimate=estimate,
        features=np.stack([estimate, np.sign(estimate) * np.log1p(np.abs(matrix.data)) / 4.0], axis=1),
        cutoff=3.0,
    )
    return GraphData(
        name=name,
        modality="scrna",
        tissue="none",
        species="none",
        keys=np.array([f"G{gene:06d}" for gene in genes]),
        trainable=np.ones(n_genes, dtype=np.bool_),
        edges=edges,
        held_out=held_out_pairs(),
    )


def plain_graph(
    name: str,
    keys: Sequence[str],
    *,
    trainable: NDArray[np.bool_] | None = None,
    edges: ArrayLike = (),
    held_out: HeldOutPairs | None = None,
    modality: str = "scrna",
    tissue: str = "none",
    species: str = "human",
) -> GraphData:
    """Make a dataset of given genes whose `edges`, unordered pairs (K, 2), all have z = 1."""
    n, pairs = len(keys), np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    matrix = sparse.csr_array((np.ones(2 * len(pairs), np.float32), np.vstack([pairs, pairs[:, ::-1]]).T), shape=(n, n))
    return GraphData(
        name=name,
        modality=modality,
        tissue=tissue,
        species=species,
        keys=np.array(keys, dtype=np.str_),
        trainable=np.ones(n, dtype=np.bool_) if trainable is None else trainable,
        edges=EdgeSet(
            indptr=matrix.indptr.astype(np.int64),
            indices=matrix.indices.astype(np.int32),
            z=matrix.data,
            estimate=matrix.data,
            features=np.stack([matrix.data, matrix.data], axis=1),
            cutoff=0.0,
        ),
        held_out=held_out_pairs() if held_out is None else held_out,
    )


def held_out_pairs(edges: ArrayLike = (), others: ArrayLike = (), sign: ArrayLike | None = None) -> HeldOutPairs:
    """Return held-out edges and non-edges, unordered pairs (K, 2) each, positive without a `sign`."""
    held, apart = (np.asarray(pairs, dtype=np.int64).reshape(-1, 2) for pairs in (edges, others))
    return HeldOutPairs(
        rows=held[:, 0],
        columns=held[:, 1],
        sign=np.ones(len(held), np.int8) if sign is None else np.asarray(sign, dtype=np.int8),
        negative_rows=apart[:, 0],
        negative_columns=apart[:, 1],
    )


def random_profile(name: str, n_genes: int, n_cells: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Draw standard normal residuals of a dataset, (N, M) float32."""
    return stream(seed, "bench_profile", name).standard_normal((n_genes, n_cells), dtype=np.float32)
