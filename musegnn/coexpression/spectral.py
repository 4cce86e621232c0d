"""What many pairs share: the part of the test statistics that lies on few axes.

The test of a single pair is weak where counts are few (scATAC). Programmes of genes show in many pairs at once, as
eigenvectors of the matrix of z whose eigenvalues chance does not reach.

Legend: N genes, E stored entries (both directions of each pair), A axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import eigsh
from scipy.special import ndtr
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.data_store.records import PairTable

MAX_AXES = 64
DENSE_GENES = 2000
TRACY_WIDOM_99 = 2.0234
ENTRIES = 1 << 18


def truncated_moments(z_store: float) -> tuple[float, float]:
    """Return ``E[z^k; abs(z) >= z_store]`` of a standard normal z for k = 2, 4: what chance leaves in a stored table.

    Examples
    --------
    >>> second, fourth = truncated_moments(1.96)
    >>> truncated_moments(0.0), round(second, 4), round(fourth, 4)
    ((1.0, 3.0), 0.2791, 1.7173)
    """
    c = z_store
    density, tail = float(np.exp(-0.5 * c * c) / np.sqrt(2.0 * np.pi)), float(ndtr(-c))
    return 2.0 * (c * density + tail), 2.0 * ((c**3 + 3.0 * c) * density + 3.0 * tail)


def chance_edge(n_genes: int, z_store: float) -> tuple[float, float]:
    """Return the end of the spectrum of a stored table that holds chance alone, and a bound on its largest eigenvalue.

    They are the edge ``sqrt(N v) (2 + (m/v^2 - 3)/N)``, with v and m the second and fourth moment of an entry, and the
    99 % quantile of the largest eigenvalue, ``2.0234 N^(-2/3) sqrt(N v)`` above it.

    References
    ----------
    Lee and Schnelli (2018), Probab. Theory Relat. Fields 171:543, (the edge of sparse matrices); Tracy and
    Widom (1996), Commun. Math. Phys. 177:727 (the quantile).
    """
    second, fourth = truncated_moments(z_store)
    scale = float(np.sqrt(n_genes * second))
    edge = scale * (2.0 + (fourth / second**2 - 3.0) / n_genes)
    return edge, edge + scale * TRACY_WIDOM_99 * float(n_genes ** (-2.0 / 3.0))


def shared_part(pairs: PairTable) -> NDArray[np.float64]:
    """Estimate from all stored pairs together what each z is expected to be, shape (E,); 0 when no axis stands out.

    The matrix of stored z is a signal of low rank plus chance. Its eigenvalues l above the 99 % quantile of the
    largest that chance gives (:func:`chance_edge`) are kept, at most 64 by magnitude, and shrunk to
    ``sqrt(l^2 - edge^2)``, which has the least squared error.

    References
    ----------
    Gavish and Donoho (2017), IEEE Trans. Inf. Theory 63:2137 (square matrices, Frobenius loss).
    """
    n = pairs.n_genes
    edge, largest = chance_edge(n, pairs.z_store)
    values, vectors = _axes(pairs, n)
    stands_out = np.abs(values) > largest
    values, vectors = values[stands_out], np.ascontiguousarray(vectors[:, stands_out])
    weights = np.sign(values) * np.sqrt(values * values - edge * edge)
    rows = np.repeat(np.arange(n, dtype=np.int64), np.diff(pairs.indptr))
    low, high = np.minimum(rows, pairs.indices), np.maximum(rows, pairs.indices)
    result = np.zeros(len(rows))
    for start in range(0, len(rows), ENTRIES):
        part = slice(start, start + ENTRIES)
        result[part] = ((vectors[low[part]] * weights) * vectors[high[part]]).sum(axis=1)
    return result


def _axes(pairs: PairTable, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the eigenvalues of largest magnitude, at most 64, shape (A,), and their vectors, shape (N, A)."""
    matrix = csr_matrix((pairs.z.astype(np.float64), pairs.indices, pairs.indptr), shape=(n, n))
    with threadpool_limits(limits=1, user_api="blas"):
        if n > DENSE_GENES and matrix.nnz:
            start = np.ones(n) / np.sqrt(n)
            values, vectors = eigsh(matrix, k=MAX_AXES, which="LM", v0=start)
        else:
            values, vectors = eigh(matrix.toarray())
    strongest = np.argsort(-np.abs(values), kind="stable")[:MAX_AXES]
    return values[strongest], vectors[:, strongest]
