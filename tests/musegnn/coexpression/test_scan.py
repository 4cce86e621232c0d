from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from musegnn.coexpression.scan import kept_blocks, scan
from musegnn.config import GraphConfig, QCConfig
from musegnn.data_store import ArraySource
from musegnn.errors import InputError


def counts(seed: int = 0, n: int = 200, genes: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(1.0, 1.5, (1, genes)), (n, genes)) * (rng.random((n, genes)) < 0.4)


def source(x: np.ndarray) -> ArraySource:
    names = [f"G{j}" for j in range(x.shape[1])]
    names[3], names[7] = "MT-ND1", "mt-Co1"
    return ArraySource(csr_matrix(x), names)


def test_equals_the_definitions():
    x = counts()
    x[:, 12] = 0
    x[:4, 12] = 9  # detected in four cells only
    x[17] = 0
    result = scan(source(x), GraphConfig(block_rows=64))
    keep = np.arange(200) != 17
    counted = ~np.isin(np.arange(40), [3, 7])
    genes = np.flatnonzero(counted & ((x > 0).sum(0) >= 5))
    kept = x[keep][:, genes].astype(float)
    np.testing.assert_array_equal(result.keep, keep)
    np.testing.assert_array_equal(result.genes, genes)
    np.testing.assert_array_equal(result.depth, x[keep][:, counted].sum(1))
    np.testing.assert_array_equal(result.stats.total, kept.sum(0))
    np.testing.assert_allclose(result.stats.variance, kept.var(0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(result.stats.geometric_mean, np.expm1(np.log1p(kept).mean(0)), rtol=1e-12)
    np.testing.assert_array_equal(result.stats.n_detected, (kept > 0).sum(0))
    assert result.median_nonzero == np.median(kept[kept > 0])
    assert result.cells_dropped == {"no_counts": 1}
    assert result.genes_dropped == {"mitochondrial": 2, "detected_in_few_cells": 38 - len(genes)}
    np.testing.assert_array_equal(result.step1.toarray(), kept)  # fewer cells than the subsample takes
    np.testing.assert_array_equal(result.step1_depth, result.depth)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.integers(1, 300), st.integers(1, 300))
def test_blocks_do_not_matter(seed, one, other):
    x = counts(seed)
    x[::9] = 0
    a, b = (scan(source(x), GraphConfig(block_rows=rows, sct_cells=60, seed=seed)) for rows in (one, other))
    np.testing.assert_array_equal(a.depth, b.depth)
    np.testing.assert_array_equal(a.stats.total_log1p, b.stats.total_log1p)
    np.testing.assert_array_equal(a.step1.toarray(), b.step1.toarray())
    assert a.step1.shape[0] == 60
    assert a.median_nonzero == b.median_nonzero


def test_subsample_is_of_kept_cells_and_seeded():
    x = counts(1)
    x[::2] = 0
    depth = np.delete(x, [3, 7], axis=1).sum(1)
    first = scan(source(x), GraphConfig(sct_cells=50, seed=1))
    second = scan(source(x), GraphConfig(sct_cells=50, seed=2))
    assert (first.step1_depth > 0).all()
    assert set(first.step1_depth) <= set(depth[depth > 0])
    assert not np.array_equal(first.step1_depth, second.step1_depth)


def test_quality_control_counts_each_cell_once():
    x = counts(2, n=300)
    x[0] = 0
    x[1] = 0
    x[1, 5] = 3  # few counts and few genes: the first reason counts
    x[2] = 1  # every gene detected
    x[3] = 0
    x[3, 3] = 500  # mitochondrial counts only: no depth is left
    x[4, 3] = 10_000
    qc = QCConfig(min_counts=5, min_genes=2, max_genes=39, max_mito=0.9)
    result = scan(source(x), GraphConfig(qc=qc))
    assert result.cells_dropped == {"no_counts": 2, "few_counts": 1, "many_genes": 1, "mitochondrial": 1}
    assert not result.keep[:5].any()
    assert result.n_cells == 295
    relaxed = scan(source(x), GraphConfig(drop_mitochondrial=False))
    assert relaxed.cells_dropped == {"no_counts": 1}
    assert relaxed.depth.max() == x[4].sum()


def test_kept_blocks_give_the_kept_counts():
    x = counts(3)
    x[40:90] = 0
    src = source(x)
    result = scan(src, GraphConfig(block_rows=32))
    genes = result.genes[::3]
    got, positions = [], []
    for start, block, depth in kept_blocks(src, result, genes, 25):
        assert block.dtype == np.int32
        assert block.has_sorted_indices
        np.testing.assert_array_equal(depth, result.depth[start : start + block.shape[0]])
        positions.append(start)
        got.append(block.toarray())
    np.testing.assert_array_equal(np.concatenate(got), x[result.keep][:, genes])
    assert positions[0] == 0


def test_too_little_is_refused():
    x = counts(4)
    x[40:] = 0
    with pytest.raises(InputError, match=r"E251.*40 of 200 cells.*160 no counts"):
        scan(source(x), GraphConfig())
    sparse = np.zeros((200, 40), dtype=int)
    sparse[:, 0] = 1
    with pytest.raises(InputError, match="E253"):
        scan(source(sparse), GraphConfig())


def test_values_that_are_not_counts_are_refused():
    x = counts(5).astype(float)
    x[150, 3] = -1
    with pytest.raises(InputError, match="E203"):
        scan(source(x), GraphConfig(block_rows=10))
