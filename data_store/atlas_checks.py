"""Checks of datasets beside one another: the same data twice, and names that can never match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musegnn.data_store.gene_overlap import overlap_table
from musegnn.data_store.names import ENSEMBL_GENE
from musegnn.data_store.readers import FileSource
from musegnn.data_store.shared_cells import likely_pairs, sample_cells, shared_share
from musegnn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from musegnn.data_store.count_source import CountSource
    from musegnn.data_store.gene_overlap import PairOverlap

ENSEMBL_SPECIES = {"ENSG": "human", "ENSMUSG": "mouse", "ENSRNOG": "rat", "ENSDARG": "zebrafish"}
MOST = 0.9
MANY = 20
"""Genes that are more than chance."""
NEXT_TO_NONE = 0.02
ALIKE = 0.8
FEW, FEWEST = 0.1, 50
LEAKING, NOTED = 0.1, 0.02
SHOWN = 5
COMPARED = 100
"""Datasets, the first ones, whose names are compared in pairs."""


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
        Warnings ``W214: ...`` where the case of gene symbols does not look like the declared species; ``W215: ...``,
        ``W220: ...`` and ``W223: ...`` where datasets of a species share few genes, spell them differently or mean
        others by the same names; ``W253: ...`` where they share a few cells.

    Raises
    ------
    InputError
        E211 when one dataset of a species has Ensembl identifiers and another symbols, E214 when identifiers belong
        to another species than declared, E215 when names of a species agree by another spelling alone, E252 when two
        datasets share cells: of the same matrix of the same file, or a tenth of those of different files.
    """
    _refuse_copies(datasets)
    warnings = []
    kinds: dict[str, dict[bool, str]] = {}
    for dataset in datasets:
        genes = dataset.source.gene.tolist()
        ensembl = [gene for gene in genes if ENSEMBL_GENE.match(gene)]
        is_ensembl = len(ensembl) >= MOST * len(genes)
        kinds.setdefault(dataset.species, {}).setdefault(is_ensembl, dataset.name)
        identifiers = [gene for gene in dataset.source.gene_id.tolist() if ENSEMBL_GENE.match(gene)]
        if len(identifiers) >= MOST * len(genes):
            _check_prefix(dataset, identifiers)
        if not is_ensembl:
            warnings += _check_case(dataset, genes)
    for species, kind in kinds.items():
        if len(kind) > 1:
            msg = f"{species} genes are Ensembl identifiers in {kind[True]} and symbols in {kind[False]}"
            fix = "write the same kind of names into both files"
            raise InputError(msg, code="E211", where=kind[True], fix=fix)
    different = list({_matrix_of(dataset): dataset for dataset in reversed(datasets)}.values())[::-1]
    return warnings + _check_names(different) + _check_cells(different)


def overlap_of(datasets: Sequence[SourceDataset]) -> list[PairOverlap]:
    """Return the genes that each two datasets of the same species share, by name and by other spellings of names."""
    found = []
    for species in dict.fromkeys(dataset.species for dataset in datasets):
        sources = {dataset.name: dataset.source for dataset in datasets if dataset.species == species}
        genes = {name: source.gene for name, source in sources.items()}
        own = {name: s.gene_id for name, s in sources.items() if not np.array_equal(s.gene, s.gene_id)}
        found += overlap_table(genes, own)
    return found


def _check_names(datasets: Sequence[SourceDataset]) -> list[str]:
    few, spelled, differ = list[str](), list[str](), list[str]()
    for pair in overlap_of(datasets[:COMPARED]):
        both = f"{pair.one} and {pair.other} share {pair.shared} of {pair.smaller} genes"
        if pair.most >= MANY and pair.shared <= NEXT_TO_NONE * pair.most:
            msg = f"{both}, and {pair.most} but for {pair.how} of their names"
            raise InputError(msg, code="E215", where=pair.other, fix="spell the names of genes alike in both files")
        if pair.most >= pair.shared + MANY and pair.shared < ALIKE * pair.most:
            spelled.append(f"W220: {both}, and {pair.most} but for {pair.how} of their names")
        elif pair.shared < FEW * pair.smaller or pair.shared < min(FEWEST, pair.smaller / 2):
            few.append(f"W215: {both}")
        if pair.other_identifier >= max(MANY, FEW * pair.shared):
            differ.append(f"W223: {both}, of which {pair.other_identifier} have another identifier in the other one")
    return [*_first(few), *_first(spelled), *_first(differ)]


def _first(warnings: list[str]) -> list[str]:
    shown = warnings[:SHOWN]
    more = len(warnings) - len(shown)
    return [*shown[:-1], f"{shown[-1]}; {more} more such pairs"] if more else shown


def _check_cells(datasets: Sequence[SourceDataset]) -> list[str]:
    files = [(d.name, d.source) for d in datasets if isinstance(d.source, FileSource)]
    if len(files) < 2:
        return []
    samples = [(name, sample) for name, source in files if (sample := sample_cells(source)) is not None]
    warnings = []
    for i, j in sorted(likely_pairs([sample for _, sample in samples])):
        (other, earlier), (name, sample) = samples[i], samples[j]
        share = shared_share(earlier, sample)
        if share >= LEAKING:
            msg = f"shares {100 * share:.0f} % of the cells of the smaller one with dataset `{other}`"
            msg += ", so results would leak between them"
            raise InputError(msg, code="E252", where=name, fix="leave one of the two, or the common cells, out")
        if share >= NOTED:
            warnings.append(f"W253: {name} and {other} share {100 * share:.1f} % of the cells of the smaller one")
    return _first(warnings)


def _matrix_of(dataset: SourceDataset) -> tuple[str, str | None, str | None]:
    found = dataset.source.fingerprint()
    return found["sha256"], dataset.layer, found.get("mod")


def _refuse_copies(datasets: Sequence[SourceDataset]) -> None:
    seen: dict[tuple[str, str | None, str | None], list[tuple[str | None, str | None, str]]] = {}
    for dataset in datasets:
        found = {"by": dataset.by, "stratum": dataset.stratum} | dataset.source.fingerprint()
        matrix = _matrix_of(dataset)
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
