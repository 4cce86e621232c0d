"""Checks of datasets beside one another: the same data twice, and names that can never match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from musegnn.data_store.names import ENSEMBL_GENE
from musegnn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from musegnn.data_store.count_source import CountSource

ENSEMBL_SPECIES = {"ENSG": "human", "ENSMUSG": "mouse", "ENSRNOG": "rat", "ENSDARG": "zebrafish"}
MOST = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDataset:
    """One dataset of an atlas: its name, species and layer as in the atlas file, and its counts.

    `by` and `stratum` are a column of ``obs`` and its value where the dataset is those cells of `source` alone.
    """

    name: str
    species: str
    layer: str | None
    source: CountSource
    by: str | None = None
    stratum: str | None = None


def check_sources(datasets: Sequence[SourceDataset]) -> list[str]:
    """Check that the datasets of an atlas are different data with names that can match.

    Returns
    -------
    list of str
        Warnings ``W214: ...`` where the case of gene symbols does not look like the declared species.

    Raises
    ------
    InputError
        E211 when one dataset of a species has Ensembl identifiers and another symbols, E214 when identifiers belong
        to another species than declared, E252 when two datasets share cells of the same matrix of the same file:
        whole files, a file and a stratum of it, or strata by different columns.
    """
    _refuse_copies(datasets)
    warnings = []
    kinds: dict[str, dict[bool, str]] = {}
    for dataset in datasets:
        genes = dataset.source.gene.tolist()
        ensembl = [gene for gene in genes if ENSEMBL_GENE.match(gene)]
        is_ensembl = len(ensembl) >= MOST * len(genes)
        kinds.setdefault(dataset.species, {}).setdefault(is_ensembl, dataset.name)
        if is_ensembl:
            _check_prefix(dataset, ensembl)
        else:
            warnings += _check_case(dataset, genes)
    for species, kind in kinds.items():
        if len(kind) > 1:
            msg = f"{species} genes are Ensembl identifiers in {kind[True]} and symbols in {kind[False]}"
            fix = "write the same kind of names into both files"
            raise InputError(msg, code="E211", where=kind[True], fix=fix)
    return warnings


def _refuse_copies(datasets: Sequence[SourceDataset]) -> None:
    seen: dict[tuple[str, str | None, str | None], list[tuple[str | None, str | None, str]]] = {}
    for dataset in datasets:
        found = {"by": dataset.by, "stratum": dataset.stratum} | dataset.source.fingerprint()
        matrix = (found["sha256"], dataset.layer, found.get("mod"))
        for by, stratum, name in seen.setdefault(matrix, []):
            if by == found["by"] and stratum != found["stratum"]:
                continue
            what = "the same counts as" if (by, stratum) == (found["by"], found["stratum"]) else "cells of"
            msg = f"holds {what} dataset `{name}`, so results would leak between them"
            raise InputError(msg, code="E252", where=dataset.name, fix="leave one of the two out")
        seen[matrix].append((found["by"], found["stratum"], dataset.name))


def _check_prefix(dataset: SourceDataset, ensembl: list[str]) -> None:
    found = {gene.rstrip("0123456789") for gene in (name.partition("_")[0] for name in ensembl)}
    species = sorted({ENSEMBL_SPECIES[prefix] for prefix in found if prefix in ENSEMBL_SPECIES})
    if species and dataset.species in ENSEMBL_SPECIES.values() and species != [dataset.species]:
        msg = f"declared as {dataset.species}, but its gene identifiers are of {' and '.join(species)}"
        raise InputError(msg, code="E214", where=dataset.name, fix="correct `species`")


def _check_case(dataset: SourceDataset, genes: list[str]) -> list[str]:
    looks = _species_by_case(genes)
    if looks and dataset.species in {"human", "mouse", "rat"} and dataset.species not in looks:
        return [f"W214: {dataset.name} is declared as {dataset.species}, but its gene symbols look like {looks}"]
    return []


def _species_by_case(genes: Sequence[str]) -> str:
    """Human symbols are upper case, those of mouse and rat are capitalised."""
    lettered = [gene for gene in genes if gene[:1].isalpha() and any(c.isalpha() for c in gene[1:])]
    upper = sum(gene == gene.upper() for gene in lettered)
    capital = sum(gene[0].isupper() and gene[1:] == gene[1:].lower() for gene in lettered)
    if not lettered:
        return ""
    return "human" if upper >= MOST * len(lettered) else "mouse or rat" if capital >= MOST * len(lettered) else ""


def guess_species(genes: Sequence[str], ids: Sequence[str]) -> str:
    """Return the species that identifiers or the case of symbols look like, ``""`` where they do not say."""
    names = [name for name in (*genes, *ids) if ENSEMBL_GENE.match(name)]
    prefixes = {name.partition("_")[0].partition(".")[0].rstrip("0123456789") for name in names}
    if prefixes:
        return " and ".join(sorted({ENSEMBL_SPECIES.get(prefix, "another species") for prefix in prefixes}))
    return _species_by_case(genes)
