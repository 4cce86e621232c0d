"""A label's cells are read from pieces as from a file that holds them alone."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musegnn.data_store import (
    ArraySource,
    PackedSource,
    blocks,
    label_codes,
    open_matrix,
    pack,
    slug,
    split_counts,
    stratum_labels,
)
from musegnn.data_store.names import check_dataset_name
from musegnn.errors import InputError, WriteError


def split(source, column, folder, *, edges, rows=7):
    """Pack all ranges between the edges."""
    labels, codes = label_codes(source, column) if column else (["all"], np.zeros(source.n_cells, dtype=np.int32))
    places = [0, *edges, source.n_cells]
    return [
        pack(source, codes, len(labels), a, b, rows, folder / f"{i}.npz") for i, (a, b) in enumerate(pairwise(places))
    ]


def same_blocks(one, other, rows, start=0, stop=None):
    """Compare all blocks bit by bit."""
    ours = list(one.blocks(rows, start=start, stop=stop))
    theirs = list(other.blocks(rows, start=start, stop=stop))
    assert [(p, b.shape) for p, b in ours] == [(p, b.shape) for p, b in theirs]
    for (_, a), (_, b) in zip(ours, theirs, strict=True):
        for part in ("indptr", "indices", "data"):
            assert getattr(a, part).dtype == getattr(b, part).dtype
            assert np.array_equal(getattr(a, part), getattr(b, part))


@pytest.fixture
def adata(counts, make_adata):
    rng = np.random.default_rng(3)
    adata = make_adata(counts)
    adata.X.data[rng.integers(0, adata.X.nnz, 40)] = 0
    adata.X.data[::50] *= 300
    adata.X.data[7] = 2**24
    adata.obsm["spatial"] = rng.random((120, 2))
    adata.obs["kind"] = pd.Categorical(rng.choice(["T cell", "B cell", "neuron"], 120, p=[0.6, 0.35, 0.05]))
    adata.obs["age"] = rng.integers(20, 60, 120)
    adata.obs.loc["cell5", "kind"] = np.nan
    return adata


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_label_is_read_as_the_file_of_its_cells(data, adata, save, tmp_path):
    edges = sorted(data.draw(st.lists(st.integers(0, 120), max_size=4)))
    rows = data.draw(st.integers(1, 130))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "MAX_ENTRIES", data.draw(st.sampled_from([1, 30, 100, 2**22])))
        patch.setattr(split_counts, "PAGE_ENTRIES", data.draw(st.sampled_from([1, 64, 2**20])))
        source = open_matrix(save(adata), spatial_key="spatial")
        strata = stratum_labels(source, "kind")
        pieces = split(source, "kind", tmp_path, edges=edges, rows=data.draw(st.integers(1, 130)))
        for code, (label, cells) in enumerate(strata.items()):
            assert np.array_equal(cells, np.flatnonzero(adata.obs["kind"] == label))
            mine = PackedSource(source, pieces, code, cells=cells, by="kind", stratum=label)
            subset = save(adata[cells].copy(), name="subset.h5ad")
            whole = open_matrix(subset, spatial_key="spatial", min_cells=1)
            start = data.draw(st.integers(0, len(cells)))
            stop = data.draw(st.integers(start, len(cells)))
            same_blocks(mine, whole, rows)
            same_blocks(mine, whole, rows, start, stop)
            assert np.array_equal(mine.coords, whole.coords)
            for column in ("kind", "age"):
                assert np.array_equal(mine.obs(column), whole.obs(column))
            assert (mine.n_cells, mine.n_genes) == (whole.n_cells, whole.n_genes)
            assert np.array_equal(mine.gene, whole.gene)
            assert np.array_equal(mine.gene_id, whole.gene_id)
            assert mine.n_entries == (adata.X[cells] != 0).sum()
            assert mine.warnings == whole.warnings
            assert mine.path == source.path
            assert mine.fingerprint() == source.fingerprint() | {"by": "kind", "stratum": label}


@pytest.mark.parametrize("rows", [1, 16, 500])
def test_a_file_by_columns_is_packed_once(rows, adata, save, tmp_path):
    by_row = open_matrix(save(adata, name="rows.h5ad"))
    adata.X = adata.X.tocsc()
    source = open_matrix(save(adata))
    assert (source.access, by_row.access) == ("columns", "rows")
    pieces = split(source, None, tmp_path, edges=[50])
    mine = PackedSource(source, pieces, 0, cells=np.arange(120))
    same_blocks(mine, by_row, rows)
    same_blocks(mine, by_row, rows, 30, 77)
    assert mine.fingerprint() == source.fingerprint()
    assert mine.warnings == source.warnings


def test_arrays_are_packed_in_the_smallest_types(tmp_path):
    X = np.zeros((6, 4), dtype=np.int64)
    X[np.arange(6), np.arange(6) % 4] = [1, 255, 256, 65535, 65536, 2**24]
    source = ArraySource(X, list("abcd"), obs={"n": np.arange(6) // 2})
    strata = stratum_labels(source, "n")
    assert list(strata) == ["0", "1", "2"]
    (piece,) = split(source, "n", tmp_path, edges=[])
    with np.load(piece.path) as arrays:
        assert arrays["pages"][:, :5].tolist() == [[0, 2, 2, 0, 1], [1, 2, 2, 18, 2], [2, 2, 2, 38, 4]]
        assert len(arrays["counts"]) == 62
    wide = ArraySource(sp.csr_matrix(([3], ([0], [2**16])), shape=(1, 2**16 + 1)), [f"g{i}" for i in range(2**16 + 1)])
    (piece,) = split(wide, None, tmp_path, edges=[])
    ((_, block),) = PackedSource(wide, [piece], 0, cells=np.arange(1)).blocks(5)
    assert (block.indices.tolist(), block.data.tolist()) == ([2**16], [3])


@pytest.fixture
def packed_pair(adata, save, tmp_path):
    source = open_matrix(save(adata))
    strata = stratum_labels(source, "kind")
    pieces = split(source, "kind", tmp_path, edges=[60])
    return PackedSource(source, pieces, 1, cells=strata["T cell"], by="kind", stratum="T cell"), pieces


def test_packed_counts_survive_pickling(packed_pair):
    mine, _ = packed_pair
    same_blocks(pickle.loads(pickle.dumps(mine)), mine, 16)


def test_empty_ranges_and_ranges_outside(packed_pair, adata, save):
    mine, _ = packed_pair
    assert list(mine.blocks(5, start=3, stop=3)) == []
    for wrong in ({"start": -1}, {"stop": mine.n_cells + 1}, {"start": 3, "stop": 2}, {"rows": 0}):
        with pytest.raises(ValueError, match=r"expected a range|rows must"):
            list(mine.blocks(**({"rows": 5} | wrong)))


def test_packing_twice_gives_the_same_bytes(packed_pair, adata, tmp_path):
    mine, pieces = packed_pair
    before = [piece.path.read_bytes() for piece in pieces]
    source = mine._source
    split(source, "kind", tmp_path, edges=[60])
    assert [piece.path.read_bytes() for piece in pieces] == before
    assert list(tmp_path.glob(".*")) == []


def test_any_damaged_byte_is_found_or_harmless(packed_pair):
    """Every byte of a piece, one after another: the counts are the same, or the file is refused."""
    mine, pieces = packed_pair
    expected = [(p, b.toarray()) for p, b in mine.blocks(50)]
    path = pieces[0].path
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    errors = []
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = [(p, b.toarray()) for p, b in mine.blocks(50)]
        except InputError as error:
            errors.append(error)
        else:
            for (p, a), (q, b) in zip(expected, found, strict=True):
                assert p == q
                assert np.array_equal(a, b)
    assert len(errors) > len(whole) / 3 * 0.2
    assert {error.code for error in errors} == {"E232"}
    assert all(path.name in error.line() and len(error.line()) <= 300 for error in errors)
    for broken in (whole[: len(whole) // 2], b"", whole[:-1]):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="E232"):
            list(mine.blocks(50))
    path.unlink()
    with pytest.raises(InputError, match=r"E232.*missing"):
        list(mine.blocks(50))


def test_a_piece_of_other_labels_is_refused(packed_pair):
    mine, pieces = packed_pair
    pieces[0].path.write_bytes(pieces[1].path.read_bytes())
    with pytest.raises(InputError, match=r"E232.*cells of label 1"):
        list(mine.blocks(50))


def test_bad_values_leave_no_file(counts, tmp_path):
    X = counts.toarray()
    X[70, 3] = np.nan
    source = ArraySource(X, [f"g{i}" for i in range(30)])
    codes = np.zeros(120, dtype=np.int32)
    with pytest.raises(InputError, match=r"E204.*at cell 70, g3"):
        pack(source, codes, 1, 0, 120, 16, tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []
    pack(source, codes, 1, 0, 70, 16, tmp_path / "a.npz")
    with pytest.raises(WriteError, match="E292"):
        pack(source, codes, 1, 0, 70, 16, tmp_path / "none" / "a.npz")
    for wrong in (codes[:-1], codes + 1, codes - 2):
        with pytest.raises(ValueError, match="expected codes"):
            pack(source, wrong, 1, 0, 70, 16, tmp_path / "a.npz")


def test_pieces_that_do_not_hold_all_cells_are_refused(packed_pair):
    mine, pieces = packed_pair
    with pytest.raises(ValueError, match="in the pieces"):
        PackedSource(mine._source, pieces[:1], 1, cells=mine._cells)


def labels(values):
    values = np.asarray(values)
    return stratum_labels(ArraySource(np.ones((len(values), 2)), ["a", "b"], obs={"x": values}), "x")


@given(values=st.lists(st.sampled_from(["a", "b", "c d", "", "é1"]), min_size=1, max_size=40))
def test_labels_are_those_of_pandas(values):
    groups = pd.Series(np.arange(len(values))).groupby(np.array(values)).apply(list).to_dict()
    groups.pop("", None)
    if groups:
        found = labels(values)
        assert {k: v.tolist() for k, v in found.items()} == groups
        assert list(found) == sorted(found)
    else:
        with pytest.raises(InputError, match=r"E256.*no values"):
            labels(values)


def test_numbers_are_labels_when_they_are_few():
    assert list(labels([2.0, 10.0, -1.5, np.nan, np.inf])) == ["-1.5", "2", "10", "inf"]
    assert list(labels([True, False])) == ["0", "1"]
    assert len(labels(np.arange(100))) == 100
    with pytest.raises(InputError, match=r"E256.*101 different numbers"):
        labels(np.arange(101))


@given(text=st.text())
def test_slugs_are_safe_in_names(text):
    name = slug(text)
    assert len(name) <= len(text)
    check_dataset_name(("x." + name)[:128])
    assert slug(name) == name


def test_labels_that_cannot_be_told_apart_in_names_are_refused():
    assert list(labels(["CD4+ T", "CD4- T"])) == ["CD4+ T", "CD4- T"]
    with pytest.raises(InputError, match=r"E257.*'a_b' and 'a b' both become 'a_b'"):
        labels(["a b", "a_b"])
    with pytest.raises(InputError, match=r"E257.*'β' has no letter or digit"):
        labels(["β"])


def test_unknown_column_names_some_that_exist(adata, save):
    for i in range(5):
        adata.obs[f"c{i}"] = i
    with pytest.raises(InputError, match=r"E255.*`cluster`.*c0, c1, c2, c3, \.\.\."):
        stratum_labels(open_matrix(save(adata)), "cluster")
