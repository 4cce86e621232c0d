"""Datasets beside one another."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from musegnn.data_store import ArraySource, open_matrix
from musegnn.data_store.atlas_checks import SourceDataset, check_sources, overlap_of
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


def test_identifiers_behind_symbols_are_of_the_species_too():
    ids = [f"ENSMUSG{i:011d}" for i in range(44)]
    X = np.random.default_rng(0).poisson(1.0, size=(5, 44))
    source = ArraySource(X, SYMBOLS, gene_id=ids, name="a")
    with pytest.raises(InputError, match=r"E214.*declared as human.*are of mouse"):
        check_sources([SourceDataset(name="a", species="human", layer=None, source=source)])


def test_symbols_of_another_case_warn():
    assert check_sources([member("a", SYMBOLS, species="mouse")]) == [
        "W214: a is declared as mouse, but its gene symbols look like human"
    ]


def test_the_example_atlas_passes(root):
    folder = root / "examples" / "atlas"
    species = {"cortex_rna": "mouse", "forebrain_atac": "mouse"}
    members = [
        SourceDataset(name=p.stem, species=species.get(p.stem, "human"), layer=None, source=open_matrix(p))
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


# Names that do not match though genes do

MANY = [f"GENE{i}" for i in range(120)]


def pair(one, other, **settings):
    return [member("a", one, **settings), member("b", other, seed=1, **settings)]


SPELLED = {
    "case": ([name.capitalize() for name in MANY], "case", "mouse"),
    "versions": ([f"{name}.{i % 9 + 1}" for i, name in enumerate(MANY)], "version suffixes", "dog"),
    "separators": ([name.replace("GENE", "GENE-") for name in MANY], "case, versions and separators", "human"),
    "everything": ([f"gene_{i}.1" for i in range(120)], "case, versions and separators", "human"),
}


@pytest.mark.parametrize("kind", SPELLED)
def test_names_that_agree_by_another_spelling_alone_are_refused(kind):
    other, how, species = SPELLED[kind]
    with pytest.raises(InputError, match=rf"E215.* b: a and b share 0 of 120 genes, and 120 but for {how}"):
        check_sources(pair(MANY, other, species=species))
    mixed = MANY[:40] + other[40:]
    (warning,) = [w for w in check_sources(pair(MANY, mixed, species=species)) if not w.startswith("W214")]
    assert warning.startswith(f"W220: a and b share 40 of 120 genes, and 120 but for {how}")


def test_the_table_of_overlaps_counts_every_spelling():
    first = ["A1", "B-2", "C3.1", "D", "E"]
    second = ["a1", "B.2", "C3.7", "D", "F"]
    (found,) = overlap_of(pair(first, second))
    assert (found.n_one, found.n_other, found.shared) == (5, 5, 1)
    assert (found.any_case, found.any_version, found.any_spelling) == (2, 2, 4)


def test_few_shared_genes_warn_and_many_pairs_are_summed_up():
    other = MANY[:5] + [f"OTHER{i}" for i in range(115)]
    assert check_sources(pair(MANY, other)) == ["W215: a and b share 5 of 120 genes"]
    several = [member(f"d{k}", [f"K{k}GENE{i}" for i in range(60)], seed=k) for k in range(5)]
    warnings = check_sources(several)
    assert len(warnings) == 5
    assert warnings[-1].endswith("share 0 of 60 genes; 5 more such pairs")


def test_identifiers_that_differ_behind_equal_names_warn():
    def with_ids(name, first):
        X = np.random.default_rng(first).poisson(1.0, size=(5, 120))
        ids = [f"ENSG{first + i:011d}" for i in range(120)]
        return SourceDataset(
            name=name, species="human", layer=None, source=ArraySource(X, MANY, gene_id=ids, name=name)
        )

    assert check_sources([with_ids("a", 0), with_ids("b", 1000)]) == [
        "W223: a and b share 120 of 120 genes, of which 120 have another identifier in the other one"
    ]
    assert check_sources([with_ids("a", 0), member("b", MANY, seed=3)]) == []


# Cells that two files share


@pytest.fixture
def files(tmp_path):
    """Write files of some cells of one matrix, under some names, and return them as datasets."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1.0, 1.0, 80) * rng.gamma(4.0, 0.25, (900, 1)))

    def write(*parts, by_column=False, **options):
        datasets = []
        for k, (cells, genes, names) in enumerate(parts):
            X = (sp.csc_matrix if by_column else sp.csr_matrix)(counts[cells][:, genes].astype(np.float32))
            adata = ad.AnnData(X, var=pd.DataFrame(index=pd.Index([f"GENE{i}" for i in np.arange(80)[genes]])))
            adata.obs_names = [names.format(i) for i in np.arange(900)[cells]]
            path = tmp_path / f"{k}.h5ad"
            adata.write_h5ad(path, **options)
            datasets.append(SourceDataset(name=f"d{k}", species="human", layer=None, source=open_matrix(path)))
        return datasets

    return write


ALL = slice(None)
SHARED = {
    "a part": [(slice(0, 600), ALL, "cell{}"), (slice(0, 450), ALL, "cell{}")],
    "a part under other names": [(slice(0, 600), ALL, "cell{}"), (slice(0, 450), ALL, "x_{}-1")],
    "a part in another order": [(slice(0, 600), ALL, "cell{}"), (slice(449, None, -1), ALL, "{}")],
    "genes in another order": [(slice(0, 600), ALL, "cell{}"), (slice(0, 450), slice(None, None, -1), "y{}")],
    "genes left out": [(slice(0, 600), ALL, "cell{}"), (slice(0, 450), slice(0, 60), "cell{}")],
    "genes left out of the larger one": [(slice(0, 600), slice(10, 80), "cell{}"), (slice(0, 450), ALL, "cell{}")],
}


@pytest.mark.parametrize("case", SHARED)
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_cells_in_two_files_are_refused(case, whole, files, monkeypatch):
    if not whole:
        monkeypatch.setattr("musegnn.data_store.shared_cells.WHOLE", 100)
        monkeypatch.setattr("musegnn.data_store.shared_cells.BY_LENGTH", 200)
    with pytest.raises(
        InputError, match=r"E252.* d1: shares (?:9[0-9]|100) % of the cells of the smaller one with dataset `d0`"
    ):
        check_sources(files(*SHARED[case]))


def test_a_few_shared_cells_warn(files):
    (warning,) = check_sources(files((slice(0, 500), ALL, "a{}"), (slice(475, 900), ALL, "b{}")))
    assert warning == "W253: d1 and d0 share 5.9 % of the cells of the smaller one"


@pytest.mark.parametrize("by_column", [False, True])
def test_other_cells_of_the_same_names_are_other_cells(files, by_column):
    datasets = files((slice(0, 450), ALL, "cell"), (slice(450, 900), ALL, "cell"), by_column=by_column)
    assert check_sources(datasets) == []


def test_cells_that_repeat_within_a_dataset_tell_nothing(tmp_path):
    rng = np.random.default_rng(0)
    datasets = []
    for k in range(2):
        adata = ad.AnnData(sp.csr_matrix((rng.random((500, 12)) < 0.95).astype(np.float32)))
        adata.var_names = [f"GENE{i}" for i in range(12)]
        adata.obs_names = [f"{k}_{i}" for i in range(500)]
        adata.write_h5ad(tmp_path / f"{k}.h5ad")
        source = open_matrix(tmp_path / f"{k}.h5ad")
        datasets.append(SourceDataset(name=f"d{k}", species="human", layer=None, source=source))
    assert check_sources(datasets) == []
