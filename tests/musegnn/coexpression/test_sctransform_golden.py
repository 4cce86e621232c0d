"""sctransform v2 against the outputs of R sctransform 0.3.5 on the same counts."""

from __future__ import annotations

import gzip
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from benchmarks.peers.sctransform_in_memory import (
    gene_stats,
    residuals,
    sctransform,
    step_one_from_cells,
    step_one_from_sums,
)
from musegnn.coexpression.regularize import StepOne, regularize
from musegnn.coexpression.residuals import ResidualMoments, rank_variable
from musegnn.coexpression.sctransform import SCTModel


@pytest.fixture(scope="module")
def peer(shared):
    folder = shared / "golden"
    genes = np.array((folder / "sct_pbmc_genes.txt").read_text().split())
    cells = (folder / "sct_pbmc_cells.txt").read_text().split()
    triplet = pd.read_csv(folder / "sct_pbmc_counts_triplet.csv.gz")
    place = (triplet["j"].to_numpy() - 1, triplet["i"].to_numpy() - 1)
    counts = csr_matrix((triplet["x"].to_numpy(np.int32), place), shape=(len(cells), len(genes)))
    position = pd.Series(np.arange(len(genes)), index=genes)

    def table(name: str) -> pd.DataFrame:
        return pd.read_csv(folder / f"sct_v2_all_{name}.csv.gz", index_col=0)

    fit, step_one, attributes = table("model_pars_fit"), table("model_pars_step1"), table("gene_attr")
    raw = gzip.decompress((folder / "sct_v2_all_residuals_f64_genesXcells.bin.gz").read_bytes())
    return SimpleNamespace(
        genes=genes,
        counts=counts,
        depth=np.asarray(counts.sum(axis=1), np.float64).ravel(),
        stats=gene_stats(counts),
        kept=position[fit.index].to_numpy(),
        fit=fit,
        step_one=step_one,
        chosen=pd.Series(np.arange(len(fit)), index=fit.index)[step_one.index].to_numpy(),
        attributes=attributes,
        residuals=np.frombuffer(raw).reshape(len(cells), 200),
        ranked=(folder / "sct_v2_all_hvg_ranked.txt").read_text().split(),
    )


@pytest.fixture(scope="module")
def ours(peer):
    return sctransform(peer.counts)


def test_gene_attributes(peer):
    stats = peer.stats
    np.testing.assert_array_equal(peer.kept, np.flatnonzero(stats.n_detected >= 5))
    for value, column in ((stats.mean, "amean"), (stats.variance, "variance"), (stats.geometric_mean, "gmean")):
        np.testing.assert_allclose(value[peer.kept], peer.attributes[column], rtol=1e-12)


@pytest.mark.parametrize("fit", [step_one_from_cells, step_one_from_sums])
def test_step_one_parameters(peer, fit):
    genes = peer.chosen
    at = peer.kept[genes]
    fitted = fit(peer.counts[:, at], peer.depth, genes, peer.stats.mean[at], peer.stats.variance[at])
    theta = peer.step_one["theta"].to_numpy()
    np.testing.assert_array_equal(np.isinf(fitted.theta), np.isinf(theta))
    finite = np.isfinite(theta)
    error = np.abs(fitted.theta[finite] / theta[finite] - 1)
    assert np.median(error) < 3e-8
    assert error.max() < 5e-4
    np.testing.assert_allclose(fitted.intercept, peer.step_one["(Intercept)"], rtol=0, atol=1.4e-8)


def test_regularisation_given_the_step_one_parameters(peer):
    stats, kept = peer.stats, peer.kept
    result = regularize(
        StepOne(
            genes=peer.chosen,
            theta=peer.step_one["theta"].to_numpy(),
            intercept=peer.step_one["(Intercept)"].to_numpy(),
        ),
        geometric_mean=stats.geometric_mean[kept],
        mean=stats.mean[kept],
        variance=stats.variance[kept],
        mean_filtered_depth=stats.total[kept].sum() / stats.n_cells,
    )
    np.testing.assert_array_equal(result.outlier, peer.step_one["outlier"].to_numpy())
    np.testing.assert_allclose(result.theta, peer.fit["theta"], rtol=1e-12)
    np.testing.assert_allclose(result.intercept, peer.fit["(Intercept)"], rtol=1e-12)


def test_residuals_given_the_parameters(peer):
    intercept, theta = np.full((2, len(peer.genes)), np.nan)
    intercept[peer.kept], theta[peer.kept] = peer.fit["(Intercept)"], peer.fit["theta"]
    median = np.median(peer.counts.data)
    model = SCTModel(intercept=intercept, theta=theta, min_variance=(median / 5) ** 2, n_cells=len(peer.depth))
    first = peer.kept[:200]
    ours = residuals(peer.counts[:, first], peer.depth, model.take(first))
    np.testing.assert_allclose(ours, peer.residuals, rtol=1e-12, atol=1e-12)
    moments = ResidualMoments(model.noise(model.clip))
    moments.update(peer.counts, peer.depth)
    mean, variance = moments.finish(peer.depth)
    np.testing.assert_allclose(variance[peer.kept], peer.attributes["residual_variance"], rtol=1e-12)
    np.testing.assert_allclose(mean[peer.kept], peer.attributes["residual_mean"], rtol=0, atol=1e-12)
    assert peer.genes[rank_variable(variance)].tolist() == peer.ranked


def test_counts_to_residuals(peer, ours):
    np.testing.assert_array_equal(np.isinf(ours.model.theta[peer.kept]), np.isinf(peer.fit["theta"]))
    np.testing.assert_allclose(ours.model.theta[peer.kept], peer.fit["theta"], rtol=2e-7)
    np.testing.assert_allclose(ours.model.intercept[peer.kept], peer.fit["(Intercept)"], rtol=0, atol=2e-8)
    np.testing.assert_allclose(ours.residuals(peer.kept[:200]), peer.residuals, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.residual_variance[peer.kept], peer.attributes["residual_variance"], rtol=1e-6)


def test_counts_to_the_ranking_of_variable_genes(peer, ours):
    assert peer.genes[ours.ranking()].tolist() == peer.ranked
