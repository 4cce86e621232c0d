"""The groups of datasets on which models are compared: three of public data not shipped here, and the example atlas.

The files of the first three are looked for in the folder that ``MUSEGNN_SHARED`` names, else in ``../shared``; groups
whose files are absent are left out. Graphs are built once and kept in ``benchmarks/.cache``.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musegnn.atlas_file import load_atlas, validate_atlas

if TYPE_CHECKING:
    from musegnn.config import AtlasConfig

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "atlas" / "atlas.yaml"
DATASETS = {
    "lung": (
        ("C144", "hs_lung_balf_C144", "scrna", "lung", "human"),
        ("C146", "hs_lung_balf_C146", "scrna", "lung", "human"),
        ("HLCA", "hs_lung_hlca_query", "scrna", "lung", "human"),
        ("A549_rna", "hs_a549_scicar_rna", "scrna", "lung", "human"),
        ("A549_atac", "hs_a549_scicar_atac_ga", "scatac", "lung", "human"),
    ),
    "pbmc": (
        ("pbmc3k", "hs_pbmc_10x_pbmc3k", "scrna", "pbmc", "human"),
        ("ifnb_ctrl", "hs_pbmc_ifnb_ctrl", "scrna", "pbmc", "human"),
        ("ifnb_stim", "hs_pbmc_ifnb_stim", "scrna", "pbmc", "human"),
    ),
    "brain": (
        ("dlpfc_673", "hs_brain_dlpfc_151673", "spatial", "brain", "human"),
        ("dlpfc_674", "hs_brain_dlpfc_151674", "spatial", "brain", "human"),
        ("snare_rna", "mm_cortex_snareseq_rna", "scrna", "brain", "mouse"),
        ("snare_atac", "mm_cortex_snareseq_atac_ga", "scatac", "brain", "mouse"),
        ("forebrain", "mm_forebrain_atac_ga", "scatac", "brain", "mouse"),
        ("olfactory", "mm_olfactory_bulb_st", "spatial", "brain", "mouse"),
    ),
}
NAMES = (*DATASETS, "atlas")
CHOICE_SPLITS = (1, 2)
"""Where defaults are chosen. Splits are seeds of the hold-outs, ``evaluation.seed``."""

REPORT_SPLITS, SEEDS = (0, 3, 4, 5), (0, 1, 2)
"""Where models are compared, in all groups: splits, and training seeds in each."""

CACHE = ROOT / "benchmarks" / ".cache"
FIELDS = ("name", "path", "modality", "tissue", "species")


def shared_folder() -> Path:
    """Return the folder with data, gene sets and orthologs that the project does not ship."""
    return Path(os.environ.get("MUSEGNN_SHARED", ROOT.parent / "shared"))


def present() -> list[str]:
    """List the groups whose files are here."""
    folder = shared_folder() / "data"
    return [
        name
        for name in NAMES
        if name == "atlas" or all((folder / f"{row[1]}.h5ad").is_file() for row in DATASETS[name])
    ]


def gene_sets() -> Path | None:
    """Return the file of GO biological processes with experimental evidence, where it is here."""
    path = shared_folder() / "annot" / "go_bp_experimental.symbols.gmt"
    return path if path.is_file() else None


def store(name: str) -> Path:
    """Return the folder of a group's graphs, which are built where they are missing."""
    import musegnn as mg

    path = CACHE / f"{name}.zarr"
    CACHE.mkdir(exist_ok=True)
    mg.build_graphs(group_atlas(name, CACHE, {}), path)
    return path


def group_atlas(name: str, folder: Path, settings: dict[str, Any]) -> AtlasConfig:  # values of any setting
    """Return the configuration of a group.

    Parameters
    ----------
    name
        One of ``NAMES``.
    folder
        Where a table of orthologs may be written.
    settings
        Sections that differ from the defaults, e.g. ``{"training": {"seed": 1}}``.
    """
    if name == "atlas":
        plain = load_atlas(EXAMPLE)
        data: dict[str, Any] = {
            "datasets": [dataset.model_dump(mode="json", exclude_unset=True) for dataset in plain.datasets],
            "orthologs": str(plain.orthologs),
            "graph": {"n_genes": plain.graph.n_genes},
        }
    else:
        rows = [dict(zip(FIELDS, row, strict=True)) for row in DATASETS[name]]
        for row in rows:
            row["path"] = str(shared_folder() / "data" / f"{row['path']}.h5ad")
        data = {"datasets": rows}
        if len({row["species"] for row in rows}) > 1:
            data["orthologs"] = str(_orthologs(folder / "orthologs.csv"))
    return validate_atlas(data | settings, where=name)


def _orthologs(path: Path) -> Path:
    """Write the one-to-one pairs of the shared table as the atlas file wants them."""
    if path.is_file():
        return path
    with (shared_folder() / "annot" / "human_mouse_gene_orthologs.csv").open(encoding="utf-8", newline="") as file:
        found = {(row["Gene name"], row["Mouse gene name"]) for row in csv.DictReader(file)}
    pairs = sorted(pair for pair in found if all(pair))
    counts = [Counter(pair[k] for pair in pairs) for k in (0, 1)]
    once = [pair for pair in pairs if all(counts[k][pair[k]] == 1 for k in (0, 1))]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("human", "mouse"), *once])
    return path
