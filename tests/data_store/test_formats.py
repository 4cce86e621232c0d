"""The same counts come out of every format, with the same names, and the same blocks."""

from __future__ import annotations

import gzip
import pickle
import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from musegnn.data_store import open_matrix, validate_counts
from musegnn.errors import InputError

C, G = 120, 30
SYMBOLS = [f"Gene{i}" for i in range(G)]
IDS = [f"ENSG{i:011d}" for i in range(G)]
BARCODES = [f"{''.join('ACGT'[(i >> 2 * k) & 3] for k in range(10))}-1" for i in range(C)]


@pytest.fixture
def adata(counts):
    """Counts with names, identifiers, kinds, labels and coordinates."""
    obs = pd.DataFrame({"type": pd.Categorical(["a", "b", "b"] * 40), "n": np.arange(C)}, index=BARCODES)
    var = pd.DataFrame({"gene_ids": IDS, "feature_types": "Gene Expression"}, index=SYMBOLS)
    data = ad.AnnData(counts, obs=obs, var=var)
    data.obsm["spatial"] = np.random.default_rng(0).random((C, 2))
    return data


def write_h5ad(adata, folder):
    adata.write_h5ad(folder / "x.h5ad")
    return folder / "x.h5ad", {"gene_id_key": "gene_ids"}


def write_zarr(adata, folder, version):
    with ad.settings.override(zarr_write_format=version), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "zarr v3 autosharding|Writing zarr v2|Consolidated metadata", UserWarning
        )  # about what will change
        adata.write_zarr(folder / "x.zarr")
    return folder / "x.zarr", {"gene_id_key": "gene_ids"}


def write_h5mu(adata, folder):
    """Write MuData by its description: an AnnData for each modality below ``mod``."""
    path = folder / "x.h5mu"
    with h5py.File(path, "w") as file:
        file.create_group("obs")
        for name in ("rna", "prot"):
            ad.io.write_elem(file, f"mod/{name}", adata if name == "rna" else adata[:, :3].copy())
    return path, {"gene_id_key": "gene_ids", "mod": "rna"}


def write_10x_h5(adata, folder, version):
    path = folder / f"v{version}.h5"
    X = sp.csr_matrix(adata.X).astype(np.int32)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        group["barcodes"] = np.array(BARCODES, dtype="S")
        for key in ("data", "indices", "indptr"):
            group[key] = getattr(X, key)
        group["shape"] = np.array([G, C])
        if version == 3:
            features = group.create_group("features")
            names = {"id": IDS, "name": SYMBOLS, "feature_type": ["Gene Expression"] * G, "genome": ["GRCh38"] * G}
            for key, values in names.items():
                features[key] = np.array(values, dtype="S")
        else:
            group["genes"], group["gene_names"] = np.array(IDS, dtype="S"), np.array(SYMBOLS, dtype="S")
    return path, {}


def write_loom(adata, folder):
    path = folder / "x.loom"
    with h5py.File(path, "w") as file:
        file.create_dataset("matrix", data=adata.X.toarray().T, chunks=(16, 16), compression="gzip")
        file["row_attrs/Gene"], file["row_attrs/Accession"] = np.array(SYMBOLS, "S"), np.array(IDS, "S")
        file["col_attrs/CellID"] = np.array(BARCODES, "S")
        file["col_attrs/type"] = np.array(adata.obs["type"].tolist(), "S")
        file["col_attrs/spatial"] = adata.obsm["spatial"]
        file["layers/spliced"] = adata.X.toarray().T * 2
    return path, {}


def put(path, text, *, packed):
    """Write a text file; gzip, if `packed`, whatever its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


def triplets(X, *, kind="integer", cells_first=False, order=None):
    """Make the text of a Matrix Market file; 10x orders lines by cell."""
    coo = sp.csr_matrix(X).tocoo()
    order = np.arange(coo.nnz) if order is None else order
    rows, columns = (coo.row, coo.col) if cells_first else (coo.col, coo.row)
    size = X.shape if cells_first else X.shape[::-1]
    lines = [f"{rows[i] + 1} {columns[i] + 1} {int(coo.data[i])}" for i in order]
    header = f"%%MatrixMarket matrix coordinate {kind} general\n%a comment\n{size[0]} {size[1]} {coo.nnz}\n"
    return header + "\n".join(lines) + "\n"


FEATURES = "".join(f"{i}\t{name}\tGene Expression\n" for i, name in zip(IDS, SYMBOLS, strict=True))


def write_mtx(adata, folder, version, prefix="", *, packed=True):
    gz = ".gz" if packed else ""
    put(folder / f"{prefix}matrix.mtx{gz}", triplets(adata.X), packed=packed)
    put(folder / f"{prefix}barcodes.tsv{gz}", "\n".join(BARCODES) + "\n", packed=packed)
    if version == 3:
        put(folder / f"{prefix}features.tsv{gz}", FEATURES, packed=packed)
    else:
        genes = "".join(f"{i}\t{name}\n" for i, name in zip(IDS, SYMBOLS, strict=True))
        put(folder / f"{prefix}genes.tsv{gz}", genes, packed=packed)
    return folder, {}


def write_by_gene(adata, folder):
    """Write the lines in order of genes, as of a matrix by columns."""
    path, options = write_mtx(adata, folder, 3)
    order = np.argsort(sp.csr_matrix(adata.X).tocoo().col, kind="stable")
    put(folder / "matrix.mtx.gz", triplets(adata.X, order=order), packed=True)
    return path, options


def write_parse(adata, folder):
    """Write cells x genes, with tables that have headers."""
    put(folder / "DGE.mtx", triplets(adata.X, kind="real", cells_first=True).replace(" ", "  "), packed=False)
    genes = "".join(f"{i},{name},hg38\n" for i, name in zip(IDS, SYMBOLS, strict=True))
    put(folder / "all_genes.csv", f"gene_id,gene_name,genome\n{genes}", packed=False)
    cells = "".join(
        f"{name},{kind},{i}\n" for i, (name, kind) in enumerate(zip(BARCODES, adata.obs["type"], strict=True))
    )
    put(folder / "cell_metadata.csv", f"bc_wells,type,n\n{cells}", packed=False)
    return folder, {}


def write_table(adata, folder, name, delimiter, *, corner=True, turned=False, packed=False):
    X, rows, columns = adata.X.toarray().astype(int), BARCODES, IDS
    if turned:
        X, rows, columns = X.T, columns, rows
    header = ([""] if corner else []) + [f'"{c}"' for c in columns]
    lines = [header, *([f'"{row}"', *map(str, values)] for row, values in zip(rows, X.tolist(), strict=True))]
    text = "\n".join(delimiter.join(line) for line in lines) + "\n"
    return put(folder / name, text, packed=packed), {"transpose": True} if turned else {}


def positions(adata, *, header):
    coords = adata.obsm["spatial"]
    lines = [f"{b},{i % 3 and 1},{i},{i},{coords[i, 1]!r},{coords[i, 0]!r}" for i, b in enumerate(BARCODES)]
    names = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"
    return "\n".join(([names] if header else []) + lines[::-1]).replace("np.float64(", "").replace(")", "") + "\n"


def write_visium(adata, folder, kind):
    """Write what Space Ranger does: version 2 with h5 and header, 1 with mtx and without, HD with Parquet."""
    out = folder / "outs"
    out.mkdir()
    if kind == "v1":
        write_mtx(adata, out / "filtered_feature_bc_matrix", 3)
        put(out / "spatial" / "tissue_positions_list.csv", positions(adata, header=False), packed=False)
        return folder, {}
    write_10x_h5(adata, out, 3)[0].rename(out / "filtered_feature_bc_matrix.h5")
    (out / "raw_feature_bc_matrix.h5").write_bytes(b"")
    table = put(out / "spatial" / "tissue_positions.csv", positions(adata, header=True), packed=False)
    if kind == "parquet":
        pd.read_csv(table, float_precision="round_trip").to_parquet(table.with_suffix(".parquet"))
        table.unlink()
    return (folder if kind == "v2" else out / "filtered_feature_bc_matrix.h5"), {}


FORMATS = {
    "h5ad": write_h5ad,
    "zarr v2": lambda adata, folder: write_zarr(adata, folder, 2),
    "zarr v3": lambda adata, folder: write_zarr(adata, folder, 3),
    "h5mu": write_h5mu,
    "10x h5 v2": lambda adata, folder: write_10x_h5(adata, folder, 2),
    "10x h5 v3": lambda adata, folder: write_10x_h5(adata, folder, 3),
    "loom": write_loom,
    "mtx v3": lambda adata, folder: write_mtx(adata, folder, 3),
    "mtx v3, plain": lambda adata, folder: write_mtx(adata, folder, 3, packed=False),
    "mtx v2": lambda adata, folder: write_mtx(adata, folder, 2),
    "mtx with a prefix": lambda adata, folder: write_mtx(adata, folder, 3, "GSM1_lung_"),
    "mtx by gene": write_by_gene,
    "mtx of cells x genes": write_parse,
    "visium v1": lambda adata, folder: write_visium(adata, folder, "v1"),
    "visium v2": lambda adata, folder: write_visium(adata, folder, "v2"),
    "visium parquet": lambda adata, folder: write_visium(adata, folder, "parquet"),
}
TABLES = {
    "csv": ("x.csv", ",", {}),
    "csv of R": ("x.csv", ",", {"corner": False}),
    "tsv.gz": ("x.tsv.gz", "\t", {"packed": True}),
    "txt": ("x.txt", " ", {}),
    "csv of genes x cells": ("x.csv", ",", {"turned": True}),
    "tsv.gz of genes x cells": ("x.tsv.gz", "\t", {"turned": True, "packed": True}),
}


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
