"""Datasets beside one another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musegnn.data_store import ArraySource, open_h5ad
from musegnn.data_store.atlas_checks import SourceDataset, check_sources
from musegnn.errors import InputError

SYMBOLS = ["ACTB", "GAPDH", "TP53", "C1orf43", *[f"GENE{i}" for i in range(40)]]


def member(name, genes, *, species="human", seed=0, layer=None):
    X = np.random.default_rng(seed).poisson(1.0, size=(5, len(genes)))
    return SourceDataset(name=name, species=species, layer=layer, source=ArraySource(X, genes, name=name))


def test_different_data_with_names_of_one_kind_pass():
    mouse = [s.capitalize() for s in SYMBOLS]
    atlas = [member("a", SYMBOLS), member("b", SYMBOLS, seed=1), member("m", mouse, species="mouse")]
    assert check_sources(atlas) == []


def test_the_same_data_twice_is_refused():
    with pytest.raises(
        InputError, match=r"E252.* b: holds the same counts as dataset `a`, so results would leak between them\. Fix:"
    ):
        check_sources([member("a", SYMBOLS), member("b", SYMBOLS)])
    assert check_sources([member("a", SYMBOLS), member("b", SYMBOLS, layer="unspliced")]) == []


def test_identifiers_beside_symbols_are_refused():
    ids = [f"ENSG{i:011d}" for i in range(44)]
    with pytest.raises(InputError, match=r"E211.*identifiers in b and symbols in a"):
        check_sources([member("a", SYMBOLS), member("b", ids)])


@pytest.mark.parametrize(("prefix", "declared", "actual"), [("ENSMUSG", "human", "mouse"), ("ENSG", "mouse", "human")])
def test_identifiers_of_another_species_are_refused(prefix, declared, actual):
    ids = [f"{prefix}{i:011d}" for i in range(44)]
    with pytest.raises(InputError, match=rf"E214.*declared as {declared}.*are of {actual}"):
        check_sources([member("a", ids, species=declared)])
    assert check_sources([member("a", ids, species=actual)]) == []


def test_symbols_of_another_case_warn():
    assert check_sources([member("a", SYMBOLS, species="mouse")]) == [
        "W214: a is declared as mouse, but its gene symbols look like human"
    ]


def test_the_example_atlas_passes(root):
    folder = root / "examples" / "atlas"
    species = {"cortex_rna": "mouse", "forebrain_atac": "mouse"}
    members = [
        SourceDataset(name=p.stem, species=species.get(p.stem, "human"), layer=None, source=open_h5ad(p))
        for p in sorted(folder.glob("*.h5ad"))
    ]
    assert len(members) == 7
    assert check_sources(members) == []


def test_two_strata_of_one_file_are_different_data():
    whole = member("a", SYMBOLS)

    def part(name, by, stratum):
        return replace(whole, name=name, by=by, stratum=stratum)

    assert check_sources([part("a", "donor", "1"), part("b", "donor", "2")]) == []
    for other in (part("c", "batch", "1"), part("c", None, None)):
        with pytest.raises(InputError, match=r"E252.* c: holds cells of dataset `a`"):
            check_sources([part("a", "donor", "1"), part("b", "donor", "2"), other])
    with pytest.raises(InputError, match=r"E252.* c: holds the same counts as dataset `a`"):
        check_sources([part("a", "donor", "1"), part("b", "donor", "2"), part("c", "donor", "1")])
