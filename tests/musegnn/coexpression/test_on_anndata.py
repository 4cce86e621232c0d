"""The functions on AnnData: results of the peers under the keys of scanpy, and refusals in words."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_matrix, csr_matrix

import musegnn as mg
from musegnn.coexpression import cscore as cscore_module
from musegnn.coexpression import sparkx as sparkx_module
from musegnn.errors import InputError


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    level = np.ones((300, 40))
    place = rng.uniform(0, 10, (300, 2))
    level[:, :10] *= rng.gamma(2.0, 0.5, (300, 1))
    level[:, 10:13] *= np.where(place[:, :1] > 5, 4.0, 1.0)
    counts = rng.poisson(level * rng.lognormal(1.0, 0.3, (300, 1)))
    counts[:, 39] = 0
    counts[7] = 0
    found = ad.AnnData(csr_matrix(counts.astype(np.float32)))
    found.var_names = [f"G{j}" for j in range(40)]
    found.obsm["spatial"] = place
    return found


def triplet(path, n_cells, n_genes):
    table = pd.read_csv(path)
    place = (table["j"].to_numpy() - 1, table["i"].to_numpy() - 1)
    return csr_matrix((table["x"].to_numpy(np.int32), place), shape=(n_cells, n_genes))


def test_cscore_writes_what_the_function_on_matrices_gives(adata):
    before = adata.X.copy()
    assert mg.cscore(adata) is None
    assert (before != adata.X).nnz == 0
    filled = np.asarray(adata.X.sum(axis=1)).ravel() > 0
    depth = np.asarray(adata.X.sum(axis=1), dtype=float).ravel()[filled]
    expected = cscore_module.cscore(adata.X[filled], depth)
    np.testing.assert_array_equal(adata.varp["cscore"], expected.estimate)
    np.testing.assert_array_equal(adata.varp["cscore_z"], expected.z)
    np.testing.assert_array_equal(adata.varp["cscore_pval"], expected.p_value)
    np.testing.assert_array_equal(adata.var["cscore_mu"], expected.fit.mu)
    assert adata.varp["cscore_z"][:10, :10][np.triu_indices(10, 1)].min() > 3
    assert adata.uns["cscore"]["params"]["n_cells"] == 299


def test_cscore_of_some_genes_uses_the_depth_over_all(adata):
    chosen = ["G3", "G1", "G12", "G30"]
    some = mg.cscore(adata, genes=chosen, key_added="c", copy=True)
    assert "c" not in adata.varp
    place = [1, 3, 12, 30]
    depth = np.asarray(adata.X.sum(axis=1), dtype=float).ravel()
    expected = cscore_module.cscore(adata.X[depth > 0][:, place], depth[depth > 0])
    np.testing.assert_array_equal(some.varp["c_z"].toarray()[np.ix_(place, place)], expected.z)
    assert some.varp["c"].nnz == 16
    assert np.isnan(some.var["c_mu"]).sum() == 36
    adata.var["highly_variable"] = adata.var_names.isin(chosen)
    by_column = mg.cscore(adata, key_added="c", copy=True)
    assert (by_column.varp["c_z"] != some.varp["c_z"]).nnz == 0
    adata.obs["total"] = np.asarray(adata.X.sum(axis=1)).ravel()
    adata.X = csc_matrix(adata.X)
    given = mg.cscore(adata, genes=chosen, depth_key="total", key_added="c", copy=True)
    assert (given.varp["c_z"] != some.varp["c_z"]).nnz == 0


def test_cscore_equals_r(shared):
    golden = np.load(shared / "golden/cscore_mic500_R.npz")
    given = np.load(shared / "golden/cscore_mic500_input.npz", allow_pickle=False)
    counts = csr_matrix((given["data"], given["indices"], given["indptr"]), shape=tuple(given["shape"]))
    adata = ad.AnnData(counts, obs={"depth": given["seq_depth"]})
    mg.cscore(adata, depth_key="depth")
    np.testing.assert_allclose(adata.varp["cscore"], golden["est"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(adata.varp["cscore_z"], golden["test_stat"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(adata.varp["cscore_pval"], golden["p_value"], rtol=0, atol=1e-9)


def test_sctransform_equals_r(shared):
    folder = shared / "golden"
    genes = (folder / "sct_pbmc_genes.txt").read_text().split()
    cells = (folder / "sct_pbmc_cells.txt").read_text().split()
    counts = triplet(folder / "sct_pbmc_counts_triplet.csv.gz", len(cells), len(genes))
    adata = ad.AnnData(counts, var=pd.DataFrame(index=genes))
    mg.sctransform(adata, n_top_genes=100)
    fit = pd.read_csv(folder / "sct_v2_all_model_pars_fit.csv.gz", index_col=0)
    attributes = pd.read_csv(folder / "sct_v2_all_gene_attr.csv.gz", index_col=0)
    np.testing.assert_allclose(adata.var.loc[fit.index, "sctransform_theta"], fit["theta"], rtol=2e-7)
    np.testing.assert_allclose(adata.var.loc[fit.index, "sctransform_intercept"], fit["(Intercept)"], atol=2e-8)
    variance = adata.var.loc[attributes.index, "residual_variances"]
    np.testing.assert_allclose(variance, attributes["residual_variance"], rtol=1e-6)
    ranked = (folder / "sct_v2_all_hvg_ranked.txt").read_text().split()[:100]
    marked = adata.var[adata.var["highly_variable"]].sort_values("highly_variable_rank")
    assert marked.index.tolist() == ranked


def test_residuals_go_into_a_pca_of_scanpy(adata):
    sc = pytest.importorskip("scanpy")
    mg.sctransform(adata, n_top_genes=20)
    assert adata.var["highly_variable"].sum() == 20
    assert adata.obsm["sctransform"].shape == (300, 20)
    assert adata.obsm["sctransform"].dtype == np.float32
    assert len(adata.uns["sctransform"]["genes"]) == 20
    assert np.isnan(adata.var["sctransform_theta"]["G39"])
    bound = np.sqrt(299 / 30)
    assert np.abs(adata.obsm["sctransform"]).max() <= bound + 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.neighbors(adata, use_rep="sctransform", n_neighbors=10)
    assert adata.obsp["connectivities"].nnz > 0


def test_sparkx_finds_the_planted_genes_and_equals_the_function_on_matrices(adata, tmp_path):
    mg.sparkx(adata)
    expected = sparkx_module.sparkx(csr_matrix(adata.X), adata.obsm["spatial"])
    np.testing.assert_array_equal(adata.var["sparkx_pval"], expected.p)
    np.testing.assert_array_equal(adata.varm["sparkx_stats"], expected.statistic)
    assert set(adata.uns["sparkx"]["genes"][:3]) == {"G10", "G11", "G12"}
    assert (adata.var["sparkx_qval"] < 0.05).sum() == 3
    assert np.isnan(adata.var["sparkx_pval"]["G39"])
    mg.cscore(adata)
    mg.sctransform(adata, n_top_genes=10)
    adata.write_h5ad(tmp_path / "all.h5ad")
    again = ad.read_h5ad(tmp_path / "all.h5ad")
    np.testing.assert_array_equal(again.varp["cscore_z"], adata.varp["cscore_z"])
    assert list(again.uns["sparkx"]["kernels"]) == list(expected.kernels)


def test_sparkx_statistics_equal_r(shared):
    folder = shared / "golden"
    coords = pd.read_csv(folder / "sparkx_bc_coords.csv")
    genes = (folder / "sparkx_bc_genes.txt").read_text().split()
    places = coords.select_dtypes("number").to_numpy(np.float64)[:, -2:]
    counts = triplet(folder / "sparkx_bc_counts_triplet.csv.gz", len(places), len(genes))
    adata = ad.AnnData(counts, var=pd.DataFrame(index=genes), obsm={"spatial": places})
    mg.sparkx(adata)
    peer = pd.read_csv(folder / "sparkx_bc_stats.csv.gz", index_col=0)
    ours = pd.DataFrame(adata.varm["sparkx_stats"], index=genes).loc[peer.index]
    np.testing.assert_allclose(ours, peer, rtol=1e-10)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda a: mg.cscore(a, layer="nothing"), "E220"),
        (lambda a: mg.cscore(a, genes="nothing"), "E255"),
        (lambda a: mg.cscore(a, genes=["G1", "TP53"]), "E420"),
        (lambda a: mg.cscore(a, depth_key="nothing"), "E255"),
        (lambda a: mg.sparkx(a, spatial_key="nothing"), "E260"),
        (lambda a: mg.sparkx(a, covariates=["nothing"]), "E263"),
        (lambda a: mg.sctransform(a, min_cells=400), "E253"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(adata, call, code):
    with pytest.raises(InputError) as caught:
        call(adata)
    assert caught.value.code == code
    assert "Fix: " in caught.value.line()


@pytest.mark.parametrize("function", [mg.cscore, mg.sctransform, mg.sparkx])
def test_normalised_values_are_refused_with_the_layer_of_counts(adata, function):
    adata.layers["counts"] = adata.X.copy()
    adata.X = csr_matrix(np.log1p(adata.X))
    with pytest.raises(InputError, match=r'E201.*layer="counts"'):
        function(adata)
    function(adata, layer="counts")
