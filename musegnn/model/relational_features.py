"""Relational features: the ties of a gene with the anchor genes, those that several datasets have.

Legend: N genes, R profile columns, V anchor genes, C of them in this dataset.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from musegnn.vectors import unit_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.data_store.records import PairTable


BLOCK_ROWS = 1024


def anchor_genes(keys: Sequence[NDArray[np.str_]]) -> list[str]:
    """Return the keys of genes in two datasets at least (or in the only one), sorted.

    `keys` are the keys of the genes of each dataset that are not held out.
    """
    counts = Counter(key for names in keys for key in names.tolist())
    return sorted(key for key, count in counts.items() if count > 1 or len(keys) == 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """Two kinds of ties of the genes of one dataset with the anchor genes.

    Attributes
    ----------
    values
        C test statistics of co-expression (0 where not stored), then C correlations of residual profiles; 0 where held
        out and for a gene with itself. Each kind has norm ``1/sqrt(2)`` per gene (or 0), shape (N, 2C), float32.
    columns, genes
        Places of the columns among the 2V relations to all anchor genes, ascending, shape (2C,), and the anchor genes
        of the dataset in that order, shape (C,), int64.
    """

    values: NDArray[np.float32]
    columns: NDArray[np.int64]
    genes: NDArray[np.int64]


def relations(
    pairs: PairTable,
    profile: NDArray[np.float32],
    held_out: tuple[NDArray[np.int64], NDArray[np.int64]],
    keys: NDArray[np.str_],
    anchors: Sequence[str],
) -> Relations:
    """Compute the ties of genes with the anchor genes; `profile` is (N, R), `keys` (N,), `anchors` sorted.

    The test statistic is used because the estimate is undefined (0) for genes with a negative variance estimate, and
    all stored pairs because those below the edge rule's cut still tell genes apart. The correlation of residual
    profiles is defined for every pair and noisy in other ways. `held_out` are rows and columns of pairs that training
    must not see in either direction, held-out edges and non-edges alike.
    """
    n, place = len(keys), {key: k for k, key in enumerate(anchors)}
    anchor = np.array([place.get(key, -1) for key in keys.tolist()], dtype=np.int64)
    genes = np.flatnonzero(anchor >= 0)
    genes = genes[np.argsort(anchor[genes])]
    at = np.full(n, -1, dtype=np.int64)
    at[genes] = np.arange(len(genes))
    centred = unit_rows(profile - profile.mean(axis=0, dtype=np.float64))
    first, second = (np.concatenate([held_out[k], held_out[1 - k]]) for k in (0, 1))
    order = np.argsort(first, kind="stable")
    first, second = first[order], second[order]
    values = np.empty((n, 2 * len(genes)), dtype=np.float32)
    with threadpool_limits(1, "blas"):  # the bits must not depend on the machine's number of cores
        for start in range(0, n, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, n)
            statistics = np.zeros((stop - start, len(genes)))
            stored = slice(pairs.indptr[start], pairs.indptr[stop])
            rows = np.repeat(np.arange(stop - start), np.diff(pairs.indptr[start : stop + 1]))
            columns = at[pairs.indices[stored]]
            statistics[rows[columns >= 0], columns[columns >= 0]] = pairs.z[stored][columns >= 0]
            correlations = centred[start:stop] @ centred[genes].T
            own = np.flatnonzero((genes >= start) & (genes < stop))
            correlations[genes[own] - start, own] = 0.0
            pair = slice(*np.searchsorted(first, [start, stop]))
            row, column = first[pair] - start, at[second[pair]]
            for kind, first_column in ((statistics, 0), (correlations, len(genes))):
                kind[row[column >= 0], column[column >= 0]] = 0.0
                values[start:stop, first_column : first_column + len(genes)] = unit_rows(kind) * 0.5**0.5
    return Relations(
        values=values,
        columns=np.concatenate([anchor[genes], len(anchors) + anchor[genes]]),
        genes=genes,
    )
