"""AnnData objects in memory: the same blocks, names, warnings and errors as from the file they would be."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from musegnn.data_store import open_matrix
from musegnn.errors import InputError


def rows(source, size=50):
    return sp.vstack([block for _, block in source.blocks(size)], format="csr")


def assert_same(adata, path, **options):
    held, filed = open_matrix(adata, **options), open_matrix(path, **options)
    np.testing.assert_array_equal(held.gene, filed.gene)
    np.testing.assert_array_equal(held.gene_id, filed.gene_id)
    assert held.n_cells == filed.n_cells
    assert held.n_entries == filed.n_entries
    assert [line for line in filed.warnings if "W226" not in line] == held.warnings
    if filed.coords is None:
        assert held.coords is None
    else:
        np.testing.assert_array_equal(held.coords, filed.coords)
    one, two = rows(held), rows(filed)
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(one, part), getattr(two, part))
    return held, filed


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csr_array, sp.csc_matrix, lambda X: X.toarray()])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint16])
def test_every_kind_of_matrix_gives_the_blocks_of_its_file(make_adata, save, counts, kind, dtype):
    adata = make_adata(kind(counts.astype(dtype)))
    before = adata.copy()
    path = save(adata)
    assert_same(adata, path)
    assert (adata.X != before.X).sum() == 0


def test_layers_and_raw_are_read_with_their_names(make_adata, save, counts):
    adata = make_adata(counts)
    adata.raw = make_adata(counts * 3, genes=[f"R{i}" for i in range(30)])
    adata.layers["counts"] = counts * 2
    adata.X = np.log1p(counts)
    path = save(adata)
    for layer in ("counts", "raw"):
        assert_same(adata, path, layer=layer)
    for source in (open_matrix(adata), open_matrix(path)):
        with pytest.raises(InputError, match=r"E201.*layer: counts"):
            rows(source)


def test_marked_spots_and_other_features_are_left_out_alike(make_adata, save, counts):
    adata = make_adata(counts)
    adata.obsm["spatial"] = np.random.default_rng(1).uniform(0, 9, (120, 2))
    adata.obsm["X_pca"] = np.zeros((120, 3))
    adata.obs["in_tissue"] = np.arange(120) % 3 > 0
    adata.var["feature_types"] = ["Gene Expression"] * 25 + ["Antibody Capture"] * 5
    path = save(adata)
    held, _ = assert_same(adata, path, spatial_key="spatial")
    assert (held.n_cells, held.n_genes) == (80, 25)
    for read, what in ((open_matrix, adata), (open_matrix, path)):
        with pytest.raises(InputError, match=r"E260.*entries: .*X_pca"):
            read(what, spatial_key="nowhere")


@pytest.mark.parametrize(
    "column",
    [
        ["a", "b", None] * 40,
        pd.Categorical(["a", "b", None] * 40),
        pd.array([True, False, None] * 40, dtype="boolean"),
        np.arange(120) % 2 == 0,
        np.tile([1.5, np.nan, 2.0], 40),
        pd.array(["x", None, "y"] * 40, dtype="string"),
    ],
)
def test_columns_of_cells_read_as_from_the_file(make_adata, save, column):
    adata = make_adata()
    adata.obs["label"] = column
    adata.obs["mixed"] = [1, "x", None] * 40  # which no file can hold
    held = open_matrix(adata)
    del adata.obs["mixed"]
    filed = open_matrix(save(adata))
    assert held.obs("label").dtype.kind == filed.obs("label").dtype.kind
    np.testing.assert_array_equal(held.obs("label"), filed.obs("label"))
    with pytest.raises(InputError, match=r"E255.*label"):
        held.obs("labels")


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_what_a_file_refuses_is_refused(make_adata, counts):
    for adata, code in (
        (make_adata(counts[:40]), "E251"),
        (make_adata(-counts), "E203"),
        (make_adata(genes=["A"] * 2 + [f"g{i}" for i in range(28)]), "E210"),
        (make_adata(None), "E220"),
    ):
        with pytest.raises(InputError, match=code):
            rows(open_matrix(adata))


def test_the_fingerprint_follows_what_is_read(make_adata, counts):
    def digest(adata, **options):
        return open_matrix(adata, **options).fingerprint()["sha256"]

    adata = make_adata(counts)
    first = digest(adata)
    assert digest(make_adata(sp.csc_matrix(counts))) == first == digest(make_adata(counts.toarray()))
    adata.obsm["X_umap"] = np.zeros((120, 2))
    adata.uns["note"] = "drawn"
    assert digest(adata) == first
    adata.obs["label"] = "x"
    assert digest(adata) != first
    assert digest(make_adata(counts * 2)) != first
    assert digest(make_adata(genes=[f"H{i}" for i in range(30)])) != first


def test_views_and_backed_objects_are_read(make_adata, save, counts):
    adata = make_adata(counts)
    assert (rows(open_matrix(adata[20:100])) != counts[20:100]).nnz == 0
    backed = ad.read_h5ad(save(adata), backed="r")
    assert (rows(open_matrix(backed)) != counts).nnz == 0
    assert (rows(open_matrix(backed[20:100])) != counts[20:100]).nnz == 0


ENSEMBL = [f"ENSG{i:011d}" for i in range(30)]


@pytest.mark.parametrize("column", ["feature_name", "gene_symbols", "gene_short_name", "SYMBOL", "Symbol"])
def test_ensembl_identifiers_are_named_by_the_column_of_symbols(make_adata, save, column):
    adata = make_adata(genes=ENSEMBL)
    adata.var[column] = ["MT-ND1", "MT-ND1", "", *[f"G{i}" for i in range(27)]]
    source, _ = assert_same(adata, save(adata))
    assert source.gene[:4].tolist() == [*ENSEMBL[:3], "G0"]
    assert source.gene_id.tolist() == ENSEMBL
    assert [line[:4] for line in source.warnings] == ["W219", "W210"]
    assert source.fingerprint()["gene_names"] == column


def test_gene_name_key_is_the_users_choice(make_adata, save):
    adata = make_adata(genes=ENSEMBL)
    adata.var["feature_name"] = [f"G{i}" for i in range(30)]
    adata.var["other"] = [f"Q{i}" for i in range(30)]
    adata.var["number"] = np.arange(30)
    path = save(adata)
    source, _ = assert_same(adata, path, gene_name_key="other")
    assert source.gene[0] == "Q0"
    assert source.warnings == []
    with pytest.raises(InputError, match=r"E255.*Fix: write `gene_name_key: feature_name`"):
        open_matrix(path, gene_name_key="Feature_names")


def test_symbols_stay_as_they_are(make_adata, save):
    adata = make_adata()
    adata.var["feature_name"] = ENSEMBL
    source, _ = assert_same(adata, save(adata))
    assert source.gene[0] == "Gene0"
    adata = make_adata(genes=ENSEMBL)
    adata.var["name"] = ENSEMBL
    source, _ = assert_same(adata, save(adata))
    assert source.gene.tolist() == ENSEMBL
