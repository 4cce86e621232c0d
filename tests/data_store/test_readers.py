"""Counts come out of a file as they went in, whatever the encoding and the block size."""

from __future__ import annotations

import hashlib
import pickle

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musegnn.data_store import ArraySource, open_h5ad, validate_counts
from musegnn.errors import InputError


def gather(source, rows):
    """Stack all blocks, checking what each block promises."""
    parts = []
    position = 0
    for start, block in source.blocks(rows):
        assert start == position
        assert 0 < block.shape[0] <= rows
        assert block.data.dtype == np.int32
        assert block.indices.dtype == np.int32
        assert block.has_canonical_format
        assert (block.data > 0).all()
        position += block.shape[0]
        parts.append(block)
    assert position == source.n_cells
    return sp.vstack(parts).toarray()


@pytest.mark.parametrize("encoding", ["csr", "csc", "dense"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
@pytest.mark.parametrize("rows", [1, 7, 120, 5000])
def test_every_encoding_gives_the_matrix(encoding, dtype, rows, counts, make_adata, save):
    X = {"csr": counts, "csc": counts.tocsc(), "dense": counts.toarray()}[encoding].astype(dtype)
    source = open_h5ad(save(make_adata(X)))
    assert np.array_equal(gather(source, rows), counts.toarray())
    assert source.gene.tolist() == [f"Gene{i}" for i in range(30)]
    assert source.gene_id.tolist() == source.gene.tolist()
    assert source.coords is None
    assert [w[:4] for w in source.warnings] == (["W226"] if encoding == "csc" else [])


@given(rows=st.integers(1, 40), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_arrays_give_the_matrix_for_every_block_size(rows, seed):
    X = np.random.default_rng(seed).poisson(0.4, size=(23, 9))
    source = ArraySource(X, [f"g{i}" for i in range(9)])
    assert np.array_equal(gather(source, rows), X)


def test_layer_raw_and_x_are_told_apart(counts, make_adata, save):
    raw = make_adata(counts * 3)
    adata = make_adata(counts.toarray()[:, :30].copy())
    adata.layers["counts"] = counts * 2
    adata.raw = raw
    path = save(adata)
    for layer, factor in ((None, 1), ("counts", 2), ("raw", 3)):
        assert np.array_equal(gather(open_h5ad(path, layer=layer), 50), factor * counts.toarray())


def test_unsorted_duplicate_and_zero_entries_are_made_canonical(counts, make_adata, save):
    data = np.array([1, 2, 3, 0, 5], dtype=np.float32)
    indices = np.array([4, 1, 4, 2, 0], dtype=np.int32)
    indptr = np.concatenate([[0, 3, 5], np.full(118, 5)]).astype(np.int32)
    adata = make_adata()

    def edit(file):
        for key, value in (("data", data), ("indices", indices), ("indptr", indptr)):
            del file["X"][key]
            file["X"][key] = value

    source = open_h5ad(save(adata, edit))
    X = gather(source, 64)
    assert X.sum() == 11
    assert (X[0, 1], X[0, 4], X[1, 0], X[1, 2]) == (2, 4, 5, 0)
    assert source.warnings == ["W236: 1 duplicate entries of the sparse matrix were summed"]


@pytest.mark.filterwarnings("ignore:Variable names are not unique")  # that is what is tested
def test_repeated_names_use_identifiers_where_given(make_adata, save):
    genes = ["A", "B", "A", *[f"g{i}" for i in range(27)]]
    adata = make_adata(genes=genes)
    adata.var["ids"] = [f"ENSG{i:011d}" for i in range(30)]
    source = open_h5ad(save(adata), gene_id_key="ids")
    assert source.gene[:3].tolist() == ["ENSG00000000000", "B", "ENSG00000000002"]
    assert source.gene_id[1] == "ENSG00000000001"
    assert source.warnings == ["W210: 1 repeated gene names were replaced by identifiers: A"]


def test_versions_of_ensembl_identifiers_are_stripped(make_adata, save):
    source = open_h5ad(save(make_adata(genes=[f"ENSG{i:011d}.{i % 7}" for i in range(30)])))
    assert source.gene[8] == "ENSG00000000008"
    assert source.warnings == ["W209: version suffixes of 30 Ensembl identifiers were stripped"]


def test_symbols_with_a_dot_are_left_alone(make_adata, save):
    source = open_h5ad(save(make_adata(genes=["AL669831.5", *[f"RP11-{i}.2" for i in range(29)]])))
    assert source.gene[0] == "AL669831.5"


def test_other_features_than_genes_are_left_out(counts, make_adata, save):
    adata = make_adata()
    adata.var["feature_types"] = pd.Categorical(["Gene Expression"] * 25 + ["Antibody Capture"] * 5)
    source = open_h5ad(save(adata))
    assert np.array_equal(gather(source, 50), counts.toarray()[:, :25])
    assert source.gene.tolist() == [f"Gene{i}" for i in range(25)]
    assert source.warnings == ["W218: 5 columns that are not genes were left out (Antibody Capture)"]


def test_columns_without_a_name_are_left_out(counts, make_adata, save):
    source = open_h5ad(save(make_adata(genes=["A", "", *[f"g{i}" for i in range(28)]])))
    assert np.array_equal(gather(source, 50), np.delete(counts.toarray(), 1, axis=1))
    assert source.warnings == ["W241: 1 columns without a gene name were left out (first: column 1)"]


def test_spots_outside_the_tissue_are_left_out(counts, make_adata, save):
    adata = make_adata()
    adata.obsm["spatial"] = np.arange(240.0).reshape(120, 2)
    adata.obs["in_tissue"] = [1, 0, 1] * 40
    path = save(adata)
    source = open_h5ad(path, spatial_key="spatial")
    used = np.array([1, 0, 1] * 40, dtype=bool)
    assert np.array_equal(gather(source, 16), counts.toarray()[used])
    assert np.array_equal(source.coords, adata.obsm["spatial"][used])
    assert source.warnings == ["W260: 40 of 120 spots are not under tissue and were left out"]
    assert open_h5ad(path).n_cells == 120


def test_a_source_survives_pickling(counts, make_adata, save):
    source = pickle.loads(pickle.dumps(open_h5ad(save(make_adata()))))
    assert np.array_equal(gather(source, 50), counts.toarray())


def test_fingerprint_is_of_the_bytes(make_adata, save):
    path = save(make_adata())
    raw = path.read_bytes()
    expected = {"name": "input.h5ad", "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    assert open_h5ad(path).fingerprint() == expected


def test_summary_counts_what_is_there(make_adata, save):
    X = np.zeros((60, 5))
    X[:50, 0] = np.arange(50)
    X[:, 1] = 7
    X[3, 1] = 0
    summary = validate_counts(open_h5ad(save(make_adata(X))), rows=13)
    assert (summary.n_cells, summary.n_genes, summary.n_values) == (60, 5, 108)
    assert (summary.total, summary.largest) == (int(X.sum()), 49)
    assert (summary.empty_cells, summary.empty_genes) == (0, 3)
    assert summary.median_depth == np.median(X.sum(axis=1))
    assert {w[:4] for w in summary.warnings} == {"W230", "W250"}


def test_equal_small_depths_are_suspicious(make_adata, save):
    X = np.zeros((60, 4))
    X[np.arange(60), np.arange(60) % 4] = 1
    assert any(w.startswith("W205") for w in validate_counts(open_h5ad(save(make_adata(X)))).warnings)


def test_legacy_and_nullable_name_columns_are_read(make_adata, save):
    def edit(file):
        var = file["var"]
        var.create_group("symbol")
        var["symbol"]["values"] = np.array([f"S{i}" for i in range(30)], dtype=h5py.string_dtype())
        var["symbol"]["mask"] = np.zeros(30, dtype=bool)
        var["symbol"].attrs["encoding-type"] = "nullable-string-array"

    source = open_h5ad(save(make_adata(), edit), gene_id_key="symbol")
    assert source.gene_id[7] == "S7"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/x", "a/b", "<script>", "x" * 300, "ß\n", "..", "C:\\x"])
def test_any_gene_name_is_only_a_name(name, counts):
    genes = [name, *[f"g{i}" for i in range(29)]]
    assert ArraySource(counts, genes).gene[0] == name


@given(text=st.text(max_size=40))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bad_values_of_any_gene_name_give_one_line(text, counts):
    X = counts.toarray()
    X[0, 0] = np.nan
    try:
        source = ArraySource(X, [text, *[f"g{i}" for i in range(29)]])
        list(source.blocks(10))
    except InputError as error:
        line = error.line()
        assert "\n" not in line
        assert len(line) <= 300
    else:
        pytest.fail("NaN was accepted")


def test_real_files_agree_with_anndata(root):
    for path in sorted((root / "examples" / "atlas").glob("*.h5ad")):
        source = open_h5ad(path)
        adata = ad.read_h5ad(path)
        assert source.gene.tolist() == adata.var_names.tolist()
        total = np.zeros(source.n_genes, dtype=np.int64)
        for _, block in source.blocks(1000):
            total += np.asarray(block.sum(axis=0)).ravel()
        assert np.array_equal(total, np.asarray(adata.X.sum(axis=0)).ravel())
