"""The same counts written in every format that is read, as the programs write it that make such files."""

from __future__ import annotations

import gzip
import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

C, G = 120, 30
SYMBOLS = [f"Gene{i}" for i in range(G)]
IDS = [f"ENSG{i:011d}" for i in range(G)]
BARCODES = [f"{''.join('ACGT'[(i >> 2 * k) & 3] for k in range(10))}-1" for i in range(C)]


def make_adata(counts):
    """Make counts with names, identifiers, kinds, labels and coordinates."""
    obs = pd.DataFrame({"type": pd.Categorical(["a", "b", "b"] * (C // 3)), "n": np.arange(C)}, index=BARCODES)
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
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_group("obs")
        for name in ("rna", "prot"):
            ad.io.write_elem(file, f"mod/{name}", adata if name == "rna" else adata[:, :3].copy())
    with path.open("r+b") as file:
        file.write(b"MuData (format-version=0.1.0;creator=muon)")
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
    out.mkdir(parents=True)
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


def write_visium_hd(adata, folder):
    """Write what Space Ranger 4 does of Visium HD, of each folder the files that matter; return ``outs``."""
    out = folder / "outs"
    for name in ("square_002um", "square_008um", "square_016um"):
        write_visium(adata, folder / name, "parquet")
        (folder / name / "outs").rename(place := _below(out / "binned_outputs" / name))
        (place / "filtered_feature_bc_matrix").mkdir()
        (place / "spatial" / "scalefactors_json.json").write_text("{}")
    cells = _below(out / "segmented_outputs")
    cells.mkdir()
    write_10x_h5(adata, cells, 3)[0].rename(cells / "filtered_feature_cell_matrix.h5")
    (cells / "cell_segmentations.geojson").write_text("{}")
    (out / "spatial").mkdir()
    for name in ("feature_slice.h5", "molecule_info.h5", "web_summary.html"):
        (out / name).write_bytes(b"")
    return out


def _below(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


XENIUM_COLUMNS = ("transcript_counts", "control_probe_counts", "total_counts", "cell_area")


def write_xenium(adata, folder, *, table="parquet", matrix="h5"):
    """Write what the Xenium Onboard Analysis does: matrix, cells with centroids, and files of other kinds."""
    out = _below(folder / "outs")
    out.mkdir()
    cells = pd.DataFrame({"cell_id": BARCODES, "x_centroid": 0.0, "y_centroid": 0.0})
    cells[["x_centroid", "y_centroid"]] = adata.obsm["spatial"]
    for place, name in enumerate(XENIUM_COLUMNS):
        cells[name] = np.arange(C) + place
    cells = cells[::-1]
    if table == "parquet":
        cells.to_parquet(out / "cells.parquet")
    cells.to_csv(out / "cells.csv.gz", index=False)
    if matrix == "h5":
        write_10x_h5(adata, out, 3)[0].rename(out / "cell_feature_matrix.h5")
    write_mtx(adata, out / "cell_feature_matrix", 3)
    for name in ("cell_feature_matrix.zarr.zip", "cells.zarr.zip", "transcripts.parquet", "experiment.xenium"):
        (out / name).write_bytes(b"")
    return out
