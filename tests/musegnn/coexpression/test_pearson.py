from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from benchmarks.peers.sctransform_in_memory import residuals
from musegnn.coexpression.counts import CountTable
from musegnn.coexpression.residuals import ResidualMoments
from musegnn.coexpression.sctransform import pearson_model


@pytest.fixture
def counts() -> csr_matrix:
    rng = np.random.default_rng(0)
    rate = rng.gamma(1.0, 1.0, (500, 80)) * rng.lognormal(-1.0, 1.0, 80) * rng.lognormal(0.0, 0.5, (500, 1))
    return csr_matrix(rng.poisson(rate).astype(np.int32))


def model_of(counts: csr_matrix):
    table = CountTable(counts.shape[1])
    table.update(counts, np.ones(counts.shape[0], dtype=bool))
    depth = np.asarray(counts.sum(axis=1), dtype=float).ravel()
    return pearson_model(table.stats(counts.shape[0]), float(depth.sum())), depth


def test_variances_and_residuals_are_those_of_scanpy(counts):
    sc = pytest.importorskip("scanpy", reason="scanpy is in the extra `bio`")
    import anndata as ad

    model, depth = model_of(counts)
    sums = ResidualMoments(model.noise(model.clip))
    sums.update(counts, depth)
    _, variance = sums.finish(depth)
    data = ad.AnnData(counts)
    ranked = sc.experimental.pp.highly_variable_genes(
        data, flavor="pearson_residuals", n_top_genes=20, check_values=False, inplace=False
    )
    n = counts.shape[0]
    np.testing.assert_allclose(variance * (n - 1) / n, ranked["residual_variances"], rtol=1e-12)
    dense = ad.AnnData(counts.toarray().astype(np.float64))
    sc.experimental.pp.normalize_pearson_residuals(dense, check_values=False)
    np.testing.assert_allclose(residuals(counts, depth, model), dense.X, rtol=0, atol=1e-12)


def test_a_gene_without_counts_has_no_model(counts):
    emptied = counts.toarray()
    emptied[:, 3] = 0
    model, _ = model_of(csr_matrix(emptied))
    assert np.flatnonzero(~model.has_model).tolist() == [3]
