"""What a file or an AnnData object says about itself, as a first entry of an atlas that its user corrects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from musegnn.aliases import SPECIES, species_name
from musegnn.config import DatasetConfig
from musegnn.data_store.atlas_checks import ENSEMBL_SPECIES, guess_species
from musegnn.data_store.formats.anndata_groups import PREFERRED_LAYERS
from musegnn.dataset_entries import name_of_file
from musegnn.datasets import open_counts
from musegnn.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from musegnn.data_store.readers import CountSource

UNKNOWN = "unknown"
LAYERS = (None, *PREFERRED_LAYERS)
SAMPLE_CELLS = 256
COLUMNS = {
    "tissue": ("tissue", "tissue_general", "organ", "tissue_type"),
    "species": ("organism", "species"),
    "condition": ("disease", "condition"),
}
HEADER = """\
# A first atlas file, from what the files say about themselves. Correct it, then: musegnn run {path} --out RUN
# modality is scrna, scatac (gene activity) or spatial; `by: cell_type` makes a dataset of every label of a column.
"""


def guess_entry(counts: AnnData | Path, name: str = "") -> dict[str, Any]:
    """Return settings of a dataset from its names, labels, coordinates and a sample of its counts.

    `tissue` and `species` are ``unknown`` where nothing says them; `layer` is there where ``X`` holds no counts.

    Raises
    ------
    InputError
        When the file cannot be read or no matrix of it holds counts.
    """
    name = name or (name_of_file(counts) if isinstance(counts, Path) else "dataset")
    entry: dict[str, Any] = {"name": name, "path": counts, "modality": "scrna", "tissue": UNKNOWN, "species": UNKNOWN}
    source, layer = _open_raw(entry)
    if layer is not None:
        entry["layer"] = layer
    if _has_coordinates(entry):
        entry["modality"] = "spatial"
    elif re.search(r"atac|gene_?activity", name, re.IGNORECASE):
        entry["modality"] = "scatac"
    for setting, columns in COLUMNS.items():
        value = next((found for column in columns if (found := _only_label(source, column))), "")
        if value:
            entry[setting] = value
    entry["species"] = species_name(entry["species"])
    if entry["species"] == UNKNOWN:
        entry["species"] = _species(source)
    return entry


def first_atlas(paths: Sequence[Path], target: Path) -> str:
    """Return the text of an atlas file for some files, with a mark where something has to be filled in."""
    entries: list[dict[str, Any]] = []
    for path in paths:
        entry = guess_entry(path)
        taken = [other["name"] for other in entries]
        if entry["name"] in taken:
            entry["name"] += f"_{len(entries) + 1}"
        near = path.resolve().is_relative_to(target.resolve().parent)
        shown = path.resolve().relative_to(target.resolve().parent) if near else path.resolve()
        entries.append(entry | {"path": str(shown)})
    species = sorted({entry["species"] for entry in entries})
    lines = [HEADER.format(path=target.name) + "datasets:"]
    for entry in entries:
        text = yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000).strip()
        todo = [key for key in ("tissue", "species") if entry[key] == UNKNOWN]
        lines.append(f"  - {text}" + (f"  # fill in: {', '.join(todo)}" if todo else ""))
    if len(species) > 1:
        lines.append("# orthologs: orthologs.csv    # joins the species: one column of gene names per species")
    lines.append("graph: {n_genes: 1000}          # every setting and its default: musegnn/config.py")
    return "\n".join(lines) + "\n"


def _open_raw(entry: dict[str, Any]) -> tuple[CountSource, str | None]:
    """Open the first matrix whose first cells hold counts; else raise what is wrong with the usual one."""
    error: InputError | None = None
    for layer in LAYERS:
        try:
            source = open_counts(DatasetConfig(**entry, layer=layer))
            for _ in source.blocks(SAMPLE_CELLS, stop=min(SAMPLE_CELLS, source.n_cells)):
                pass
        except InputError as found:
            error = error or found
        else:
            return source, layer
    assert error is not None
    raise error


def _has_coordinates(entry: dict[str, Any]) -> bool:
    try:
        open_counts(DatasetConfig(**entry | {"modality": "spatial"}))
    except InputError:
        return False
    return True


def _only_label(source: CountSource, column: str) -> str:
    """Return the label that all cells share in a column; empty without one."""
    try:
        values = source.obs(column)
    except InputError:
        return ""
    labels = np.unique(values[values != ""]).tolist() if values.dtype.kind == "U" else []
    return str(labels[0]) if len(labels) == 1 else ""


def _species(source: CountSource) -> str:
    """Return the species that ``musegnn inspect`` names, mouse for both rodents."""
    looks = guess_species(source.gene.tolist(), source.gene_id.tolist()).removesuffix(" or rat")
    return looks if looks in ENSEMBL_SPECIES.values() else UNKNOWN


def require_known(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """Return an entry of known species, without which genes of other datasets match nothing; else raise E302."""
    if entry["species"] == UNKNOWN:
        msg = "`species`: neither labels nor gene names say it"
        raise ConfigError(msg, code="E302", where=where, fix=f'give species="{next(iter(SPECIES))}" or another')
    return entry
