"""Co-expression partners of genes: the pairs of each dataset with the largest test statistic.

Legend: G genes of a dataset, P stored pair entries, K partners.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.data_store.records import PairTable
    from musegnn.graph import EdgeSet


class Partners(NamedTuple):
    """The strongest partners of every gene of a dataset, by falling ``abs(z)``.

    Attributes
    ----------
    indptr
        Row pointers, shape (G + 1,), int64; a row has at most K entries.
    gene
        Positions of the partners, int64.
    z
        Test statistics, float32.
    """

    indptr: NDArray[np.int64]
    gene: NDArray[np.int64]
    z: NDArray[np.float32]


def strongest_partners(pairs: PairTable | EdgeSet, k: int) -> Partners:
    """Return the k partners of largest ``abs(z)`` of every gene, equal ones in the order of the genes."""
    counts = np.diff(pairs.indptr)
    row = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((pairs.indices, -np.abs(pairs.z), row))
    rank = np.arange(len(row)) - np.repeat(pairs.indptr[:-1], counts)
    chosen = order[rank < k]
    indptr = np.concatenate([[0], np.cumsum(np.minimum(counts, k))]).astype(np.int64)
    return Partners(indptr, pairs.indices[chosen].astype(np.int64), pairs.z[chosen])
