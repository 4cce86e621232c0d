"""Whole input files of every kind, from which mutated ones are made."""

from __future__ import annotations

import gzip
import shutil
import warnings
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData


def counts() -> AnnData:
    """Return counts of 90 cells and 25 genes with labels, and coordinates that the first genes follow."""
    import anndata as ad

    rng = np.random.default_rng(0)
    level = np.ones((90, 25))
    level[:, :12] *= rng.gamma(2.0, 0.5, (90, 1))
    obs = pd.DataFrame(
        {"label": pd.Categorical(rng.choice(["a", "b"], 90)), "batch": rng.choice(["x", "yy"], 90)},
        index=[f"cell{i}" for i in range(90)],
    )
    var = pd.DataFrame({"gene_ids": [f"ENSG{i:011d}" for i in range(25)]}, index=[f"Gene{i}" for i in range(25)])
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(2 * level).astype(np.float32)), obs=obs, var=var)
    adata.obsm["spatial"] = np.column_stack([level[:, 0], rng.random(90)])
    return adata


def h5ad_files(folder: Path) -> list[Path]:
    """Write AnnData files with rows, columns, compression, and a dense matrix."""
    adata = counts()
    paths = [folder / f"{name}.h5ad" for name in ("rows", "gzip", "columns", "dense")]
    for path in paths:
        adata.X = {"columns": sp.csc_matrix, "dense": lambda X: X.toarray()}.get(path.stem, sp.csr_matrix)(counts().X)
        adata.write_h5ad(path, compression="gzip" if path.stem in {"gzip", "dense"} else None)
    return paths


def h5mu_files(folder: Path) -> list[Path]:
    """Write MuData files of one modality by their description: an AnnData below ``mod``."""
    import anndata as ad

    path = folder / "counts.h5mu"
    with h5py.File(path, "w") as file:
        file.create_group("obs")
        ad.io.write_elem(file, "mod/rna", counts())
    return [path]


def tenx_files(folder: Path) -> list[Path]:
    """Write matrices of Cell Ranger 2 and 3."""
    adata = counts()
    paths = [folder / f"v{version}.h5" for version in (2, 3)]
    for path in paths:
        new = path.stem == "v3"
        with h5py.File(path, "w") as file:
            group = file.create_group("matrix" if new else "GRCh38")
            group["barcodes"] = np.array(adata.obs_names, dtype="S")
            for key in ("data", "indices", "indptr"):
                part = getattr(adata.X, key).astype(np.int32)
                group.create_dataset(key, data=part, chunks=(len(part) // 3,), compression="gzip")
            group["shape"] = np.array(adata.shape[::-1])
            features = group.create_group("features") if new else group
            features["id" if new else "genes"] = np.array(adata.var["gene_ids"], dtype="S")
            features["name" if new else "gene_names"] = np.array(adata.var_names, dtype="S")
            if new:
                features["feature_type"] = np.array(["Gene Expression"] * adata.n_vars, dtype="S")
    return paths


def loom_files(folder: Path) -> list[Path]:
    """Write a loom file."""
    adata, path = counts(), folder / "counts.loom"
    with h5py.File(path, "w") as file:
        file.create_dataset("matrix", data=adata.X.toarray().T, chunks=(16, 16), compression="gzip")
        file["row_attrs/Gene"] = np.array(adata.var_names, dtype="S")
        file["col_attrs/CellID"] = np.array(adata.obs_names, dtype="S")
        file["col_attrs/label"] = np.array(adata.obs["label"], dtype="S")
    return [path]


def zarr_folders(folder: Path) -> list[Path]:
    """Write AnnData as zarr of both versions."""
    import anndata as ad

    paths = [folder / f"v{version}.zarr" for version in (2, 3)]
    for path, version in zip(paths, (2, 3), strict=True):
        with ad.settings.override(zarr_write_format=version), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about what will change
            counts().write_zarr(path)
    return paths


def mtx_folders(folder: Path) -> list[Path]:
    """Write folders of Cell Ranger 2 and 3, the latter compressed."""
    adata = counts()
    paths = [folder / "mtx_v2", folder / "mtx_v3"]
    for path in paths:
        path.mkdir(exist_ok=True)
        new = path.name.endswith("3")
        entries = adata.X.tocoo()
        lines = [f"{gene + 1} {cell + 1} {int(n)}" for cell, gene, n in zip(*entries.coords, entries.data, strict=True)]
        size = f"{adata.n_vars} {adata.n_obs} {len(lines)}"
        genes = list(zip(adata.var["gene_ids"], adata.var_names, strict=True))
        texts = {
            "matrix.mtx": ["%%MatrixMarket matrix coordinate integer general", size, *lines],
            "barcodes.tsv": list(adata.obs_names),
            "features.tsv" if new else "genes.tsv": [
                "\t".join((*names, "Gene Expression") if new else names) for names in genes
            ],
        }
        for name, rows in texts.items():
            raw = ("\n".join(rows) + "\n").encode()
            (path / (f"{name}.gz" if new else name)).write_bytes(gzip.compress(raw, mtime=0) if new else raw)
    return paths


def space_ranger_folders(folder: Path) -> list[Path]:
    """Write folders of Space Ranger: a matrix in HDF5 with a CSV of positions, and one in text with a Parquet file."""
    adata = counts()
    matrices = {"v1": tenx_files(folder)[1], "v4": mtx_folders(folder)[1]}
    positions = pd.DataFrame(adata.obsm["spatial"] * 1e4, columns=["pxl_row_in_fullres", "pxl_col_in_fullres"])
    for place, (name, values) in enumerate({"in_tissue": 1, "array_row": 0, "array_col": 0}.items()):
        positions.insert(place, name, values)
    positions.insert(0, "barcode", adata.obs_names)
    paths = []
    for name, matrix in matrices.items():
        path = folder / f"slide_{name}"
        (path / "spatial").mkdir(parents=True, exist_ok=True)
        if matrix.is_dir():
            shutil.copytree(matrix, path / "filtered_feature_bc_matrix", dirs_exist_ok=True)
            positions.to_parquet(path / "spatial" / "tissue_positions.parquet")
        else:
            shutil.copy(matrix, path / "filtered_feature_bc_matrix.h5")
            positions.to_csv(path / "spatial" / "tissue_positions.csv", index=False)
        paths.append(path)
    return paths


def tables(folder: Path) -> list[Path]:
    """Write tables of counts, cells in rows."""
    frame = counts().to_df().astype(int)
    paths = [folder / "counts.csv", folder / "counts.tsv"]
    for path in paths:
        frame.to_csv(path, sep="," if path.suffix == ".csv" else "\t")
    return paths


KINDS: dict[str, Callable[[Path], list[Path]]] = {
    "h5ad": h5ad_files,
    "h5mu": h5mu_files,
    "10x h5": tenx_files,
    "loom": loom_files,
    "zarr": zarr_folders,
    "Cell Ranger folder": mtx_folders,
    "Space Ranger folder": space_ranger_folders,
    "table": tables,
}
"""Makers of whole files in a folder, by the name of the format."""
