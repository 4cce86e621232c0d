"""Gene names that lost their first letters to ``str.lstrip`` with the name of a genome."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from musegnn.data_store import open_matrix
from musegnn.data_store.inspection import inspect
from musegnn.data_store.stripped_names import FAMILIES, find_stripped

EXAMPLES = Path(__file__).parents[2] / "examples" / "atlas"
DAMAGED = {"hs_lung_hlca_query.h5ad", "lung_hlca.h5ad"}


def _strip(name, characters):
    """Do to a name what the programs did that this is about."""
    return name.lstrip(characters)


@pytest.fixture(scope="module")
def symbols():
    """Return the symbols of all genes with an ortholog, by species."""
    with (EXAMPLES / "orthologs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {species: sorted({row[species] for row in rows if row[species]}) for species in ("human", "mouse")}


@pytest.mark.parametrize("separator", ["_", "___", "-", "---", "."])
@pytest.mark.parametrize(
    ("species", "genome"),
    [
        *(("human", genome) for genome in ("GRCh38", "GRCh37", "GRCH38", "CHM13", "T2T-CHM13", "HG19", "HG38")),
        *(("mouse", genome) for genome in ("GRCm38", "GRCm39", "GRCM38", "mRatBN7.2", "Rnor_6.0")),
    ],
)
def test_names_that_lost_letters_are_found(species, genome, separator, symbols):
    whole = symbols[species]
    stripped = [_strip(genome + separator + name, genome + separator) for name in whole]
    found = find_stripped(stripped)
    assert found is not None
    assert len(found.lost) >= 3
    assert {left: _strip(name, found.genome + "_") for left, name in found.lost.items()} == {n: n for n in found.lost}
    assert set(found.letters) <= set(genome)
    assert find_stripped([f"{genome}{separator}{name}".removeprefix(genome + separator) for name in whole]) is None


def test_mitochondrial_genes_of_mouse_lose_their_letter():
    names = ["mt-Nd1", "mt-Nd2", "mt-Co1", "mt-Atp6", "Actb", "Gapdh", "Cd74"]
    found = find_stripped([_strip(name, "mm10_") for name in names])
    assert (found.genome, found.letters) == ("mm10", "m")
    assert found.lost["t-Nd1"] == "mt-Nd1"
    assert find_stripped(names) is None


@pytest.mark.parametrize("genome", ["hg19", "hg38", "rn6", "mm10"])
def test_genomes_whose_characters_begin_no_symbol_change_and_warn_of_nothing(genome, symbols):
    human = [name for name in symbols["human"] if name[0].isupper()]
    assert [_strip(name, f"{genome}_") for name in human] == human
    assert find_stripped(human) is None


def test_whole_names_of_any_selection_are_no_alarm(symbols):
    rng = np.random.default_rng(0)
    for names in symbols.values():
        selections = [rng.choice(names, size).tolist() for size in (30, 300, 3000) for _ in range(40)]
        letters = sorted({name[0].upper() for name in names})
        selections += [[name for name in names if name[0].upper() == letter] for letter in letters]
        selections += [[name for name in names if name[0].upper() not in "CGRM"]]
        assert [find_stripped(selection) for selection in selections] == [None] * len(selections)


@pytest.mark.parametrize(("species", "genome"), [("human", "GRCh38_"), ("mouse", "GRCm38_")])
def test_small_panels_are_found(species, genome, symbols):
    rng = np.random.default_rng(1)
    panels = [rng.choice(symbols[species], 200, replace=False).tolist() for _ in range(40)]
    assert sum(find_stripped([_strip(name, genome) for name in panel]) is not None for panel in panels) >= 38
    assert [find_stripped(panel) for panel in panels] == [None] * len(panels)


def test_families_look_like_no_whole_symbol(symbols):
    looks = [name for names in symbols.values() for name in names if any(f.fullmatch(name) for _, f in FAMILIES)]
    assert looks == []


def test_small_letters_of_other_species_are_no_alarm():
    names = ["dh1", "ab12", "nf7", "bp3", "dk2", "actb1", "tp53", "sox2", "pax6a", "ldn5"] * 3
    assert find_stripped(names) is None


def test_other_kinds_of_names_are_no_alarm():
    for names in ([], [""], ["1", "2"], [f"ENSG{i:011d}" for i in range(300)], [f"g{i}" for i in range(300)]):
        assert find_stripped(names) is None


def test_a_file_is_described_with_a_column_of_whole_names(make_adata, save):
    names = ["COL1A1", "GAPDH", "CD74", "CALM1", "RPL3", "ACTB", *(f"LOC{i}" for i in range(24))]
    stripped = [_strip(name, "GRCh38_") for name in names]
    adata = make_adata(genes=stripped)
    plain = open_matrix(save(adata)).warnings
    assert len(plain) == 1
    assert plain[0].startswith("W222: gene names lost first letters, as by lstrip('GRCh38_'): hardly one of 30 begins")
    assert "5 are the rest of known names" in plain[0]
    assert "PL3 (RPL3), D74 (CD74), ALM1 (CALM1)" in plain[0]
    assert plain[0].endswith("restore the names where they were stripped")
    assert len(plain[0]) <= 300
    ids = [f"ENSG{i:011d}" for i in range(30)]
    for column, values in (("feature_name", names), ("gene_ids", ids)):
        adata.var = pd.DataFrame({"note": "x", "symbol": stripped, column: values}, index=stripped)
        path = save(adata)
        assert inspect(path)[0].source.warnings[0].endswith(f"set `gene_name_key: {column}`")
        repaired = open_matrix(path, gene_name_key=column)
        assert repaired.gene.tolist() == values
        assert not any("W222" in warning for warning in repaired.warnings)


def _names(path):
    with h5py.File(path) as file:
        return file["var"][file["var"].attrs["_index"]].asstr()[:].tolist()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.h5ad")), ids=lambda path: path.name)
def test_of_the_examples_the_damaged_one_alone_is_found(path):
    assert (find_stripped(_names(path)) is not None) == (path.name in DAMAGED)


def test_of_the_real_datasets_the_damaged_one_alone_is_found(shared):
    found = {path.name for path in (shared / "data").glob("*.h5ad") if find_stripped(_names(path)) is not None}
    assert found == {"hs_lung_hlca_query.h5ad"}
