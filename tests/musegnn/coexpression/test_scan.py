from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from musegnn.coexpression.scan import BLOCK_ROWS, ScannedCells, check_genes, cut_ranges, merge_scans, scan_range
from musegnn.coexpression.tasks import save
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


@pytest.fixture
def scan(tmp_path):
    def run(src, config, rows=BLOCK_ROWS):
        paths = []
        for cells in cut_ranges(src.n_cells, rows):
            paths.append(tmp_path / f"{len(list(tmp_path.iterdir()))}.npz")
            save(paths[-1], scan_range(src, config, cells))
        return merge_scans(src, config, paths)

    return run


def test_equals_the_definitions(scan):
    x = counts()
    x[:, 12] = 0
    x[:4, 12] = 9  # detected in four cells only
    x[17] = 0
    result = scan(source(x), GraphConfig(), 64)
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


@pytest.mark.parametrize(("one", "other"), [(1, 200), (37, 64), (199, 1000)])
def test_ranges_do_not_matter(scan, one, other):
    x = counts(one)
    x[::9] = 0
    a, b = (scan(source(x), GraphConfig(), rows) for rows in (one, other))
    np.testing.assert_array_equal(a.depth, b.depth)
    np.testing.assert_array_equal(a.stats.total_log1p, b.stats.total_log1p)
    np.testing.assert_array_equal(a.table.small, b.table.small)
    assert a.median_nonzero == b.median_nonzero


def test_quality_control_counts_each_cell_once(scan):
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


def test_kept_blocks_give_the_kept_counts(tmp_path):
    x = counts(3)
    x[40:90] = 0
    src, config = source(x), GraphConfig()
    genes = np.array([5, 30, 2])
    got, depths = [], []
    for part in cut_ranges(200, 64):
        save(tmp_path / "part.npz", scan_range(src, config, part))
        position = 0
        for cells, block, depth in ScannedCells(src, part, tmp_path / "part.npz").blocks(genes):
            assert block.dtype == np.int32
            assert cells == slice(position, position + block.shape[0])
            position = cells.stop
            got.append(block.toarray())
            depths.append(depth)
    keep = np.delete(x, [3, 7], axis=1).sum(1) > 0
    np.testing.assert_array_equal(np.concatenate(got), x[keep][:, genes])
    np.testing.assert_array_equal(np.concatenate(depths), np.delete(x, [3, 7], axis=1).sum(1)[keep])


def test_too_little_is_refused(scan):
    x = counts(4)
    x[40:] = 0
    with pytest.raises(InputError, match=r"E251.*40 of 200 cells.*160 no counts"):
        scan(source(x), GraphConfig())
    sparse = np.zeros((200, 40), dtype=int)
    sparse[:, 0] = 1
    with pytest.raises(InputError, match="E253"):
        scan(source(sparse), GraphConfig())


def test_values_that_are_not_counts_are_refused(scan):
    x = counts(5).astype(float)
    x[150, 3] = -1
    with pytest.raises(InputError, match="E203"):
        scan(source(x), GraphConfig(), 10)


def test_mitochondrial_bounds_need_mitochondrial_genes():
    src = ArraySource(csr_matrix(counts()), [f"G{j}" for j in range(40)])
    with pytest.raises(InputError, match="E254"):
        check_genes(src, GraphConfig(qc=QCConfig(max_mito=0.1)))
    check_genes(source(counts()), GraphConfig(qc=QCConfig(max_mito=0.1)))
