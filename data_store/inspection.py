"""What ``musegnn inspect`` shows: what of a file would be used, what would be left out, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.data_store.atlas_checks import MOST, SourceDataset, guess_species, overlap_of
from musegnn.data_store.description import looks_like_counts
from musegnn.data_store.formats.opening import open_container, parts_of
from musegnn.data_store.genes import mark_peaks
from musegnn.data_store.location import Location
from musegnn.data_store.names import ENSEMBL_GENE
from musegnn.data_store.readers import open_matrix
from musegnn.errors import MuseGNNError
from musegnn.text import shorten, some_of
from musegnn.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from musegnn.data_store.formats.container import Container
    from musegnn.data_store.gene_overlap import PairOverlap
    from musegnn.data_store.readers import FileSource

COORDINATES = ("spatial", "X_spatial")
READ = {
    "rows": "streamed, ranges of cells read alone",
    "sequential": "streamed in one pass, into a scratch copy",
    "columns": "not streamed: turned into rows in memory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What one matrix of a file is, and what of it would be used.

    Attributes
    ----------
    path, mod, format, bytes
        File; modality, where it holds several; format; size of all its files.
    layers
        Shape of each matrix, cells x genes, and whether a sample of its values looks like raw counts (``None``: unknown
        before all is read).
    source
        The matrix that would be used, with its description; ``None`` where it is refused.
    labels, columns, coordinates
        Columns of the table of cells with the number of labels where known; columns of the table of genes; shapes of
        what may be coordinates.
    problem
        Line of the error for which the matrix is refused, empty without one.
    """

    path: str
    mod: str | None
    format: str
    bytes: int
    layers: dict[str, tuple[tuple[int, int], bool | None]]
    source: FileSource | None
    labels: dict[str, int | None]
    columns: list[str]
    coordinates: dict[str, tuple[int, ...]]
    problem: str

    def to_json(self) -> dict[str, Any]:  # JSON
        """Return plain values."""
        found: dict[str, Any] = {
            "path": self.path,
            "format": self.format,
            "bytes": self.bytes,
            "mod": self.mod,
            "layers": {name: {"shape": list(shape), "counts": counts} for name, (shape, counts) in self.layers.items()},
            "labels": self.labels,
            "gene_columns": self.columns,
            "coordinates": {name: list(shape) for name, shape in self.coordinates.items()},
            "problem": self.problem,
        }
        if self.source is None:
            return found
        about, source = self.source.description, self.source
        return found | {
            "layer": about.layer,
            "storage": about.storage,
            "access": source.access,
            "entries": about.n_entries,
            "cells": about.shape[0],
            "cells_used": source.n_cells,
            "genes": about.shape[1],
            "genes_used": source.n_genes,
            "names": kind_of_names(source.gene.tolist()),
            "examples": source.gene[:5].tolist(),
            "id_column": about.id_key,
            "feature_kinds": about.kinds,
            "mitochondrial": int(np.sum(source.mitochondrial)),
            "species": guess_species(source.gene.tolist(), source.gene_id.tolist()),
            "warnings": source.warnings,
        }

    def to_text(self) -> str:
        """Return a few lines for a terminal."""
        found = self.to_json()
        mod = f" (mod: {self.mod})" if self.mod else ""
        lines = [f"{self.path}{mod}: {self.format}, {format_bytes(self.bytes)}"]
        if self.source is not None:
            lines += [
                f"counts     {found['layer']}, {found['storage']}; {READ[found['access']]}",
                f"cells      {found['cells_used']} of {found['cells']}",
                f"genes      {found['genes_used']} of {found['genes']}: {found['names']} such as "
                f"{', '.join(shorten(name, 20) for name in found['examples'][:3])}; "
                f"{found['species'] or 'unknown species'}; {found['mitochondrial']} mitochondrial",
            ]
        says = {True: ", raw counts", False: ", no raw counts", None: ""}
        layers = [f"{name} {shape[0]} x {shape[1]}{says[counts]}" for name, (shape, counts) in self.layers.items()]
        labels = [name if n is None else f"{name} ({n})" for name, n in self.labels.items()]
        space = [f"{name} {'x'.join(map(str, shape))}" for name, shape in self.coordinates.items()]
        for what, items in (("matrices", layers), ("labels", labels), ("columns", self.columns), ("space", space)):
            if items:
                lines.append(f"{what:<10} {some_of([shorten(item, 60) for item in items], 8)}")
        lines += [f"warning    {warning}" for warning in found.get("warnings", [])]
        if self.problem:
            lines.append(f"problem    {self.problem}")
        return "\n  ".join(lines)


def inspect(path: Path | str, **options: Any) -> list[Inspection]:  # those of open_matrix
    """Describe each matrix that a file, folder or URL offers, from its headers, names and a few values.

    Parameters
    ----------
    path
        File, folder or URL.
    options
        Settings of :func:`~musegnn.data_store.readers.open_matrix`; coordinates are read where there are any.

    Returns
    -------
    list of Inspection
        One entry, or one for each modality, table or genome. What cannot be used has its `problem`.
    """
    location = Location.of(path)
    try:
        parts = parts_of(location) if options.get("mod") is None else []
    except MuseGNNError as error:
        return [_refused(location, error)]
    return [_inspect(location, options | {"mod": mod}) for mod in parts] or [_inspect(location, options)]


def _inspect(location: Location, options: dict[str, Any]) -> Inspection:
    mod, transpose = options.get("mod"), bool(options.get("transpose"))
    try:
        with open_container(location, mod=mod, transpose=transpose) as container:
            layers = container.matrices()
            found = {name: (shape, looks_like_counts(container, name)) for name, shape in layers.items()}
            cells, genes = container.cells(), container.genes(next(iter(layers)))
            coordinates = _coordinates(container)
            about = Inspection(
                path=str(location.path), mod=mod, format=container.format,
                bytes=sum(file.stamp()[0] for file in container.files), layers=found, source=None,
                labels={name: cells.n_labels(name) for name in cells.columns()}, columns=genes.columns(),
                coordinates=coordinates, problem="",
            )  # fmt: skip
    except (MuseGNNError, StopIteration) as error:
        return _refused(location, error)
    key = options.get("spatial_key") or next((key for key in COORDINATES if key in coordinates), None)
    try:
        source = open_matrix(location.path, **options | {"spatial_key": key})
    except MuseGNNError as error:
        return replace(about, problem=error.line())
    if found[source.description.layer][1] is False:
        others = [name for name, (_, counts) in found.items() if counts]
        fix = f"set `layer: {others[0]}`" if others else "give raw counts"
        problem = f"a sample of {source.description.layer} is no raw counts. Fix: {fix}."
        return replace(about, source=source, problem=problem)
    return replace(about, source=source)


def _coordinates(container: Container) -> dict[str, tuple[int, ...]]:
    return {key: shape for key, shape in container.coordinates().items() if len(shape) == 2 and shape[1] in {2, 3}}


def _refused(location: Location, error: Exception) -> Inspection:
    line = error.line() if isinstance(error, MuseGNNError) else "no matrix"
    return Inspection(
        path=str(location.path), mod=None, format="unknown", bytes=0, layers={}, source=None, labels={}, columns=[],
        coordinates={}, problem=line,
    )  # fmt: skip


def overlaps(found: Sequence[Inspection]) -> list[PairOverlap]:
    """Return the genes that each two of the matrices share, by name and by other spellings of names."""
    datasets = [
        SourceDataset(
            name=f"{entry.path} ({entry.mod})" if entry.mod else entry.path,
            species="any",
            layer=None,
            source=entry.source,
        )
        for entry in found
        if entry.source is not None
    ]
    return overlap_of(datasets)


def kind_of_names(names: list[str]) -> str:
    """Return what most of some gene names are: symbols, Ensembl identifiers or peaks."""
    if not names:
        return "nothing"
    if mark_peaks(names).mean() >= MOST:
        return "peaks"
    ensembl = sum(ENSEMBL_GENE.match(name) is not None for name in names) / len(names)
    if ensembl >= MOST:
        return "Ensembl identifiers"
    return "symbols" if ensembl < 1 - MOST else f"{100 * ensembl:.0f} % Ensembl identifiers"
