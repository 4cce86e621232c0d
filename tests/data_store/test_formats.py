"""The same counts come out of every format, with the same names, and the same blocks."""

from __future__ import annotations

import pickle

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from musegnn.data_store import open_matrix, validate_counts
from musegnn.errors import InputError
from tests.data_store.refusal import refuse
from tests.data_store.written import (
    BARCODES,
    FORMATS,
    IDS,
    SYMBOLS,
    TABLES,
    C,
    G,
    make_adata,
    write_10x_h5,
    write_h5ad,
    write_h5mu,
    write_loom,
    write_table,
    write_visium,
    write_visium_hd,
    write_xenium,
    write_zarr,
)


@pytest.fixture
def adata(counts):
    return make_adata(counts)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_blocks_and_names(name, adata, tmp_path):
    path, options = FORMATS[name](adata, tmp_path)
    source = pickle.loads(pickle.dumps(open_matrix(path, **options)))
    assert source.gene.tolist() == SYMBOLS
    assert source.gene_id.tolist() == IDS
    X = adata.X.toarray()
    for start, stop in ((0, C), (37, 90), (5, 5)):
        found = [block for _, block in source.blocks(16, start=start, stop=stop)]
        assert all(block.has_canonical_format and block.dtype == np.int32 for block in found)
        assert np.array_equal(sp.vstack(found).toarray() if found else X[:0], X[start:stop])
    assert validate_counts(source).n_values == adata.X.nnz
    assert set(source.fingerprint()) >= {"name", "bytes", "sha256"}


@pytest.mark.parametrize("name", TABLES)
def test_tables_give_the_same_blocks(name, adata, tmp_path):
    file, delimiter, options = TABLES[name]
    path, options = write_table(adata, tmp_path, file, delimiter, **options)
    if options:
        with pytest.raises(InputError, match="E216"):
            open_matrix(path)
    source = pickle.loads(pickle.dumps(open_matrix(path, **options)))
    assert source.gene.tolist() == IDS
    X = adata.X.toarray()
    for start, stop in ((0, C), (37, 90), (110, C)):
        found = [block for _, block in source.blocks(16, start=start, stop=stop)]
        assert np.array_equal(sp.vstack(found).toarray(), X[start:stop])


@pytest.mark.parametrize("kind", ["v1", "v2", "parquet"])
def test_positions_of_space_ranger_are_coordinates(kind, adata, tmp_path):
    path, _ = write_visium(adata, tmp_path, kind)
    source = open_matrix(path, spatial_key="spatial")
    used = np.arange(C) % 3 > 0
    assert np.array_equal(source.coords, adata.obsm["spatial"][used])
    assert source.obs("array_row").tolist() == np.flatnonzero(used).tolist()
    assert any(w.startswith("W260: 40 of 120") for w in source.warnings)


def test_a_folder_of_visium_hd_is_read_by_the_size_of_its_squares(adata, tmp_path):
    out = write_visium_hd(adata, tmp_path)
    refuse(out, "E233", "Visium HD", "square_002um", "segmented_outputs", "add the one to read to `path`, as ")
    used = np.arange(C) % 3 > 0
    for place in (out / "binned_outputs" / "square_008um", out / "binned_outputs" / "square_002um"):
        source = open_matrix(place, spatial_key="spatial")
        assert np.array_equal(source.coords, adata.obsm["spatial"][used])
    refuse(out / "binned_outputs", "E233", "square_008um")
    cells = out / "segmented_outputs"
    assert open_matrix(cells).n_cells == C
    refuse(cells, "E260", "Fix: ", spatial_key="spatial")


@pytest.mark.parametrize(("table", "matrix"), [("parquet", "h5"), ("csv", "h5"), ("parquet", "mtx")])
def test_a_folder_of_xenium(table, matrix, adata, tmp_path):
    source = open_matrix(write_xenium(adata, tmp_path, table=table, matrix=matrix), spatial_key="spatial")
    assert np.array_equal(source.coords, adata.obsm["spatial"])
    assert source.obs("cell_area").tolist() == (np.arange(C) + 3).tolist()
    assert np.array_equal(sp.vstack([block for _, block in source.blocks(50)]).toarray(), adata.X.toarray())


def test_damaged_positions_are_one_line(adata, tmp_path):
    path, _ = write_visium(adata, tmp_path, "parquet")
    table = path.parent / "spatial" / "tissue_positions.parquet"
    whole = table.read_bytes()
    for damaged in (whole[:-20], whole[:200] + bytes(200) + whole[400:], b"PAR1" + bytes(50) + whole[54:], b""):
        table.write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            open_matrix(path, spatial_key="spatial")
        assert caught.value.code in {"E231", "E260", "E240"}
        assert "\n" not in caught.value.line()


@pytest.mark.parametrize("name", ["h5ad", "zarr v2", "zarr v3", "loom", "h5mu"])
def test_labels_and_coordinates_come_along(name, adata, tmp_path):
    path, options = FORMATS[name](adata, tmp_path)
    source = open_matrix(path, spatial_key="spatial", **options)
    assert np.array_equal(source.coords, adata.obsm["spatial"])
    assert source.obs("type").tolist() == adata.obs["type"].tolist()
    assert source.description.labels["type"] == 2


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_layers_dense_and_by_column(version, counts, adata, tmp_path):
    adata.layers["dense"] = counts.toarray()
    adata.layers["columns"] = counts.tocsc()
    adata.X = counts * 2
    path, _ = write_zarr(adata, tmp_path, version)
    for layer in ("dense", "columns"):
        source = open_matrix(path, layer=layer)
        assert np.array_equal(sp.vstack([b for _, b in source.blocks(7)]).toarray(), counts.toarray())


def test_loom_layers(adata, tmp_path):
    path, _ = write_loom(adata, tmp_path)
    found = sp.vstack([b for _, b in open_matrix(path, layer="spliced").blocks(50)])
    assert np.array_equal(found.toarray(), 2 * adata.X.toarray())


@pytest.mark.parametrize("by", ["h5ad csr", "h5ad csc", "h5ad dense"])
def test_a_transposed_file_is_turned_when_asked(by, adata, tmp_path):
    X = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": lambda m: m.toarray()}[by.split()[1]](adata.X.T)
    ad.AnnData(X, obs=adata.var, var=adata.obs).write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(InputError, match=r"E216.*transpose: true"):
        open_matrix(tmp_path / "x.h5ad")
    source = open_matrix(tmp_path / "x.h5ad", transpose=True, gene_id_key="gene_ids")
    assert source.gene.tolist() == SYMBOLS
    assert np.array_equal(sp.vstack([b for _, b in source.blocks(50)]).toarray(), adata.X.toarray())


def test_modalities_are_listed(adata, tmp_path):
    path, _ = write_h5mu(adata, tmp_path)
    with pytest.raises(InputError, match=r"E222.*prot, rna.*mod: prot"):
        open_matrix(path)
    with pytest.raises(InputError, match=r"E222.*no `mod: gex`"):
        open_matrix(path, mod="gex")
    renamed = path.rename(tmp_path / "renamed.h5ad")
    assert open_matrix(renamed, mod="rna").n_genes == G
    with pytest.raises(InputError, match="E222"):
        open_matrix(write_h5ad(adata, tmp_path)[0], mod="rna")


def test_genomes_of_version_2_are_listed(adata, tmp_path):
    path, _ = write_10x_h5(adata, tmp_path, 2)
    with h5py.File(path, "r+") as file:
        file.copy("GRCh38", "mm10")
    with pytest.raises(InputError, match=r"E222.*GRCh38, mm10"):
        open_matrix(path)
    assert open_matrix(path, mod="mm10").n_genes == G


def test_other_features_of_10x_are_left_out(adata, tmp_path):
    path, _ = write_10x_h5(adata, tmp_path, 3)
    with h5py.File(path, "r+") as file:
        kinds = file["matrix/features/feature_type"][()].astype("S20")
        del file["matrix/features/feature_type"]
        kinds[25:] = b"Antibody Capture"
        file["matrix/features/feature_type"] = kinds
    source = open_matrix(path)
    assert source.gene.tolist() == SYMBOLS[:25]
    assert source.description.kinds == {"Antibody Capture": 5, "Gene Expression": 25}
    assert any(w.startswith("W218") for w in source.warnings)


def test_tables_of_anndata_before_0_7(counts, tmp_path):
    path = tmp_path / "old.h5ad"
    with h5py.File(path, "w") as file:
        obs = np.zeros(C, dtype=[("index", "S20"), ("type", "i1")])
        obs["index"], obs["type"] = np.array(BARCODES, "S"), np.arange(C) % 2
        var = np.zeros(G, dtype=[("index", "S20"), ("gene_ids", "S20")])
        var["index"], var["gene_ids"] = np.array(SYMBOLS, "S"), np.array(IDS, "S")
        file["obs"], file["var"] = obs, var
        file["uns/type_categories"] = np.array(["a", "b"], "S")
        obsm = np.zeros(C, dtype=[("spatial", "f8", (2,))])
        obsm["spatial"] = np.random.default_rng(0).random((C, 2))
        file["obsm"] = obsm
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", np.array([C, G])
        for key in ("data", "indices", "indptr"):
            group[key] = getattr(counts, key)
    source = open_matrix(path, gene_id_key="gene_ids", spatial_key="spatial")
    assert source.gene.tolist() == SYMBOLS
    assert source.obs("type").tolist() == ["a", "b"] * 60
    assert np.array_equal(source.coords, obsm["spatial"])
    assert np.array_equal(sp.vstack([b for _, b in source.blocks(50)]).toarray(), counts.toarray())


def test_one_large_chunk_is_unpacked_once_per_pass(counts, adata, tmp_path, monkeypatch):
    path = tmp_path / "chunk.h5ad"
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        for key in ("data", "indices"):
            values = file[f"X/{key}"][()]
            del file[f"X/{key}"]
            file.create_dataset(f"X/{key}", data=values, chunks=values.shape, compression="gzip")
    monkeypatch.setattr("musegnn.data_store.formats.arrays.LARGE_CHUNK_BYTES", 1000)
    monkeypatch.setattr("musegnn.data_store.blocks.MAX_ENTRIES", 50)
    source = open_matrix(path)
    assert source.access == "sequential"
    reads = []
    read = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, key: reads.append(self.name) or read(self, key))
    found = sp.vstack([b for _, b in source.blocks(10)])
    assert reads.count("/X/data") == 1
    assert np.array_equal(found.toarray(), counts.toarray())


@pytest.mark.parametrize(("cells", "access"), [(4000, "rows"), (60_000, "sequential")])
def test_chunks_of_several_ranges_are_unpacked_once(cells, access, tmp_path):
    counts = sp.csr_matrix(np.ones((cells, 20), dtype=np.float32))
    path = tmp_path / "chunk.h5ad"
    ad.AnnData(counts, var=pd.DataFrame(index=pd.Index([f"G{i}" for i in range(20)]))).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        for key in ("data", "indices"):
            values = file[f"X/{key}"][()]
            del file[f"X/{key}"]
            file.create_dataset(f"X/{key}", data=values, chunks=values.shape, compression="gzip")
    assert open_matrix(path).access == access


def test_links_out_of_a_zarr_folder_are_refused(adata, tmp_path):
    path, _ = write_zarr(adata, tmp_path, 3)
    secret = tmp_path / "secret"
    secret.write_text("x")
    (path / "obs" / "link").symlink_to(secret)
    with pytest.raises(InputError, match="E105"):
        open_matrix(path)


def test_a_damaged_zarr_folder_is_one_line(adata, tmp_path):
    path, _ = write_zarr(adata, tmp_path, 3)
    next((path / "X" / "data").rglob("0")).write_bytes(b"junk")
    with pytest.raises(InputError, match="E231"):
        list(open_matrix(path).blocks(50))
