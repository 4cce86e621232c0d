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

from benchmarks.synthetic import SyntheticCounts
from musegnn.data_store import ArraySource, blocks, open_matrix, validate_counts
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
    source = open_matrix(save(make_adata(X)))
    assert np.array_equal(gather(source, rows), counts.toarray())
    assert source.gene.tolist() == [f"Gene{i}" for i in range(30)]
    assert source.gene_id.tolist() == source.gene.tolist()
    assert source.coords is None
    assert [w[:4] for w in source.warnings] == (["W226"] if encoding == "csc" else [])


@pytest.mark.parametrize("dtype", [">f4", ">i4", ">f8"])
def test_numbers_of_the_other_byte_order_are_read(dtype, counts, make_adata, save):
    def edit(file):
        for part, kind in (("data", dtype), ("indices", ">i4"), ("indptr", ">i8")):
            values = file["X"][part][:].astype(kind)
            del file["X"][part]
            file["X"][part] = values

    source = open_matrix(save(make_adata(), edit))
    assert np.array_equal(gather(source, 50), counts.toarray())


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
        assert np.array_equal(gather(open_matrix(path, layer=layer), 50), factor * counts.toarray())


def test_unsorted_duplicate_and_zero_entries_are_made_canonical(counts, make_adata, save):
    data = np.array([1, 2, 3, 0, 5], dtype=np.float32)
    indices = np.array([4, 1, 4, 2, 0], dtype=np.int32)
    indptr = np.concatenate([[0, 3, 5], np.full(118, 5)]).astype(np.int32)
    adata = make_adata()

    def edit(file):
        for key, value in (("data", data), ("indices", indices), ("indptr", indptr)):
            del file["X"][key]
            file["X"][key] = value

    source = open_matrix(save(adata, edit))
    X = gather(source, 64)
    assert X.sum() == 11
    assert (X[0, 1], X[0, 4], X[1, 0], X[1, 2]) == (2, 4, 5, 0)
    assert source.n_merged() == 1


@pytest.mark.filterwarnings("ignore:Variable names are not unique")  # that is what is tested
def test_repeated_names_use_identifiers_where_given(make_adata, save):
    genes = ["A", "B", "A", *[f"g{i}" for i in range(27)]]
    adata = make_adata(genes=genes)
    adata.var["ids"] = [f"ENSG{i:011d}" for i in range(30)]
    source = open_matrix(save(adata), gene_id_key="ids")
    assert source.gene[:3].tolist() == ["ENSG00000000000", "B", "ENSG00000000002"]
    assert source.gene_id[1] == "ENSG00000000001"
    assert source.warnings == ["W210: 1 repeated gene names were replaced by identifiers: A"]


def test_versions_of_ensembl_identifiers_are_stripped(make_adata, save):
    source = open_matrix(save(make_adata(genes=[f"ENSG{i:011d}.{i % 7}" for i in range(30)])))
    assert source.gene[8] == "ENSG00000000008"
    assert source.warnings == ["W209: version suffixes of 30 Ensembl identifiers were stripped"]


def test_symbols_with_a_dot_are_left_alone(make_adata, save):
    source = open_matrix(save(make_adata(genes=["AL669831.5", *[f"RP11-{i}.2" for i in range(29)]])))
    assert source.gene[0] == "AL669831.5"


def test_other_features_than_genes_are_left_out(counts, make_adata, save):
    adata = make_adata()
    adata.var["feature_types"] = pd.Categorical(["Gene Expression"] * 25 + ["Antibody Capture"] * 5)
    source = open_matrix(save(adata))
    assert np.array_equal(gather(source, 50), counts.toarray()[:, :25])
    assert source.gene.tolist() == [f"Gene{i}" for i in range(25)]
    assert source.warnings == ["W218: 5 columns that are not genes were left out (Antibody Capture)"]


def test_columns_without_a_name_are_left_out(counts, make_adata, save):
    source = open_matrix(save(make_adata(genes=["A", "", *[f"g{i}" for i in range(28)]])))
    assert np.array_equal(gather(source, 50), np.delete(counts.toarray(), 1, axis=1))
    assert source.warnings == ["W241: 1 columns without a gene name were left out (first: column 1)"]


def test_spots_outside_the_tissue_are_left_out(counts, make_adata, save):
    adata = make_adata()
    adata.obsm["spatial"] = np.arange(240.0).reshape(120, 2)
    adata.obs["in_tissue"] = [1, 0, 1] * 40
    path = save(adata)
    source = open_matrix(path, spatial_key="spatial")
    used = np.array([1, 0, 1] * 40, dtype=bool)
    assert np.array_equal(gather(source, 16), counts.toarray()[used])
    assert np.array_equal(source.coords, adata.obsm["spatial"][used])
    assert source.warnings == ["W260: 40 of 120 spots are not under tissue and were left out"]
    assert open_matrix(path).n_cells == 120


def test_a_source_survives_pickling(counts, make_adata, save):
    source = pickle.loads(pickle.dumps(open_matrix(save(make_adata()))))
    assert np.array_equal(gather(source, 50), counts.toarray())


def test_fingerprint_is_of_the_bytes(make_adata, save):
    path = save(make_adata())
    raw = path.read_bytes()
    expected = {"name": "input.h5ad", "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    assert open_matrix(path).fingerprint() == expected


def test_summary_counts_what_is_there(make_adata, save):
    X = np.zeros((60, 5))
    X[:50, 0] = np.arange(50)
    X[:, 1] = 7
    X[3, 1] = 0
    summary = validate_counts(open_matrix(save(make_adata(X))), rows=13)
    assert (summary.n_cells, summary.n_genes, summary.n_values) == (60, 5, 108)
    assert (summary.total, summary.largest) == (int(X.sum()), 49)
    assert (summary.empty_cells, summary.empty_genes) == (0, 3)
    assert summary.median_depth == np.median(X.sum(axis=1))
    assert {w[:4] for w in summary.warnings} == {"W230", "W250"}


def test_equal_small_depths_are_suspicious(make_adata, save):
    X = np.zeros((60, 4))
    X[np.arange(60), np.arange(60) % 4] = 1
    assert any(w.startswith("W205") for w in validate_counts(open_matrix(save(make_adata(X)))).warnings)


def test_legacy_and_nullable_name_columns_are_read(make_adata, save):
    def edit(file):
        var = file["var"]
        var.create_group("symbol")
        var["symbol"]["values"] = np.array([f"S{i}" for i in range(30)], dtype=h5py.string_dtype())
        var["symbol"]["mask"] = np.zeros(30, dtype=bool)
        var["symbol"].attrs["encoding-type"] = "nullable-string-array"

    source = open_matrix(save(make_adata(), edit), gene_id_key="symbol")
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
        source = open_matrix(path)
        adata = ad.read_h5ad(path)
        assert source.gene.tolist() == adata.var_names.tolist()
        total = np.zeros(source.n_genes, dtype=np.int64)
        for _, block in source.blocks(1000):
            total += np.asarray(block.sum(axis=0)).ravel()
        assert np.array_equal(total, np.asarray(adata.X.sum(axis=0)).ravel())


# Ranges of cells


def rough(counts, seed):
    """Store the same counts as unsorted rows with zeros and with entries that are given in two parts."""
    rng = np.random.default_rng(seed)
    rows, columns = counts.nonzero()
    values = np.asarray(counts[rows, columns]).ravel()
    again = rng.random(len(rows)) < 0.2
    zero_rows, zero_columns = rng.integers(0, counts.shape[0], 50), rng.integers(0, counts.shape[1], 50)
    rows = np.concatenate([rows, rows[again], zero_rows])
    columns = np.concatenate([columns, columns[again], zero_columns])
    values = np.concatenate([values - np.where(again, 1, 0), np.ones(again.sum()), np.zeros(50)])
    order = rng.permutation(len(rows))
    order = order[np.argsort(rows[order], kind="stable")]
    indptr = np.searchsorted(rows[order], np.arange(counts.shape[0] + 1))
    stored = {"data": values[order].astype(np.float32), "indices": columns[order].astype(np.int32), "indptr": indptr}

    def edit(file):
        for key, value in stored.items():
            del file["X"][key]
            file["X"][key] = value

    return edit


def check_blocks(found, X, rows, start, stop, limit):
    """Compare with slices of the matrix; every block is as large as it may be."""
    position = start
    for place, block in found:
        assert place == position
        assert np.array_equal(block.toarray(), X[place : place + block.shape[0]])
        assert block.has_canonical_format
        assert block.data.dtype == block.indices.dtype == block.indptr.dtype == np.int32
        assert (block.data > 0).all()
        position += block.shape[0]
        assert block.shape[0] <= rows
        assert block.nnz <= limit or block.shape[0] == 1
        if position < stop and block.shape[0] < rows:
            assert block.nnz + (X[position] > 0).sum() > limit
    assert position == stop


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_range_is_the_slice(data, counts, make_adata, save):
    kind = data.draw(st.sampled_from(["csr", "csc", "dense", "rough", "array"]))
    limit = data.draw(st.sampled_from([1, 12, 40, 2**22]))
    X = counts.toarray()
    stored = {"csc": counts.tocsc(), "dense": X}.get(kind, counts)
    path = save(make_adata(stored), rough(counts, 1) if kind == "rough" else None)
    source = ArraySource(counts, [f"g{i}" for i in range(30)]) if kind == "array" else open_matrix(path)
    start = data.draw(st.integers(0, 120))
    stop = data.draw(st.integers(start, 120))
    rows = data.draw(st.integers(1, 130))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "MAX_ENTRIES", limit)
        checked = list(source.blocks(rows, start=start, stop=stop))
        again = list(source.blocks(rows, start=start, stop=stop, validate=False))
    check_blocks(checked, X, rows, start, stop, limit)
    check_blocks(again, X, rows, start, stop, limit)
    assert source.n_entries == {"dense": None, "rough": source.n_entries}.get(kind, counts.nnz)
    assert source.n_entries is None or source.n_entries >= counts.nnz


@pytest.mark.parametrize("chunks", [(16, 7), (50, 30), (120, 1), None])
def test_dense_matrices_are_read_by_whole_chunks(chunks, counts, make_adata, save, monkeypatch):
    def edit(file):
        del file["X"]
        file["X"] = file.create_dataset("Y", data=counts.toarray(), chunks=chunks)

    monkeypatch.setattr("musegnn.data_store.formats.arrays.DENSE_SLICE_BYTES", 30 * 4 * 37)
    source = open_matrix(save(make_adata(counts.toarray()), edit))
    check_blocks(source.blocks(50, start=3, stop=115), counts.toarray(), 50, 3, 115, 2**22)


def test_ranges_of_spots_under_tissue_cover_every_row_once(counts, make_adata, save):
    adata = make_adata()
    rng = np.random.default_rng(0)
    used = rng.random(120) < 0.6
    adata.obsm["spatial"] = rng.random((120, 2))
    adata.obs["in_tissue"] = used.astype(int)
    adata.obs["x"] = np.arange(120)
    source = open_matrix(save(adata), spatial_key="spatial")
    X, n = counts.toarray()[used], int(used.sum())
    for start, stop in ((0, n), (0, 10), (10, 11), (11, n), (n, n), (0, 0), (5, 5)):
        check_blocks(source.blocks(9, start=start, stop=stop), X, 9, start, stop, 2**22)
    assert source.n_entries == (X > 0).sum()
    assert np.array_equal(source.obs("x"), np.flatnonzero(used))
    bad = int(np.flatnonzero(~used)[3])
    adata.X = sp.csr_matrix(np.where(np.arange(120)[:, None] == bad, np.nan, counts.toarray()))
    source = open_matrix(save(adata, name="bad.h5ad"), spatial_key="spatial")
    failed = []
    for start in range(0, n, 10):
        try:
            list(source.blocks(4, start=start, stop=min(start + 10, n)))
        except InputError as error:
            failed.append(error.line())
    assert len(failed) == 1
    assert f"at cell {bad}, Gene0" in failed[0]


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_errors_of_a_range_count_what_is_in_it(kind, counts, make_adata, save):
    X = counts.toarray()
    X[[10, 50, 51, 90], 3] = -1
    source = open_matrix(save(make_adata(kind(X))))
    list(source.blocks(16, start=11, stop=50))
    with pytest.raises(InputError, match=r"E203.* 2 negative values.*-1 at cell 50, Gene3; -1 at cell 51, Gene3\)"):
        list(source.blocks(16, start=20, stop=90))
    with pytest.raises(InputError, match=r"E203.* 1 negative values.*at cell 90, Gene3\)"):
        list(source.blocks(16, start=90))


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_values_that_are_not_checked_do_no_harm(kind, counts, make_adata, save):
    X = counts.toarray().astype(np.float64)
    X[3, :5] = [np.nan, np.inf, -1, 1e300, 0.5]
    for _, block in open_matrix(save(make_adata(kind(X)))).blocks(16, validate=False):
        assert block.has_canonical_format
        assert block.nnz == 0 or 0 <= block.indices.min() <= block.indices.max() < 30


def test_structure_is_checked_without_values_too(make_adata, save):
    path = save(make_adata())
    source = open_matrix(path)
    with h5py.File(path, "r+") as file:
        file["X/indices"][5] = 10**6
    source._stamps = {file: file.stamp() for file in source._stamps}
    with pytest.raises(InputError, match="E102"):
        list(source.blocks(16, validate=False))
    list(source.blocks(16, start=60, validate=False))


def test_merged_duplicates_are_counted_by_range(counts, make_adata, save):
    path = save(make_adata(), rough(counts, 4))
    whole, parts, other = open_matrix(path), open_matrix(path), open_matrix(path)
    list(whole.blocks(16))
    for start in range(0, 120, 40):
        list(parts.blocks(16, start=start, stop=start + 40))
    list(parts.blocks(16, start=0, stop=40))
    list(other.blocks(16, validate=False))
    assert whole.warnings == parts.warnings
    assert whole.n_merged() > 0
    assert other.warnings == []
    assert sum(parts.n_merged(start, start + 40) for start in range(0, 120, 40)) == whole.n_merged()


def test_a_range_of_columns_needs_memory_for_the_range_alone(counts, make_adata, save, monkeypatch):
    source = open_matrix(save(make_adata(counts.tocsc())))
    monkeypatch.setattr("musegnn.data_store.formats.arrays.MAX_COLUMN_BYTES", 8 * counts.nnz)
    with pytest.raises(InputError, match=r"E226.*adata\.X\.tocsr"):
        list(source.blocks(50))
    check_blocks(source.blocks(50, start=40, stop=90), counts.toarray(), 50, 40, 90, 2**22)


def test_the_size_of_a_pickled_source_does_not_grow_with_the_cells(save, make_adata):
    sizes = [len(pickle.dumps(open_matrix(save(make_adata(sp.eye(n, 40, format="csr")))))) for n in (60, 60_000)]
    assert sizes[1] < sizes[0] + 200


@pytest.mark.parametrize("wrong", [{"start": -1}, {"stop": 121}, {"start": 7, "stop": 6}, {"rows": 0}])
def test_ranges_outside_the_cells_are_refused(wrong, counts, make_adata, save):
    for source in (open_matrix(save(make_adata())), ArraySource(counts, [f"g{i}" for i in range(30)])):
        with pytest.raises(ValueError, match=r"expected a range|rows must"):
            list(source.blocks(**({"rows": 5} | wrong)))


@pytest.mark.parametrize(("start", "stop", "rows"), [(0, 1200, 300), (0, 500, 500), (500, 1000, 700), (130, 1130, 77)])
def test_synthetic_counts_of_a_range(start, stop, rows):
    source = SyntheticCounts(1200, 40, 0.2, seed=3)
    X = source.load()[0].toarray()
    check_blocks(source.blocks(rows, start=start, stop=stop), X, rows, start, stop, 2**22)
    assert source.n_entries is None
    with pytest.raises(InputError, match="E255"):
        source.obs("x")


# Columns of obs


def test_every_kind_of_column_is_read(make_adata, save):
    adata = make_adata()
    kind = ["a", "b", None] * 40
    adata.obs["category"] = pd.Categorical(kind, categories=["b", "a", "unused"])
    adata.obs["number_category"] = pd.Categorical([1, 2, 3] * 40)
    adata.obs["text"] = np.array(["x", "ÿ", ""] * 40, dtype=object)
    adata.obs["integer"] = np.arange(120, dtype=np.int32)
    adata.obs["real"] = np.where(np.arange(120) % 2, np.nan, 0.5)
    adata.obs["truth"] = np.arange(120) % 2 == 0
    adata.obs["nullable"] = pd.array([1, None, 3] * 40, dtype="Int64")
    adata.obs["nullable_truth"] = pd.array([True, None, False] * 40, dtype="boolean")

    def edit(file):
        obs = file["obs"]
        obs["bytes"] = np.array([b"u", b"v", b""] * 40)
        obs["old"] = np.array([1, 0, -1] * 40, dtype=np.int8)
        obs.create_group("__categories")["old"] = np.array(["p", "q"], dtype=h5py.string_dtype())
        group = obs.create_group("nullable_text")
        group["values"] = np.array(["m", "n", "o"] * 40, dtype=h5py.string_dtype())
        group["mask"] = np.array([False, False, True] * 40)
        obs["matrix"] = np.zeros((120, 2))
        obs["short"] = np.zeros(119)
        obs["wrong"] = np.array([5, 0, -1] * 40, dtype=np.int8)
        obs["__categories"]["wrong"] = np.array(["p", "q"], dtype=h5py.string_dtype())

    source = open_matrix(save(adata, edit))
    expected = {
        "category": ["a", "b", ""],
        "number_category": ["1", "2", "3"],
        "text": ["x", "ÿ", ""],
        "bytes": ["u", "v", ""],
        "old": ["q", "p", ""],
        "nullable_text": ["m", "n", ""],
        "nullable": [1, np.nan, 3],
        "nullable_truth": [1, np.nan, 0],
    }
    for column, values in expected.items():
        found = source.obs(column)
        assert found.dtype.kind == ("U" if isinstance(values[0], str) else "f"), column
        assert np.array_equal(found, np.array(values * 40), equal_nan=found.dtype.kind == "f"), column
    for column in ("integer", "real", "truth"):
        assert np.array_equal(source.obs(column), adata.obs[column].to_numpy(dtype=np.float64), equal_nan=True)
        assert source.obs(column).dtype == np.float64
    for column in ("matrix", "short", "wrong"):
        with pytest.raises(InputError, match="E102"):
            source.obs(column)
    for column in ("none", "_index", "__categories", "old/values", "../X", ""):
        with pytest.raises(InputError, match=r"E255.*columns: bytes, category, integer, matrix, nullable, \.\.\.\)"):
            source.obs(column)


def test_a_column_that_is_a_link_is_refused(make_adata, save):
    def edit(file):
        file["obs"]["x"] = h5py.SoftLink("/var/_index")

    def old(file):
        file["obs"]["x"] = np.zeros(120, dtype=np.int8)
        file["obs"]["__categories"] = h5py.ExternalLink(str(secret), "/")

    secret = save(make_adata(), name="secret.h5ad")
    for change in (edit, old):
        with pytest.raises(InputError, match="E105"):
            open_matrix(save(make_adata(), change)).obs("x")


def test_columns_of_arrays(counts):
    genes = [f"g{i}" for i in range(30)]
    columns = {"a": np.array(["x", "y"] * 60, dtype=object), "b": np.arange(120), "c": np.arange(120) > 7}
    source = ArraySource(counts, genes, obs=columns)
    assert source.obs("a").dtype.kind == "U"
    assert np.array_equal(source.obs("a"), columns["a"])
    for key in "bc":
        assert source.obs(key).dtype == np.float64
        assert np.array_equal(source.obs(key), columns[key])
    with pytest.raises(InputError, match=r"E255.*columns: a, b, c"):
        source.obs("d")
    with pytest.raises(ValueError, match="expected the column 'a' of 120 cells"):
        ArraySource(counts, genes, obs={"a": np.arange(119)})
