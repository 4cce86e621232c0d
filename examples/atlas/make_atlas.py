"""Make the example atlas from a folder of source files.

    python examples/atlas/make_atlas.py SOURCES ORTHOLOGS.csv [OUT]

SOURCES holds the ``.h5ad`` files named in `FILES`; ORTHOLOGS.csv is an Ensembl BioMart export with the columns
``Gene stable ID``, ``Gene name``, ``Mouse gene stable ID`` and ``Mouse gene name``. Nothing is left out but a column
without a gene name, and nothing is drawn at random; the counts are stored as int32, and of the cell metadata only the
columns in `KEEP` are kept. Cell names (barcodes) and donors are replaced by running numbers. Two runs write the same
bytes.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem

FILES = {
    "lung_balf": "hs_lung_balf_C146",
    "lung_hlca": "hs_lung_hlca_query",
    "dlpfc_151673": "hs_brain_dlpfc_151673",
    "dlpfc_151674": "hs_brain_dlpfc_151674",
    "cortex_rna": "mm_cortex_snareseq_rna",
    "forebrain_atac": "mm_forebrain_atac_ga",
    "pbmc3k": "hs_pbmc_10x_pbmc3k",
}
KEEP = {"layer": "layer", "celltype": "celltype", "cluster (remapped)": "celltype"}
STATEMENTS = ("accession", "license", "note", "source", "species", "technology", "tissue", "modality")
STORAGE = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
CHUNK = 65536


def slim(source: ad.AnnData) -> ad.AnnData:
    """Keep counts, gene names, the columns of `KEEP`, coordinates and the statement of origin."""
    source = source[:, source.var_names != ""]
    counts = source.X.copy()
    whole = counts.data.astype(np.int32)
    if not np.array_equal(whole, counts.data):
        msg = "expected integer counts in X"
        raise ValueError(msg)
    counts.data = whole
    counts.sort_indices()
    obs = pd.DataFrame(index=pd.Index([f"cell{i:05d}" for i in range(source.n_obs)]))
    for old, new in KEEP.items():
        if old in source.obs:
            obs[new] = pd.Categorical(source.obs[old].astype(str))
    var = pd.DataFrame(index=pd.Index(source.var_names.astype(str)))
    result = ad.AnnData(counts, obs=obs, var=var)
    if "spatial" in source.obsm:
        result.obsm["spatial"] = np.asarray(source.obsm["spatial"])
    result.uns["dataset"] = {key: str(source.uns["dataset"][key]) for key in STATEMENTS}
    return result


def write(adata: ad.AnnData, path: Path) -> None:
    """Write an ``.h5ad`` with byte-shuffled gzip, which halves files of small integers."""
    rest = ad.AnnData(obs=adata.obs, var=adata.var, uns=adata.uns, obsm=adata.obsm)
    with h5py.File("draft", "w", driver="core", backing_store=False) as draft, h5py.File(path, "w") as file:
        write_elem(draft, "/", rest, dataset_kwargs={"compression": "gzip", "compression_opts": 9})
        write_elem(draft, "X", adata.X, dataset_kwargs=STORAGE | {"chunks": (CHUNK,)})
        for frame in ("obs", "var"):
            _fix_width(draft[frame], "_index")
        file.attrs.update(draft.attrs)
        for key in draft:
            draft.copy(key, file)  # leaves the space of what was replaced behind


def _fix_width(group: h5py.Group, key: str) -> None:
    """Store names at a fixed width: HDF5 does not compress strings of variable length."""
    attributes = dict(group[key].attrs)
    names = [name.encode() for name in group[key].asstr()[()]]
    del group[key]
    width = h5py.string_dtype("utf-8", max(map(len, names)))
    group.create_dataset(key, data=np.array(names, dtype=width), **STORAGE)
    group[key].attrs.update(attributes)


def orthologs(export: Path, genes: dict[str, set[str]]) -> pd.DataFrame:
    """Select the one-to-one pairs whose two genes occur in the files.

    The export does not state the kind of orthology: a pair counts as one-to-one when neither identifier and
    neither symbol has a second partner in the export.
    """
    table = pd.read_csv(export, dtype=str).dropna()
    table.columns = pd.Index(["human_id", "human", "mouse_id", "mouse"])
    table = table.drop_duplicates()
    for column in table.columns:
        counts = Counter(table[column])
        table[f"{column}_once"] = [counts[value] == 1 for value in table[column]]
    once = table[[c for c in table.columns if c.endswith("_once")]].all(axis=1)
    used = table["human"].isin(genes["human"]) & table["mouse"].isin(genes["mouse"])
    return table.loc[once & used, ["human", "mouse", "human_id", "mouse_id"]].sort_values("human")


def main(sources: Path, export: Path, out: Path) -> None:
    """Write every file of the example."""
    genes: dict[str, set[str]] = {"human": set(), "mouse": set()}
    for name, stem in FILES.items():
        adata = slim(ad.read_h5ad(sources / f"{stem}.h5ad"))
        genes[adata.uns["dataset"]["species"]].update(adata.var_names)
        path = out / f"{name}.h5ad"
        write(adata, path)
        print(f"{path.name}: {adata.n_obs} cells, {adata.n_vars} genes, {path.stat().st_size / 1e6:.1f} MB")
    table = orthologs(export, genes)
    table.to_csv(out / "orthologs.csv", index=False, lineterminator="\n")
    print(f"orthologs.csv: {len(table)} pairs")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else Path(__file__).parent)
