"""Overlaps of neighbourhoods against Python sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musegnn.kernels.overlap import NeighbourSets, jaccard


def make(rng, n_rows, n_genes, density):
    """Draw a graph whose rows are genes in random order, some without a name."""
    filled = rng.random((n_rows, n_rows)) < density
    rows, columns = np.nonzero(filled)
    z = np.where(rng.random(len(rows)) < 0.4, -1.0, 1.0).astype(np.float32)
    gene = rng.permutation(n_genes)[:n_rows].astype(np.int32)
    gene[rng.random(n_rows) < 0.2] = -1
    plain = [set() for _ in range(n_rows)]
    for row, column, value in zip(rows, columns, z, strict=True):
        if gene[column] >= 0:
            plain[row].add((int(gene[column]), value < 0))
    indptr = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int64)
    return plain, NeighbourSets(indptr=indptr, indices=columns.astype(np.int32), z=z, gene=gene, n_genes=n_genes)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 9999),
    n_genes=st.sampled_from([12, 63, 64, 65, 300]),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    n_pairs=st.integers(0, 20),
)
def test_equals_set_arithmetic(seed, n_genes, density, n_pairs):
    rng = np.random.default_rng(seed)
    plain_a, a = make(rng, 12, n_genes, density)
    plain_b, b = make(rng, 9, n_genes, 0.5)
    rows_a, rows_b = rng.integers(0, 12, n_pairs), rng.integers(0, 9, n_pairs)
    pairs = [(plain_a[i], plain_b[j]) for i, j in zip(rows_a, rows_b, strict=True)]
    expected = np.array([len(x & y) / len(x | y) if x | y else 0.0 for x, y in pairs])
    for impl in ("numba", "reference"):
        np.testing.assert_array_equal(jaccard(a, b, rows_a, rows_b, impl=impl), expected)
        np.testing.assert_array_equal(jaccard(b, a, rows_b, rows_a, impl=impl), expected)


def pair_of_rows(**changes):
    given_ = {
        "indptr": np.array([0, 1, 2]),
        "indices": np.array([1, 0], dtype=np.int32),
        "z": np.array([3.0, 3.0], dtype=np.float32),
        "gene": np.array([0, 1], dtype=np.int32),
        "n_genes": 2,
    }
    return NeighbourSets(**(given_ | changes))


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"n_genes": 1}, ValueError, r"gene must be in \[-1, 1\)"),
        ({"indices": np.array([1, 2], dtype=np.int32)}, ValueError, r"indices must be in \[0, 2\)"),
        ({"indptr": np.array([0, 2, 1])}, ValueError, "indptr must rise"),
        ({"z": np.zeros(3, dtype=np.float32)}, ValueError, "z must have shape"),
        ({"gene": np.array([0, 1])}, TypeError, "gene must be"),
    ],
)
def test_graphs_that_do_not_fit_are_refused(changes, error, match):
    with pytest.raises(error, match=match):
        pair_of_rows(**changes)


def test_rows_that_do_not_fit_are_refused():
    sets, row = pair_of_rows(), np.zeros(1, dtype=np.int64)
    with pytest.raises(ValueError, match="as many genes"):
        jaccard(sets, pair_of_rows(n_genes=3), row, row)
    with pytest.raises(ValueError, match=r"rows_b must be in \[0, 2\)"):
        jaccard(sets, sets, row, row + 2)
    with pytest.raises(ValueError, match="rows_b must have shape"):
        jaccard(sets, sets, row, row[:0])
    with pytest.raises(TypeError, match="rows_a must be"):
        jaccard(sets, sets, row.astype(np.int32), row)
    with pytest.raises(ValueError, match="impl must be"):
        jaccard(sets, sets, row, row, impl="fast")
