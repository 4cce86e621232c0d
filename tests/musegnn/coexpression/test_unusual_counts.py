"""Counts at the edge of what can be computed give what docs/building.md says, in memory and in a build."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from benchmarks.peers.cscore_dense import cscore_dense
from musegnn.coexpression.build import build_dataset
from musegnn.coexpression.cscore import cscore
from musegnn.config import DatasetConfig, GraphConfig
from musegnn.data_store import ArraySource
from musegnn.errors import InputError

ALL = GraphConfig(selection="all", z_store=0.0, min_cells=1)
MODES = ("clamp", "drop", "reference")


@pytest.fixture
def usual() -> tuple[np.ndarray, np.ndarray]:
    """Draw counts of 300 cells x 8 genes that go together, all over-dispersed, and depths."""
    rng = np.random.default_rng(0)
    depth = rng.integers(500, 3000, 300)
    level = rng.gamma(2.0, 0.5, (300, 8)) * rng.gamma(4.0, 0.25, (300, 1))
    return rng.poisson(depth[:, None] * level * 4e-3), depth


def build(counts: np.ndarray, config: GraphConfig = ALL, modality: str = "scrna"):
    about = DatasetConfig(name="one", path="one", modality=modality, tissue="lung", species="human")
    return build_dataset(ArraySource(csr_matrix(counts), [f"G{j}" for j in range(counts.shape[1])]), about, config)


def z_of(record) -> np.ndarray:
    z = np.full((record.pairs.n_genes,) * 2, np.nan)
    z[np.repeat(np.arange(len(z)), np.diff(record.pairs.indptr)), record.pairs.indices] = record.pairs.z
    return z


def equals_the_dense_form(counts: np.ndarray, depth: np.ndarray) -> None:
    """Hold all pairs of genes with a positive variance against CS-CORE with dense matrices."""
    ours, peer = cscore(counts, depth), cscore_dense(counts.astype(float), depth.astype(float))
    both = np.ix_(peer.sigma > 0, peer.sigma > 0)
    assert peer.sigma.max() > 0
    np.testing.assert_allclose(ours.z[both], peer.z[both], rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.estimate[both], peer.estimate[both], rtol=0, atol=1e-9)


def off_diagonal(n: int) -> tuple[np.ndarray, ...]:
    return np.nonzero(~np.eye(n, dtype=bool))


def test_a_gene_without_counts_is_left_out_by_a_build(usual):
    counts, depth = usual
    counts[:, 3] = 0
    result, record = cscore(counts, depth), build(counts)
    assert np.isnan(result.z[3]).all()
    assert (np.delete(result.estimate[3], 3) == 0).all()
    assert record.genes.gene.tolist() == [f"G{j}" for j in range(8) if j != 3]
    assert record.report["genes_dropped"]["detected_in_few_cells"] == 1


def test_a_gene_with_one_count_has_z_and_no_estimate(usual):
    counts, depth = usual
    counts[:, 3] = 0
    counts[7, 3] = 1
    depth[7] = 2500  # one count in a cell of little depth would make the variance positive
    result = cscore(counts, depth)
    assert result.fit.sigma[3] < 0
    assert np.isfinite(result.z[3]).all()
    assert (np.delete(result.estimate[3], 3) == 0).all()
    # Under the Poisson variance the test of a gene in one cell is the other gene's residual there, of that cell's sign.
    other = np.delete(np.arange(8), 3)
    sign = np.sign(counts[7, other] - depth[7] * result.fit.mu[other])
    strong = np.abs(result.z[3, other]) > 0.5
    assert strong.any()
    assert (np.sign(result.z[3, other])[strong] == sign[strong]).all()
    assert "G3" in build(counts).genes.gene
    assert "G3" not in build(counts, ALL.model_copy(update={"min_cells": 5})).genes.gene


@pytest.mark.parametrize("mode", MODES)
def test_genes_of_negative_variance(usual, mode):
    counts, depth = usual
    counts[:, :3] = np.minimum(counts[:, :3], 1)
    result = cscore(counts, depth, negative_variance=mode)
    negative = result.fit.sigma < 0
    assert negative.tolist() == [True] * 3 + [False] * 5
    assert (result.estimate[negative][:, ~negative] == 0).all()
    peer = cscore_dense(counts.astype(float), depth.astype(float))
    rest = np.ix_(~negative, ~negative)
    np.testing.assert_allclose(result.z[rest], peer.z[rest], rtol=0, atol=1e-9)
    if mode == "drop":
        assert np.isnan(result.z[negative]).all()
    elif mode == "reference":
        np.testing.assert_allclose(result.z[negative], peer.z[negative], rtol=1e-9, atol=1e-9)
    else:
        x, s = counts.astype(float), depth.astype(float)[:, None]
        mu, variance = result.fit.mu, s * result.fit.mu + s**2 * np.maximum(result.fit.sigma, 0.0)
        weighted = s * (x - s * mu) / variance
        z = weighted.T @ weighted / np.sqrt((s**2 / variance).T @ (s**2 / variance))
        np.testing.assert_allclose(result.z, z, rtol=0, atol=1e-9)


def test_a_cell_of_depth_zero_is_dropped_and_counted(usual):
    counts, depth = usual
    with pytest.raises(ValueError, match="with 1 that are not"):
        cscore(counts, np.where(np.arange(300) == 4, 0, depth))
    more = np.vstack([counts, np.zeros((1, 8), counts.dtype)])
    record, expected = build(more), build(counts)
    assert record.report["cells_dropped"] == {"no_counts": 1 + int((counts.sum(1) == 0).sum())}
    np.testing.assert_array_equal(z_of(record), z_of(expected))


def test_a_gene_in_every_cell(usual):
    counts, depth = usual
    counts[:, 2] += 1
    counts[:, 5] += 40
    assert (counts[:, [2, 5]] > 0).all()
    equals_the_dense_form(counts, depth)


def test_counts_above_65535(usual):
    counts, depth = usual
    rng = np.random.default_rng(1)
    counts[:, 4] = rng.poisson(90_000 * rng.gamma(5.0, 0.2, 300))
    depth = depth + 200_000
    assert counts.max() > 2 * 65535
    equals_the_dense_form(counts, depth)
    record = build(counts)
    alone = cscore(counts, counts.sum(axis=1))
    np.testing.assert_allclose(z_of(record)[off_diagonal(8)], alone.z[off_diagonal(8)], rtol=1e-6)
    assert record.genes.mean[4] == pytest.approx(counts[:, 4].mean(), rel=1e-12)


@pytest.mark.parametrize("n", [1, 2])
def test_one_and_two_cells_give_numbers_in_memory_and_are_refused_by_a_build(n):
    counts = np.array([[3, 4, 1], [1, 9, 2]])[:n]
    result = cscore(counts, [10, 20][:n])
    assert np.isfinite(result.z).all()
    np.testing.assert_allclose(
        result.fit.mu, np.average(counts / [[10], [20]][:n], axis=0, weights=np.array([1, 4])[:n])
    )
    with pytest.raises(InputError, match="E251"):
        build(counts)


def test_no_cells_are_refused():
    with pytest.raises(ValueError, match="at least one cell"):
        cscore(np.zeros((0, 3)), [])


def test_two_genes(usual):
    counts, depth = usual
    equals_the_dense_form(counts[:, :2], depth)
    record = build(counts[:, :2])
    assert record.pairs.n_tests == 1
    kept = counts[:, :2].sum(axis=1) > 0
    alone = cscore(counts[kept, :2], counts[kept, :2].sum(axis=1))
    assert record.pairs.z == pytest.approx([alone.z[0, 1]] * 2, rel=1e-6)
    with pytest.raises(InputError, match="E253"):
        build(counts[:, :1])


@pytest.mark.parametrize("modality", ["scrna", "scatac"])
def test_wholly_binary_counts_are_poisson(modality):
    rng = np.random.default_rng(0)
    counts = (rng.random((300, 40)) < rng.uniform(0.1, 0.7, (300, 1)) * rng.uniform(0.3, 1.0, 40)).astype(int)
    assert (counts.var(axis=0, ddof=1) < counts.mean(axis=0)).all()
    record = build(counts, GraphConfig(), modality)
    model = record.report["residuals"]
    assert (model["poisson_genes"], model["step1_genes"], model["has_trend"]) == (40, 0, False)
    assert any(warning.startswith("W254: 40 of 40") for warning in record.report["warnings"])
    assert "W255: no gene kept a positive variance estimate" in " ".join(record.report["warnings"])
    assert record.report["cscore"]["converged"] is False
