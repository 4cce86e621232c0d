"""What cannot be used is refused: by one line, with the place, the number and one action."""

from __future__ import annotations

import importlib.util
import os
import resource
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from musegnn.data_store import ArraySource, open_matrix, validate_counts
from musegnn.data_store.blocks import windows
from musegnn.data_store.names import decode_names
from musegnn.data_store.validate import check_pointers
from musegnn.errors import InputError
from tests.data_store.refusal import refuse


def changed(counts, value, *places):
    X = counts.astype(np.float64).toarray()
    for cell, gene in places:
        X[cell, gene] = value
    return X


# Values (B1 to B6)


@pytest.mark.parametrize("encoding", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize(
    ("value", "code", "what"),
    [
        (np.nan, "E204", "4 NaN or infinite values"),
        (np.inf, "E204", "4 NaN or infinite values"),
        (-2.0, "E203", "4 negative values"),
        (-0.5, "E203", "4 negative values"),
        (2.0**24 + 2, "E206", "4 values above 2^24"),
        (1e300, "E206", "4 values above 2^24"),
        (2.5, "E201", "4 values that are not integers"),
    ],
)
def test_values_that_are_not_counts(encoding, value, code, what, counts, make_adata, save):
    X = encoding(changed(counts, value, (3, 5), (40, 0), (41, 7), (119, 29)))
    line = refuse(save(make_adata(X)), code, what, "at cell 3, Gene5", "...")
    assert "cell 119" not in line


def test_few_fractions_can_be_rounded(make_adata, save):
    X = np.ones((60, 100))
    X[2, 3] = 1.5
    refuse(save(make_adata(X)), "E202", "1 values", "1.5 at cell 2, Gene3", "round the counts")


def test_largest_exact_count_is_accepted(make_adata, save):
    X = np.ones((60, 4))
    X[0, 0] = 2**24
    assert validate_counts(open_matrix(save(make_adata(X)))).largest == 2**24


@pytest.mark.parametrize("value", [2**53 + 1, 2**32 + 5, 2**63 - 1])
def test_huge_integers_do_not_wrap(value, make_adata, save):
    X = np.ones((60, 4), dtype=np.int64)
    X[9, 1] = value
    refuse(save(make_adata(X)), "E206", "1 values above 2^24", "at cell 9, Gene1")


def test_duplicates_that_sum_beyond_the_limit(make_adata, save):
    def edit(file):
        for key, value in (
            ("data", np.full(300, 2.0**24, dtype=np.float32)),
            ("indices", np.zeros(300, dtype=np.int32)),
            ("indptr", np.concatenate([[0], np.full(120, 300)]).astype(np.int32)),
        ):
            del file["X"][key]
            file["X"][key] = value

    refuse(save(make_adata(), edit), "E206", "at cell 0, Gene0")


def test_nothing_but_zeros(make_adata, save):
    refuse(save(make_adata(sp.csr_matrix((60, 4)))), "E207", "every count is zero")


@pytest.mark.parametrize(
    ("place", "fix"), [("counts", "`layer: counts`"), ("raw", "`layer: raw`"), ("um", "layer: um")]
)
def test_counts_elsewhere_are_named(place, fix, counts, make_adata, save):
    adata = make_adata(np.log1p(counts.toarray()))
    if place == "raw":
        adata.raw = make_adata(counts)
    else:
        adata.layers["scaled"] = counts.toarray() - 0.5
        adata.layers[place] = counts
    refuse(save(adata), "E201", "not integers, as in normalised data", f"Fix: set `layer: {place}`")


def test_normalised_layer_points_to_x(counts, make_adata, save):
    adata = make_adata(counts)
    adata.layers["lognorm"] = np.log1p(counts.toarray())
    refuse(save(adata), "E201", "leave `layer` out", layer="lognorm")


# Structure (S3, S4, S5, S7)


def put(key, value):
    def edit(file):
        del file["X"][key]
        file["X"][key] = value

    return edit


def broken_indptr(change):
    def edit(file):
        indptr = file["X/indptr"][()].astype(np.int64)
        change(indptr)
        put("indptr", indptr)(file)

    return edit


def broken_indices(value, dtype=np.int32, at=100):
    def edit(file):
        indices = file["X/indices"][()].astype(dtype)
        indices[at] = value
        put("indices", indices)(file)

    return edit


def shape(value):
    def edit(file):
        file["X"].attrs["shape"] = np.array(value)

    return edit


def add(key, amount):
    def change(indptr):
        indptr[key] += amount

    return change


MALFORMED = {
    "index of the column count": broken_indices(30),
    "index far outside": broken_indices(2**31 - 1),
    "index beyond int32": broken_indices(2**40, np.int64),
    "index that wraps to a good one": broken_indices(2**32 + 1, np.int64),
    "negative index": broken_indices(-1),
    "most negative index": broken_indices(-(2**31)),
    "pointers start above zero": broken_indptr(add(0, 1)),
    "pointers start below zero": broken_indptr(add(0, -1)),
    "pointers decrease": broken_indptr(add(50, 1000)),
    "pointers negative": broken_indptr(add(50, -(2**40))),
    "last pointer too large": broken_indptr(add(-1, 1)),
    "last pointer too small": broken_indptr(add(-1, -1)),
    "too few pointers": lambda file: put("indptr", file["X/indptr"][:-1])(file),
    "too many pointers": lambda file: put("indptr", np.append(file["X/indptr"][()], file["X/indptr"][-1]))(file),
    "no pointers": put("indptr", np.zeros(0, dtype=np.int32)),
    "fewer values than indices": lambda file: put("data", file["X/data"][:-1])(file),
    "fewer indices than values": lambda file: put("indices", file["X/indices"][:-1])(file),
    "fractional pointers": lambda file: put("indptr", file["X/indptr"][()].astype(float))(file),
    "text values": lambda file: put("data", np.array([b"x"] * file["X/data"].shape[0]))(file),
    "a matrix of values": lambda file: put("data", file["X/data"][()].reshape(1, -1))(file),
    "values missing": lambda file: file["X"].__delitem__("data"),
    "fewer columns than genes": shape((120, 29)),
    "more columns than genes": shape((120, 31)),
    "more rows than cells": shape((121, 30)),
    "negative shape": shape((-120, 30)),
    "unknown encoding": lambda file: file["X"].attrs.__setitem__("encoding-type", "coo_matrix"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_rows(what, make_adata, save):
    refuse(save(make_adata(), MALFORMED[what]), "E102")


@pytest.mark.parametrize("what", ["negative index", "pointers decrease", "index far outside", "last pointer too small"])
def test_malformed_columns(what, counts, make_adata, save):
    edit = broken_indptr(add(10, 1000)) if what == "pointers decrease" else MALFORMED[what]
    refuse(save(make_adata(counts.tocsc()), edit), "E102")


def test_links_out_of_the_file_are_refused(tmp_path, counts, make_adata, save):
    secret = save(make_adata(), name="secret.h5ad")

    def external(file):
        del file["X"]
        file["X"] = h5py.ExternalLink(str(secret), "/X")

    def soft(file):
        file.move("X", "Y")
        file["X"] = h5py.SoftLink("/Y")

    def raw_storage(file):
        del file["X"]
        outside = tmp_path / "raw.bin"
        outside.write_bytes(bytes(120 * 30 * 4))
        file.create_dataset("X", (120, 30), "f4", external=[(str(outside), 0, h5py.h5f.UNLIMITED)])

    def virtual(file):
        del file["X"]
        layout = h5py.VirtualLayout((120, 30), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "X/data", shape=(120, 30))
        file.create_virtual_dataset("X", layout)

    for edit in (external, soft, raw_storage, virtual):
        refuse(save(make_adata(), edit), "E105")


def test_shape_bombs_are_refused_before_they_are_allocated(make_adata, save):
    def dense(file):
        del file["X"]
        file.create_dataset("X", (10**6, 10**6), "f4", chunks=(1000, 1000), compression="gzip")

    def values(file):
        for key in ("data", "indices"):
            del file["X"][key]
            file["X"].create_dataset(key, (10**12,), "i4", chunks=(10**6,), compression="gzip")

    def names(file):
        del file["var/_index"]
        file["var"].create_dataset("_index", (10**11,), "S16", chunks=(10**6,), compression="gzip")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for edit in (dense, values, names):
        refuse(save(make_adata(), edit), "E120", "declares")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


@pytest.mark.slow
def test_mutated_files_never_kill_the_reader(make_adata, save, tmp_path):
    """300 files with random damage: each is read, or refused by an InputError; the process lives."""
    adata = make_adata()
    adata.obs["kind"] = pd.Categorical(["a", "b"] * 60)
    path = save(adata)
    script = """
import sys
import numpy as np
from pathlib import Path
from musegnn.data_store import open_matrix, validate_counts
from musegnn.errors import InputError
from tests.data_store.refusal import refuse
path, target = Path(sys.argv[1]), Path(sys.argv[2])
raw = np.frombuffer(path.read_bytes(), dtype=np.uint8)
refused = 0
for seed in range(300):
    rng = np.random.default_rng(seed)
    damaged = raw.copy()
    hits = rng.integers(0, len(raw), size=rng.integers(1, 20))
    damaged[hits] = rng.integers(0, 256, size=len(hits))
    target.write_bytes(damaged.tobytes())
    try:
        source = open_matrix(target, spatial_key=None)
        source.obs("kind")
        list(source.blocks(17, start=30, stop=90, validate=False))
        validate_counts(source, rows=17)
    except InputError as error:
        refused += 1
        assert len(error.line()) <= 300, error.line()
print(refused)
"""
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "damaged.h5ad")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 50


# Names (B7 to B13)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")  # that is what is tested
def test_repeated_gene_names(make_adata, save):
    genes = ["A", "A", "B", "B", *[f"g{i}" for i in range(26)]]
    refuse(save(make_adata(genes=genes)), "E210", "2 gene names", "A, B", "make the gene names unique")


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_repeated_gene_names_with_a_column_of_identifiers(make_adata, save):
    adata = make_adata(genes=["A", "A", *[f"g{i}" for i in range(28)]])
    adata.var["length"] = np.arange(30)
    adata.var["kind"] = "gene"
    adata.var["ensembl"] = [f"ENSG{i:011d}" for i in range(30)]
    refuse(save(adata), "E210", "Fix: set `gene_id_key: ensembl`")


def test_unknown_identifier_column(make_adata, save):
    adata = make_adata()
    adata.var["ensembl"] = "x"
    refuse(save(adata), "E255", "no column `ids`", "ensembl", gene_id_key="ids")


def test_versions_that_collide(make_adata, save):
    genes = ["ENSG00000000003.1", "ENSG00000000003.2", *[f"g{i}" for i in range(28)]]
    refuse(save(make_adata(genes=genes)), "E212", "ENSG00000000003")


def test_two_genomes_in_one_matrix(make_adata, save):
    genes = [f"GRCh38_G{i}" for i in range(15)] + [f"mm10___G{i}" for i in range(15)]
    refuse(save(make_adata(genes=genes)), "E213", "GRCh38, mm10")


def test_names_made_by_a_spreadsheet_warn(make_adata, save):
    source = open_matrix(save(make_adata(genes=["1-Mar", "2-Sep", " A", *[f"g{i}" for i in range(27)]])))
    assert [w[:4] for w in source.warnings] == ["W211", "W212"]


def test_genes_by_cells(make_adata, save):
    rng = np.random.default_rng(0)
    barcodes = ["".join(rng.choice(list("ACGT"), 16)) + "-1" for _ in range(60)]
    refuse(save(make_adata(np.ones((80, 60)), genes=barcodes)), "E216", "transpose")
    adata = make_adata(np.ones((80, 60)), genes=[f"s{i}" for i in range(60)])
    adata.obs_names = ["Actb", "Gapdh", "B2m", *[f"n{i}" for i in range(77)]]
    refuse(save(adata), "E216", "80 rows look like genes")


def test_names_that_are_not_utf8(make_adata, save):
    def edit(file):
        attributes = dict(file["var/_index"].attrs)
        del file["var/_index"]
        file["var/_index"] = np.array([b"na\xefve", *[b"g%d" % i for i in range(29)]])
        file["var/_index"].attrs.update(attributes)

    refuse(save(make_adata(), edit), "E240", "row 0")


def test_names_that_hold_a_nul():
    with pytest.raises(InputError, match=r"E241.*var/_index: the name in row 1 holds a NUL"):
        decode_names(["A", "B\0C", "D"], where="x.h5ad", what="var/_index")


@pytest.mark.parametrize("genes", [["A"] * 3, ["A", "B"]])
def test_arrays_need_one_name_per_gene(genes):
    with pytest.raises(ValueError, match=r"E210|expected a name"):
        ArraySource(np.ones((60, 3)), genes)


# Files (B15 to B20, B31, B33, B34, B43)


def test_missing_x_lists_the_matrices(counts, make_adata, save):
    adata = make_adata(None)
    adata.layers["counts"] = counts
    refuse(save(adata), "E220", "counts (120, 30)", "Fix: set `layer: counts`")
    adata.layers["spliced"] = counts
    refuse(save(adata), "E221", "Fix: set `layer: counts`")


def test_unknown_layer(make_adata, save):
    path = save(make_adata())
    for layer in ("counts", "raw", "../X", "/X", "../../etc"):
        refuse(path, "E220", "X (120, 30)", layer=layer)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"PK\x03\x04rest", "zip"),
        (b"version https://git-lfs.github.com/spec/v1\noid x", "Git LFS"),
        (b"\n<!DOCTYPE html><html>404</html>", "HTML"),
        (b"\x00\x01\x02binary", "no format that is read"),
    ],
)
def test_other_files_under_this_name(content, what, tmp_path):
    path = tmp_path / "data.h5ad"
    path.write_bytes(content)
    refuse(path, "E230", what)


def test_no_file_and_a_folder(tmp_path):
    refuse(tmp_path / "none.h5ad", "E230", "no such file")
    refuse(tmp_path, "E230", "a folder")


def test_hdf5_that_is_not_anndata(tmp_path):
    path = tmp_path / "matrix.h5"
    with h5py.File(path, "w") as file:
        file.create_group("matrix")
    refuse(path, "E230", "no AnnData: it holds matrix")


def test_truncated_file(make_adata, save):
    path = save(make_adata())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refuse(path, "E231", f"it has {len(whole) // 2} bytes and says {len(whole)}")


def test_damaged_chunk(counts, make_adata, tmp_path):
    path = tmp_path / "input.h5ad"
    make_adata().write_h5ad(path, compression="gzip")
    with h5py.File(path, "r") as file:
        offset = file["X/data"].id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 10 : offset + 40] = bytes(30)
    path.write_bytes(raw)
    refuse(path, "E231", "damaged file")


def test_too_few_cells(make_adata, save):
    path = save(make_adata(np.ones((49, 4))))
    refuse(path, "E251", "49 cells, expected at least 50")
    assert open_matrix(path, min_cells=10).n_cells == 49


def test_file_that_changes_while_it_is_read(make_adata, save):
    path = save(make_adata())
    source = open_matrix(path)
    blocks = source.blocks(50)
    next(blocks)
    os.utime(path, ns=(0, 0))
    with pytest.raises(InputError, match="E291"):
        list(blocks)
    with pytest.raises(InputError, match="E291"):
        source.fingerprint()


@pytest.mark.parametrize(
    ("coords", "what"),
    [
        (None, "without coordinates"),
        (np.zeros((120, 2)), "all spots have the same coordinates"),
        (np.where(np.arange(240).reshape(120, 2) == 10, np.nan, 1.0), "1 spots have no finite coordinates (first: 5)"),
        (np.ones((120, 5)), "have shape (120, 5)"),
    ],
)
def test_coordinates(coords, what, make_adata, save):
    adata = make_adata()
    adata.obsm["X_pca"] = np.ones((120, 2))
    if coords is not None:
        adata.obsm["spatial"] = coords
    refuse(save(adata), "E260", what, spatial_key="spatial")


def test_slides_that_lie_over_one_another(make_adata, save):
    adata = make_adata()
    adata.obsm["spatial"] = np.random.default_rng(0).random((120, 2))
    adata.obs["library_id"] = pd.Categorical(["a", "b"] * 60)
    path = save(adata)
    refuse(path, "E261", "2 slides", spatial_key="spatial")
    adata.obsm["spatial"][1::2] += 10
    assert open_matrix(save(adata, name="apart.h5ad"), spatial_key="spatial").coords.shape == (120, 2)


# Files that are whole, but cannot be read here


def test_a_filter_that_is_not_installed_is_named(tmp_path, counts, make_adata, monkeypatch):
    path = tmp_path / "zstd.h5ad"
    make_adata().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        data = file["X/data"][()]
        del file["X/data"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((len(data),))
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((len(data),))
        dataset = h5py.h5d.create(file["X"].id, b"data", h5py.h5t.IEEE_F32LE, space, plist)
        dataset.write_direct_chunk((0,), data.tobytes(), 0)
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, real=importlib.util.find_spec: None if name == "hdf5plugin" else real(name),
    )
    line = refuse(path, "E238", "compressed by a filter", "pip install hdf5plugin")
    assert "damaged" not in line


def test_a_file_that_is_being_written_elsewhere_is_named(make_adata, save):
    path = save(make_adata())
    script = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "open\n"
        refuse(path, "E237", "another program has it open for writing", "HDF5_USE_FILE_LOCKING")
        writer.stdin.close()
    open_matrix(path)


def test_pointers_beyond_two_to_the_31_keep_their_values():
    pointers = np.array([0, 2**31 - 5, 2**31 + 1, 2**31 + 3], dtype=np.int64)
    check_pointers(pointers, 3, 2**31 + 3, 2**31 + 3, where="x")
    assert list(windows(pointers, 10)) == [(0, 1), (1, 3)]
    with pytest.raises(InputError, match=rf"E102.*end at {2**31 + 3}"):
        check_pointers(pointers, 3, 2**31 + 2, 2**31 + 2, where="x")


@pytest.mark.parametrize("place", ["obs", "var", "obsm", "layers", "uns", ""])
def test_names_of_arrays_that_are_not_utf8_are_left_out(place, counts, make_adata, save):
    def edit(file):
        group = file[place] if place else file
        group.create_dataset(b"na\xefve", data=np.zeros(counts.shape[1 if place == "var" else 0]))

    source = open_matrix(save(make_adata(), edit))
    assert validate_counts(source).n_values == counts.nnz


def test_loom_with_links_that_lead_nowhere(counts, tmp_path):
    path = tmp_path / "x.loom"
    with h5py.File(path, "w") as file:
        file["matrix"] = counts.toarray().T
        file["row_attrs/Gene"] = np.array([f"Gene{i}" for i in range(30)], dtype="S")
        file["col_attrs/CellID"] = np.array([f"c{i}" for i in range(120)], dtype="S")
        file["col_attrs/lost"] = h5py.SoftLink("/nowhere")
    refuse(path, "E260", spatial_key="spatial")
