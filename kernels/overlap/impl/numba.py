"""Neighbourhoods as sparse bitsets, and their intersections, as compiled loops without the interpreter lock.

Legend: N rows, W words of 64 genes and one sign, K words that are not zero in all rows together, A pairs of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from musegnn.kernels.validation import Ints

    Words = NDArray[np.uint64]
    Places = NDArray[np.uint32]
    Packed = tuple[Ints, Places, Words, Ints]


def _type_count(typing_context: Any, x: Any) -> tuple[Any, Callable[..., Any]]:  # numba hands over its own objects
    """Count the bits of a word that are set."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), generate


_count_ones: Any = intrinsic(_type_count)  # numba publishes no type of what compiled code calls


@njit(nogil=True, cache=True)
def pack(
    indptr: Ints, indices: NDArray[np.int32], z: NDArray[np.float32], gene: NDArray[np.int32], n_genes: int
) -> Packed:
    """Return the words of each row that are not zero: offsets (N + 1,), places (K,), bits (K,); and set sizes (N,).

    Words of positive neighbours come first, then those of negative ones.
    """
    half = (n_genes + 63) // 64
    spread = np.zeros(2 * half, dtype=np.uint64)
    start, size = np.zeros(indptr.size, dtype=np.int64), np.zeros(indptr.size - 1, dtype=np.int64)
    capacity = 0
    for i in range(indptr.size - 1):
        capacity += min(indptr[i + 1] - indptr[i], 2 * half)
    place, bits = np.empty(capacity, dtype=np.uint32), np.empty(capacity, dtype=np.uint64)
    n = 0
    for i in range(indptr.size - 1):
        count = 0
        for e in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            code = gene[indices[e]]
            if code >= 0:
                count += 1
                spread[(code >> 6) + half * (z[e] < 0)] |= np.uint64(1) << np.uint64(code & 63)
        size[i] = count
        for word in range(2 * half):
            if spread[word] != 0:
                place[n], bits[n] = word, spread[word]
                spread[word] = 0
                n += 1
        start[i + 1] = n
    return start, place[:n].copy(), bits[:n].copy(), size


@njit(nogil=True, cache=True)
def intersections(a: Packed, b: Packed, rows_a: Ints, rows_b: Ints, n_genes: int) -> tuple[Ints, Ints, Ints]:
    """Count what pairs of rows share, and the sizes of both, each (A,).

    One row of each pair is laid out over all words, the other looks its words up there.
    """
    start_a, place_a, bits_a, size_a = a
    start_b, place_b, bits_b, size_b = b
    spread = np.zeros(2 * ((n_genes + 63) // 64), dtype=np.uint64)
    shared = np.empty(rows_a.size, dtype=np.int64)
    for k in range(rows_a.size):
        first, last = np.uint64(start_a[rows_a[k]]), np.uint64(start_a[rows_a[k] + 1])
        for e in range(first, last):
            spread[place_a[e]] = bits_a[e]
        total = np.uint64(0)
        for e in range(np.uint64(start_b[rows_b[k]]), np.uint64(start_b[rows_b[k] + 1])):
            total += _count_ones(spread[place_b[e]] & bits_b[e])
        shared[k] = total
        for e in range(first, last):
            spread[place_a[e]] = 0
    return shared, size_a[rows_a], size_b[rows_b]
