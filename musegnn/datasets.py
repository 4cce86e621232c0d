"""Open the counts that an atlas names, and split datasets into strata."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from musegnn.atlas_file import apply_overrides, validate_atlas
from musegnn.config import IN_MEMORY, NAME_PATTERN
from musegnn.data_store import open_matrix
from musegnn.data_store.count_source import MIN_CELLS
from musegnn.data_store.strata import slug, stratum_labels
from musegnn.errors import InputError
from musegnn.text import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from musegnn.config import AtlasConfig, DatasetConfig
    from musegnn.data_store import Store
    from musegnn.data_store.inspection import Inspection
    from musegnn.data_store.readers import FileSource

logger = logging.getLogger(__name__)


def open_counts(dataset: DatasetConfig) -> FileSource:
    """Open the counts of a dataset, in a file or in memory; all its cells, whatever the stratum."""
    if dataset.adata is None and dataset.path == IN_MEMORY:
        msg = "the counts of this dataset were an AnnData object, which is gone"
        raise InputError(msg, code="E230", where=dataset.name, fix="give it again as `path`, or write it to a file")
    where = dataset.path if dataset.adata is None else dataset.adata
    return open_matrix(where, name=dataset.name, **_reading(dataset))


def open_all(datasets: Sequence[DatasetConfig]) -> list[FileSource]:
    """Open the counts of datasets; strata of one file share them, so that it is opened and hashed once."""
    opened: dict[str, FileSource] = {}
    sources = []
    for dataset in datasets:
        key = dataset.name if dataset.adata is not None else f"{dataset.path}\0{_reading(dataset)}"
        if key not in opened:
            opened[key] = open_counts(dataset)
        sources.append(opened[key])
    return sources


def _reading(dataset: DatasetConfig) -> dict[str, Any]:
    """Return the settings of a dataset that say how its file is read."""
    return {
        "layer": dataset.layer,
        "gene_id_key": dataset.gene_id_key,
        "gene_name_key": dataset.gene_name_key,
        "spatial_key": dataset.spatial_key if dataset.modality == "spatial" else None,
        "mod": dataset.mod,
        "transpose": dataset.transpose,
        "by": dataset.by,
        "annotation": dataset.annotation,
    }


def atlas_of_store(store: Store, settings: dict[str, Any] | None = None) -> AtlasConfig:
    """Return the atlas of all datasets of a store, under dotted settings and else the defaults."""
    keys = ("name", "modality", "tissue", "species", "condition")
    about = [store.info(name) for name in store.datasets()]
    data: dict[str, Any] = {"datasets": [{**{k: a[k] for k in keys}, "path": str(store.path)} for a in about]}
    return validate_atlas(apply_overrides(data, settings or {}), where=str(store.path))


def inspect_inputs(files: Sequence[str]) -> list[Inspection]:
    """Describe files, or the datasets of atlas files with their settings, for ``musegnn inspect``."""
    from musegnn.atlas_file import load_atlas
    from musegnn.data_store.inspection import inspect

    found = []
    for file in files:
        if file.lower().endswith((".yaml", ".yml")):
            for dataset in load_atlas(file).datasets:
                found += inspect(dataset.path, **_reading(dataset))
        else:
            found += inspect(file)
    return found


def log_inputs(datasets: Sequence[DatasetConfig], sources: Sequence[FileSource]) -> None:
    """Log a line per dataset with what of its file is used, before anything is built."""
    from musegnn.data_store.inspection import kind_of_names

    for dataset, source in zip(datasets, sources, strict=True):
        about = source.description
        codes = " ".join(dict.fromkeys(warning.partition(":")[0] for warning in source.warnings))
        logger.info(
            "%s: %s, %d of %d cells%s, %d of %d genes (%s), %s, %s%s",
            dataset.name, about.format, source.n_cells, about.shape[0],
            f" before `{shorten(dataset.stratum, 30)}`" if dataset.stratum else "", source.n_genes, about.shape[1],
            kind_of_names(source.gene.tolist()), dataset.modality, dataset.species, f"; {codes}" if codes else "",
        )  # fmt: skip


def expand_strata(atlas: AtlasConfig) -> AtlasConfig:
    """Replace every dataset with ``by`` and without ``stratum`` by one dataset per label.

    There is one for each label of the column ``by`` with at least 50 cells, called ``NAME.LABEL``, with the label as
    ``stratum`` and ``condition``.

    Raises
    ------
    InputError
        When a file cannot be used, has no such column, no label has 50 cells (E251), or a label makes no name of a
        dataset or one that another dataset has (E257).
    """
    datasets: list[DatasetConfig] = []
    for dataset in atlas.datasets:
        if dataset.by is None or dataset.stratum is not None:
            datasets.append(dataset)
            continue
        source = open_counts(dataset)
        labels = stratum_labels(source, dataset.by)
        large = [label for label, cells in labels.items() if len(cells) >= MIN_CELLS]
        unlabelled = source.n_cells - sum(map(len, labels.values()))
        if unlabelled:
            logger.warning(
                "%s: W252: %d of %d cells have no label in %r and are left out",
                dataset.name, unlabelled, source.n_cells, dataset.by,
            )  # fmt: skip
        if len(large) < len(labels):
            logger.warning(
                "%s: W251: %d of %d labels of %r have fewer than %d cells and are left out",
                dataset.name, len(labels) - len(large), len(labels), dataset.by, MIN_CELLS,
            )  # fmt: skip
        if not large:
            msg = f"no label of {dataset.by!r} has {MIN_CELLS} cells"
            raise InputError(msg, code="E251", where=dataset.name, fix="name a coarser column, or leave `by` out")
        for label in large:
            update = {"name": f"{dataset.name}.{slug(label)}", "stratum": label, "condition": label}
            datasets.append(dataset.model_copy(update=update))
    _check_names(datasets)
    return atlas.model_copy(update={"datasets": tuple(datasets)})


def _check_names(datasets: list[DatasetConfig]) -> None:
    """Refuse names that strata cannot have: longer than names may be, or those of another dataset."""
    names = [dataset.name for dataset in datasets]
    for dataset in datasets:
        if dataset.stratum is None:
            continue
        label, name = shorten(dataset.stratum, 30), shorten(dataset.name, 60)
        if re.match(NAME_PATTERN, dataset.name) is None:
            msg = f"label {label!r} of {dataset.by!r} makes a dataset name of {len(dataset.name)} characters, above 128"
            raise InputError(msg, code="E257", where=name, fix="shorten the label or the name of the dataset")
        if names.count(dataset.name) > 1:
            msg = f"label {label!r} of {dataset.by!r} makes a dataset name that another dataset has"
            raise InputError(msg, code="E257", where=name, fix="rename one of the datasets in the atlas")
