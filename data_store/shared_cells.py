"""Cells that two datasets have in common: what is hidden of one would be seen in the other.

Some cells of every dataset are read: those whose names have the smallest hashes, and those whose numbers of detected
genes do. A cell that two files hold is in both samples or in none, so that few cells tell whether many are shared.

Legend: C cells of a dataset, n cells of a sample, G genes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from musegnn.data_store.readers import FileSource

WHOLE = 2048
"""Cells up to which all are read."""
BY_NAME, BY_LENGTH = 96, 256
MOST_ENTRIES = 2**21
"""Entries up to which a matrix is read whole where its rows cannot be read one by one."""
FEWEST_GENES = 10
"""Detected genes below which equal cells say nothing."""
FEWEST_CELLS = 20
FEW_EQUAL = 3
"""Equal hashes below which a pair of samples is not looked at."""
NAMED_ALIKE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSample:
    """Some cells of a dataset.

    Attributes
    ----------
    gene
        Names of the genes, shape (G,).
    name_keys, named
        Hashes of the names of the cells chosen by these, ascending, shape (n,), uint64, and their counts, shape (n, G).
    cell_hashes, length_keys, limit
        Hashes of the counts of cells, shape (n,), uint64; the hashes of their numbers of genes; the bound below which
        all cells of the dataset with such a hash are among them.
    """

    gene: NDArray[np.str_]
    name_keys: NDArray[np.uint64]
    named: csr_matrix
    cell_hashes: NDArray[np.uint64]
    length_keys: NDArray[np.uint64]
    limit: int


def sample_cells(source: FileSource) -> CellSample | None:
    """Read the sample of a dataset; ``None`` where that would take a pass over a large file, or over a network."""
    by_rows = source.access == "rows"
    whole = source.n_cells <= WHOLE and (by_rows or (source.n_entries or MOST_ENTRIES) < MOST_ENTRIES)
    if source.is_remote or not (whole or by_rows):
        return None
    names, lengths = source.cell_table()
    if not whole and lengths is None:
        return None
    keys = np.array([_hash(name) for name in names], dtype=np.uint64)
    first = np.argsort(keys, kind="stable")[:BY_NAME]
    limit, chosen = 2**64, np.arange(source.n_cells)
    if not whole and lengths is not None:
        length_keys = _mix(lengths)
        while len(chosen) > BY_LENGTH and limit > 2:
            limit //= 2
            chosen = np.flatnonzero(length_keys < np.uint64(limit))
        chosen = chosen[:BY_LENGTH]
    cells = np.union1d(first, chosen)
    counts = source.take_cells(cells)
    detected = np.diff(counts.indptr)
    rows = np.searchsorted(cells, chosen)
    rows = rows[detected[rows] >= FEWEST_GENES]
    weight = np.array([_hash(gene) for gene in source.gene.tolist()], dtype=np.uint64)
    hashes = _row_hashes(counts, weight)[rows]
    own = _mix(detected[rows] if lengths is None else lengths[cells[rows]])
    return CellSample(
        gene=source.gene,
        name_keys=keys[first],
        named=counts[np.searchsorted(cells, first)],
        cell_hashes=hashes,
        length_keys=own,
        limit=limit,
    )


def likely_pairs(samples: Sequence[CellSample]) -> set[tuple[int, int]]:
    """Return the pairs of samples, the lower number first, that have several hashes in common."""
    found: Counter[tuple[int, int]] = Counter()
    for hashes in ([np.unique(s.cell_hashes) for s in samples], [s.name_keys for s in samples]):
        owner = np.repeat(np.arange(len(samples)), [len(some) for some in hashes])
        together = np.concatenate(hashes)
        order = np.lexsort((owner, together))
        ordered = together[order]
        for group in np.split(owner[order], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1):
            if len(group) > 1:
                found.update(combinations(np.unique(group).tolist(), 2))
    return {pair for pair, count in found.items() if count >= FEW_EQUAL}


def shared_share(one: CellSample, other: CellSample) -> float:
    """Return the share of the cells of the smaller dataset that the other one holds as well, as the samples say."""
    return max(_share_of_counts(one, other), _share_of_names(one, other))


def _share_of_counts(one: CellSample, other: CellSample) -> float:
    """Compare counts of all genes: finds cells under other names."""
    limit = min(one.limit, other.limit)
    found, repeats = [], 0.0
    for sample in (one, other):
        hashes = sample.cell_hashes if limit >= 2**64 else sample.cell_hashes[sample.length_keys < np.uint64(limit)]
        distinct = np.unique(hashes)
        if len(distinct) < FEWEST_CELLS:
            return 0.0
        repeats = max(repeats, 1.0 - len(distinct) / len(hashes))
        found.append(distinct)
    share = len(np.intersect1d(found[0], found[1], assume_unique=True)) / min(map(len, found))
    return share if share > 3.0 * repeats else 0.0  # where cells repeat within a dataset, they do between two


def _share_of_names(one: CellSample, other: CellSample) -> float:
    """Compare counts of the genes in common, of cells with the same name: finds cells after genes were left out."""
    bound = min(one.name_keys[-1], other.name_keys[-1])  # of names with hashes up to here, the samples hold all
    known = min(int((sample.name_keys <= bound).sum()) for sample in (one, other))
    _, mine, its = np.intersect1d(one.name_keys, other.name_keys, return_indices=True)
    _, my_genes, its_genes = np.intersect1d(one.gene, other.gene, return_indices=True)
    alike = len(mine) / max(known, 1)
    if alike < NAMED_ALIKE or len(mine) < FEWEST_CELLS or len(my_genes) < FEWEST_GENES:
        return 0.0
    a, b = one.named[mine][:, my_genes], other.named[its][:, its_genes]
    detected = np.minimum(np.diff(a.indptr), np.diff(b.indptr)) >= FEWEST_GENES
    if detected.sum() < FEWEST_CELLS:
        return 0.0
    differ = np.asarray((a != b).sum(axis=1)).ravel()
    equal = (differ == 0)[detected].mean()
    return float(min(alike, 1.0) * equal)


def _row_hashes(counts: csr_matrix, weight: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash rows whatever the order of their genes: sums of products, modulo 2^64."""
    products = weight[counts.indices] * counts.data.astype(np.uint64)
    ends = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(products, dtype=np.uint64)])
    sums: NDArray[np.uint64] = ends[counts.indptr[1:]] - ends[counts.indptr[:-1]]
    return sums


def _mix(lengths: NDArray[np.integer]) -> NDArray[np.uint64]:
    mixed: NDArray[np.uint64] = lengths.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return mixed


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
