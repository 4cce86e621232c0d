"""What happens to the numbers of one row and head between the two gathering loops.

Legend: a row's n edges have consecutive numbers, scores or weights from ``at`` on and CSR positions from ``edge`` on;
F edge attributes are stored (F, E), what a node owns (N, H) or (N, H, F).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from musegnn.kernels.edge_attention.impl.compile import inlined
from musegnn.kernels.edge_attention.impl.simd import (
    VECTOR_BYTES,
    add,
    exp,
    fill,
    fma,
    largest,
    load,
    maximum,
    mul,
    only,
    store,
    store_pairs,
    total,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Float = np.floating[Any]
    Ints = NDArray[np.int64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S40 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(40)


class Options(NamedTuple):
    """What the kernels take beside arrays.

    Attributes
    ----------
    scale
        Factor on the scores.
    key, threshold, grow
        Dropout: the key made of the seed, the bound below which 24 random bits drop a weight (0: no dropout), and
        the factor on the others.
    """

    scale: np.floating[Any]
    key: np.uint64
    threshold: np.uint64
    grow: np.floating[Any]


@njit(cache=True)
def mix(x: np.uint64) -> np.uint64:
    """Scramble 64 bits, the finaliser of splitmix64."""
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)


@njit(cache=True, nogil=True)
def heads_first(
    x: Floats, out: Floats, n_nodes: int, n_heads: int, true_dim: int, dim: int, first: int, last: int
) -> None:
    """Copy (N, H, D) to (H, N, dim), nodes ``first`` to ``last``, with zeros from D on."""
    for h in range(n_heads):
        for i in range(first, last):
            at, out_at = np.uint64((i * n_heads + h) * true_dim), np.uint64((h * n_nodes + i) * dim)
            for d in range(np.uint64(true_dim)):
                out[out_at + d] = x[at + d]
            for d in range(np.uint64(true_dim), np.uint64(dim)):
                out[out_at + d] = 0


@njit(cache=True, nogil=True)
def transpose(a: Floats, out: Floats, n_edges: int, n_attributes: int, first: int, last: int) -> None:
    """Copy (E, F) to (F, E), edges ``first`` to ``last``."""
    two, e_count, f_count = np.uint64(2), np.uint64(n_edges), np.uint64(n_attributes)
    if f_count == two:  # a constant stride is vectorised
        for e in range(np.uint64(first), np.uint64(last)):
            out[e] = a[two * e]
            out[e_count + e] = a[two * e + np.uint64(1)]
        return
    for e in range(np.uint64(first), np.uint64(last)):
        for f in range(f_count):
            out[f * e_count + e] = a[e * f_count + f]


@inlined
def drop(weight: Floats, at: int, n: int, edge: int, head: int, options: Options) -> None:
    """Drop and grow n weights."""
    # Unsigned: a signed index may wrap around, and such loops are not vectorised.
    first, zero, head_key = np.uint64(at), weight.dtype.type(0), np.uint64(head + 1) * _MIX_1
    for e in range(np.uint64(n)):
        bits = mix(mix((np.uint64(edge) + e) * GOLDEN + options.key) + head_key)
        weight[first + e] *= zero if (bits >> _S40) < options.threshold else options.grow


@inlined
def softmax(
    score: Floats, at: int, n: int, u: Floats, u_at: int, a: Floats, edge: int, n_edges: int, n_attributes: int,
    scale: Float,
) -> tuple[Float, Float]:  # fmt: skip
    """Turn products ``q . k`` into weights that have yet to be divided by their sum.

    Returns the largest score, ``peak``, and the sum of the weights: the log-sum-exp is ``peak + log(sum)``.
    """
    width, zero, nothing = VECTOR_BYTES // score.itemsize, score.dtype.type(0), score.dtype.type(-np.inf)
    peaks = fill(nothing)
    for e in range(0, n, width):
        s = load(score, at + e, n - e)
        for f in range(n_attributes):
            s = fma(fill(u[u_at + f]), load(a, f * n_edges + edge + e, n - e), s)
        s = mul(s, fill(scale))
        store(s, score, at + e, n - e)
        peaks = maximum(only(s, n - e, nothing), peaks)
    peak, sums = largest(peaks), fill(zero)
    for e in range(0, n, width):
        w = exp(add(load(score, at + e, n - e), fill(-peak)))
        store(w, score, at + e, n - e)
        sums = add(sums, only(w, n - e, zero))
    return peak, total(sums)


@inlined
def recompute(
    p: Floats, dp: Floats, at: int, n: int, u: Floats, dz: Floats, u_at: int, a: Floats, edge: int, n_edges: int,
    n_attributes: int, scale: Float, lse: Float,
) -> Float:  # fmt: skip
    """Turn products ``q . k`` into undivided weights, and ``do . v`` into their gradients before dropout.

    Returns the sum of the weights, which only rounding takes away from 1.
    """
    width, zero = VECTOR_BYTES // p.itemsize, p.dtype.type(0)
    sums = fill(zero)
    for e in range(0, n, width):
        s, d = load(p, at + e, n - e), load(dp, at + e, n - e)
        for f in range(n_attributes):
            a_f = load(a, f * n_edges + edge + e, n - e)
            s = fma(fill(u[u_at + f]), a_f, s)
            d = fma(fill(dz[u_at + f]), a_f, d)
        w = exp(fma(s, fill(scale), fill(-lse)))
        store(w, p, at + e, n - e)
        store(d, dp, at + e, n - e)
        sums = add(sums, only(w, n - e, zero))
    weight: Float = total(sums)
    return weight


@inlined
def differentiate(p: Floats, ds: Floats, at: int, n: int, share: Float, scale: Float) -> None:
    """Multiply n weights by ``share``, and turn their gradients into those of products."""
    width, zero = VECTOR_BYTES // p.itemsize, p.dtype.type(0)
    sums = fill(zero)
    for e in range(0, n, width):
        w = mul(load(p, at + e, n - e), fill(share))
        store(w, p, at + e, n - e)
        sums = fma(w, load(ds, at + e, n - e), sums)
    delta = total(sums)
    for e in range(0, n, width):
        d = add(load(ds, at + e, n - e), fill(-delta))
        store(mul(mul(load(p, at + e, n - e), fill(scale)), d), ds, at + e, n - e)


@inlined
def hand_over(pairs: Floats, pairs_at: int, ds: Floats, p: Floats, at: int, n: int) -> None:
    """Leave n pairs of score gradient and weight for the pass over columns."""
    for e in range(0, n, VECTOR_BYTES // p.itemsize):
        store_pairs(load(ds, at + e, n - e), load(p, at + e, n - e), pairs, pairs_at + 2 * e, n - e)


@inlined
def sum_attributes(
    out: Floats, out_at: int, weight: Floats, at: int, n: int, share: Float, a: Floats, edge: int, n_edges: int,
    n_attributes: int,
) -> None:  # fmt: skip
    """Set ``out`` to ``share`` times the weighted sum of a row's attributes."""
    width, zero = VECTOR_BYTES // weight.itemsize, weight.dtype.type(0)
    for f in range(n_attributes):
        sums = fill(zero)
        for e in range(0, n, width):
            sums = fma(load(weight, at + e, n - e), load(a, f * n_edges + edge + e, n - e), sums)
        out[out_at + f] = total(sums) * share


@inlined
def add_attribute_gradient(
    da: Floats, ds: Floats, p: Floats, at: int, n: int, u: Floats, dz: Floats, u_at: int, edge: int, n_edges: int,
    n_attributes: int,
) -> None:  # fmt: skip
    """Add one row and head's share to the gradient of the attributes."""
    width = VECTOR_BYTES // p.itemsize
    for f in range(n_attributes):
        for e in range(0, n, width):
            place, left = f * n_edges + edge + e, n - e
            grad = fma(load(ds, at + e, left), fill(u[u_at + f]), load(da, place, left))
            store(fma(load(p, at + e, left), fill(dz[u_at + f]), grad), da, place, left)


@inlined
def weigh_rows(
    p: Floats, base: int, share: Floats, u: Floats, a: Floats, rowptr: Ints, options: Options, z: Floats, lse: Floats,
    h: int, begin: int, end: int,
) -> None:  # fmt: skip
    """Turn the products of a block into undivided weights, their divisors ``share``, ``z`` and ``lse``."""
    n_heads, n_edges = lse.size // (rowptr.size - 1), rowptr[-1]
    n_attributes, one = z.size // lse.size, p.dtype.type(1)
    for i in range(begin, end):
        start, n, node = rowptr[i], rowptr[i + 1] - rowptr[i], i * n_heads + h
        at, z_at = start - base, node * n_attributes
        lse[node], share[i - begin] = 0, 1
        if n > 0:
            peak, weight = softmax(p, at, n, u, z_at, a, start, n_edges, n_attributes, options.scale)
            lse[node], share[i - begin] = peak + np.log(weight), one / weight
            if options.threshold > 0:
                drop(p, at, n, start, h, options)
        sum_attributes(z, z_at, p, at, n, share[i - begin], a, start, n_edges, n_attributes)


@inlined
def differentiate_rows(
    p: Floats, ds: Floats, base: int, u: Floats, dz: Floats, a: Floats, rowptr: Ints, options: Options, lse: Floats,
    du: Floats, da: Floats, pairs: Floats, pairs_at: int, h: int, begin: int, end: int,
) -> None:  # fmt: skip
    """Turn the products of a block into ``p`` and ``ds``, ``du``, ``da`` and what columns need."""
    n_heads, n_edges = lse.size // (rowptr.size - 1), rowptr[-1]
    n_attributes, one = u.size // lse.size, p.dtype.type(1)
    for i in range(begin, end):
        start, n, node = rowptr[i], rowptr[i + 1] - rowptr[i], i * n_heads + h
        at, u_at = start - base, node * n_attributes
        if n > 0:
            weight = recompute(p, ds, at, n, u, dz, u_at, a, start, n_edges, n_attributes, options.scale, lse[node])
            if options.threshold > 0:
                drop(ds, at, n, start, h, options)
            differentiate(p, ds, at, n, one / weight, options.scale)
            if options.threshold > 0:
                drop(p, at, n, start, h, options)
            hand_over(pairs, pairs_at + 2 * start, ds, p, at, n)
        sum_attributes(du, u_at, ds, at, n, one, a, start, n_edges, n_attributes)
        if da.size > 0:
            add_attribute_gradient(da, ds, p, at, n, u, dz, u_at, start, n_edges, n_attributes)


@inlined
def multiply(x: Floats, at: int, n: int, factor: Float) -> None:
    """Multiply n numbers."""
    for e in range(0, n, VECTOR_BYTES // x.itemsize):
        store(mul(load(x, at + e, n - e), fill(factor)), x, at + e, n - e)
