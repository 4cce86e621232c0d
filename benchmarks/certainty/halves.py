"""Datasets cut into two sets of cells, each built on its own: what the first says of its genes, what the second has.

Legend: N genes, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from anndata import read_h5ad

import musegnn as mg
from musegnn.coexpression.build import build_dataset
from musegnn.data_store import Store, build_id
from musegnn.datasets import atlas_of_store, open_counts
from musegnn.random import stream
from musegnn.vectors import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.config import AtlasConfig, DatasetConfig, GraphConfig
    from musegnn.data_store.records import DatasetRecord, PairTable

NEIGHBORS = 30
BELOW = 1.96
UNSTORED = 0.7588  # mean of z^2 below 1.96 in size, of a standard normal z


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The graph of one set of cells, and z of the same genes in the other, (N, N), 0 on the diagonal and where absent.

    `known` marks the genes that the other build kept, shape (N,).
    """

    record: DatasetRecord
    other: DatasetRecord
    z: NDArray[np.float64]
    other_z: NDArray[np.float64]
    known: NDArray[np.bool_]

    @property
    def shape(self) -> str:
        """Name and size, as rows of results have it."""
        return f"{self.record.name} {self.record.n_cells}+{self.other.n_cells}x{len(self.record.genes)}"


def split_dataset(dataset: DatasetConfig, config: GraphConfig, *, seed: int = 0) -> Pair:
    """Build the graphs of two random halves of the cells; genes are those that the first selects."""
    adata = read_h5ad(dataset.path)
    order = stream(seed, "bench_certainty", dataset.name).permutation(adata.n_obs)
    everything = config.model_copy(update={"z_store": 0.0})
    first = _build(dataset, adata[np.sort(order[::2])].copy(), everything)
    genes = tuple(first.genes.gene.tolist())
    update = {"selection": "list", "genes": genes, "min_cells": 1, "z_store": 0.0}
    second = _build(dataset, adata[np.sort(order[1::2])].copy(), config.model_copy(update=update))
    place = {gene: k for k, gene in enumerate(second.genes.gene.tolist())}
    known = np.array([gene in place for gene in genes])
    rows = np.array([place[gene] for gene in genes if gene in place])
    other_z = np.zeros((len(genes), len(genes)))
    other_z[np.ix_(known, known)] = dense(second.pairs)[np.ix_(rows, rows)]
    return Pair(record=first, other=second, z=dense(first.pairs), other_z=other_z, known=known)


def _build(dataset: DatasetConfig, adata: object, config: GraphConfig) -> DatasetRecord:
    about = type(dataset).model_validate(dataset.model_dump(exclude={"path"}) | {"path": adata})
    return build_dataset(open_counts(about), about, config)


def dense(pairs: PairTable) -> NDArray[np.float64]:
    """Return the stored z as a matrix."""
    z = np.zeros((pairs.n_genes, pairs.n_genes))
    z[np.repeat(np.arange(pairs.n_genes), np.diff(pairs.indptr)), pairs.indices] = pairs.z
    return z


def closed_form(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 - 1 / (mean of z^2) of each gene, over pairs as stores hold them: no second sums, and no cells, needed.

    z of a pair without co-expression has variance 1, so that this is the share of the variance that is not chance.
    """
    stored = np.abs(z) >= BELOW
    n = len(z) - 1
    mean = (np.where(stored, z, 0.0) ** 2).sum(axis=1) + UNSTORED * (n - stored.sum(axis=1))
    result: NDArray[np.float64] = np.clip(1.0 - n / mean, 0.0, 1.0)
    return result


def row_agreement(pair: Pair) -> NDArray[np.float64]:
    """Return the correlation of the z of each gene between the two sets of cells, shape (N,)."""
    n, both = pair.known.sum() - 1, np.outer(pair.known, pair.known) & ~np.eye(len(pair.z), dtype=bool)
    a, b = (np.where(both, z, 0.0) for z in (pair.z, pair.other_z))
    a, b = (np.where(both, z - z.sum(axis=1, keepdims=True) / n, 0.0) for z in (a, b))
    size = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), size, out=np.zeros(len(a)), where=size > 0)


def partners_kept(pair: Pair) -> NDArray[np.float64]:
    """Return the share of the k partners of largest z that are among those of the other cells, shape (N,)."""
    tops = []
    for z in (pair.z, pair.other_z):
        ranked = np.where(np.eye(len(z), dtype=bool), -np.inf, z)
        tops.append(np.argsort(-ranked, axis=1, kind="stable")[:, :NEIGHBORS])
    return shared(*tops)


def shared(one: NDArray[np.integer], other: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the share of each row's neighbours that both lists have."""
    return np.array([len(np.intersect1d(a, b)) / one.shape[1] for a, b in zip(one, other, strict=True)])


def vectors_kept(
    pairs: Sequence[Pair], atlas: AtlasConfig, folder: Path
) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.float64]]]:
    """Train on the graphs of the first cells and on those of the others, and compare nearest genes by cosine.

    Returns
    -------
    dict
        By dataset: the genes with vectors in both, shape (N,), and the share of the k nearest genes of the own dataset
        that both lists have, shape (K,) for these.
    """
    spaces = []
    for side, records in enumerate([[p.record for p in pairs], [p.other for p in pairs]]):
        store = Store.create(folder / f"store{side}")
        for record in records:
            store.commit(record, build_id(record.provenance["input"], record.provenance["parameters"], "bench"))
        config = atlas_of_store(store).model_copy(update={"orthologs": atlas.orthologs})
        spaces.append(mg.MuSeGNN(store, config).train(progress=False).vectors())
    found = {}
    for pair in pairs:
        name = pair.record.name
        place = {gene: k for k, gene in enumerate(pair.other.genes.gene.tolist())}
        rows = [place[gene] for gene in pair.record.genes.gene[pair.known].tolist()]
        one, other = spaces[0][name][pair.known], spaces[1][name][rows]
        found[name] = (pair.known, shared(nearest(one, NEIGHBORS).index, nearest(other, NEIGHBORS).index))
    return found
