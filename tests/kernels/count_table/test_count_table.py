from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from musegnn.coexpression.counts import CountTable
from musegnn.kernels.count_table import SMALL, accumulate_counts


def draw(seed: int, cells: int, genes: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.negative_binomial(0.3, rng.uniform(0.001, 0.3, genes), (cells, genes))
    x[rng.random((cells, genes)) < 0.02] = 100_000
    return x.astype(np.int32)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 30), st.integers(1, 12))
def test_both_implementations_equal_the_definition(seed, cells, genes):
    x = draw(seed, cells, genes)
    keep = np.random.default_rng(seed).random(cells) < 0.7
    for impl in ("numba", "reference"):
        small = np.zeros((genes, SMALL), dtype=np.int64)
        large = accumulate_counts(csr_matrix(x), keep, small, impl=impl)
        for j in range(genes):
            column = x[keep, j]
            expected = np.bincount(column[(column > 0) & (column < SMALL)], minlength=SMALL)
            np.testing.assert_array_equal(small[j], expected)
            np.testing.assert_array_equal(
                np.sort(large[large >> 32 == j] & 0xFFFFFFFF), np.sort(column[column >= SMALL])
            )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.lists(st.integers(0, 60), max_size=4))
def test_tables_add_up_bit_for_bit(seed, cells, cuts):
    x = draw(seed, cells, 6)
    keep = np.random.default_rng(seed).random(cells) < 0.8
    whole = CountTable(6)
    whole.update(csr_matrix(x), keep)
    edges = np.unique([0, *np.minimum(cuts, cells), cells])
    parts = []
    for a, b in itertools.pairwise(edges):
        part = CountTable(6)
        part.update(csr_matrix(x[a:b]), keep[a:b])
        parts.append(CountTable.from_arrays(*part.arrays()))
    merged = CountTable(6)
    for part in reversed(parts):
        merged.merge(part)
    for ours, expected in zip(merged.arrays(), whole.arrays(), strict=True):
        np.testing.assert_array_equal(ours, expected)
    kept = x[keep].astype(float)
    stats = merged.stats(max(len(kept), 1))
    np.testing.assert_array_equal(stats.total, kept.sum(0))
    np.testing.assert_array_equal(stats.total_squares, (kept**2).sum(0))
    np.testing.assert_allclose(stats.total_log1p, np.log1p(kept).sum(0), rtol=1e-12)
    np.testing.assert_array_equal(stats.n_detected, (kept > 0).sum(0))
    if (kept > 0).any():
        assert merged.median_nonzero() == np.median(kept[kept > 0])


def test_genes_are_taken_in_the_order_given():
    x = draw(1, 80, 9)
    table, taken = CountTable(9), CountTable(3)
    table.update(csr_matrix(x), np.ones(80, dtype=bool))
    taken.update(csr_matrix(x[:, [7, 0, 4]]), np.ones(80, dtype=bool))
    for again, expected in zip(table.take(np.array([7, 0, 4])).arrays(), taken.arrays(), strict=True):
        np.testing.assert_array_equal(again, expected)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="not be negative"):
        accumulate_counts(
            csr_matrix(np.full((1, 1), -1, dtype=np.int32)), np.ones(1, bool), np.zeros((1, SMALL), np.int64)
        )
    with pytest.raises(ValueError, match="2 genes, got 3"):
        CountTable(2).merge(CountTable(3))
    with pytest.raises(ValueError, match="at least one"):
        CountTable(2).median_nonzero()
