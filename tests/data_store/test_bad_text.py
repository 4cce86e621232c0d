"""Text matrices that cannot be used are refused: by one line, with the place, the number and one action."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from musegnn.data_store import open_matrix, validate_counts
from musegnn.errors import InputError
from tests.data_store.refusal import refuse

C, G = 60, 5
HEADER = "%%MatrixMarket matrix coordinate integer general\n"
BARCODES = "".join(f"cell{i}-1\n" for i in range(C))
FEATURES = "".join(f"ENSG{i:011d}\tG{i}\tGene Expression\n" for i in range(G))


def lines(value="3"):
    return [f"{g + 1} {c + 1} {value}" for c in range(C) for g in range(G)]


def folder(path, *, mtx=None, barcodes=BARCODES, features=FEATURES, header=HEADER, size=f"{G} {C} {G * C}"):
    text = header + size + "\n" + "\n".join(lines() if mtx is None else mtx) + "\n"
    for name, content in (("matrix.mtx", text), ("barcodes.tsv", barcodes), ("features.tsv", features)):
        if content is not None:
            (path / name).write_text(content, encoding="utf-8")
    return path


# Truncated (B21)


@pytest.mark.parametrize("cut", [1, 4, 30, 500])
def test_a_truncated_matrix_names_the_line(cut, tmp_path):
    folder(tmp_path)
    raw = (tmp_path / "matrix.mtx").read_bytes()
    (tmp_path / "matrix.mtx").write_bytes(raw[: len(raw) - 1 - cut])
    refuse(tmp_path, "E231", "truncated", f"{G * C}", "line")


def test_a_truncated_gzip(tmp_path):
    folder(tmp_path)
    raw = gzip.compress((tmp_path / "matrix.mtx").read_bytes())
    (tmp_path / "matrix.mtx").unlink()
    for end in (len(raw) - 3, len(raw) // 2):
        (tmp_path / "matrix.mtx.gz").write_bytes(raw[:end])
        refuse(tmp_path, "E231", "ends early")
    damaged = bytearray(raw)
    damaged[len(raw) // 2] ^= 0xFF
    (tmp_path / "matrix.mtx.gz").write_bytes(damaged)
    refuse(tmp_path, "E231")


def test_a_header_without_sizes(tmp_path):
    refuse(folder(tmp_path, size="5 60"), "E231", "line 2")


# Files of a folder (B22)


def test_content_decides_what_is_gzip(tmp_path):
    folder(tmp_path)
    (tmp_path / "matrix.mtx").rename(tmp_path / "matrix.mtx.gz")  # plain, whatever its name
    (tmp_path / "barcodes.tsv").write_bytes(gzip.compress(BARCODES.encode()))
    assert validate_counts(open_matrix(tmp_path)).total == 3 * C * G


def test_tables_of_both_versions(tmp_path):
    folder(tmp_path)
    (tmp_path / "genes.tsv").write_text("".join(f"ENSG{i:011d}\tG{i}\n" for i in range(G)))
    assert open_matrix(tmp_path).gene.tolist() == [f"G{i}" for i in range(G)]
    (tmp_path / "genes.tsv").write_text("".join(f"ENSG{i + 9:011d}\tG{i}\n" for i in range(G)))
    refuse(tmp_path, "E233", "several tables", "genes.tsv", "features.tsv")


def test_several_samples_in_one_folder(tmp_path):
    for name in ("a", "b"):
        folder(tmp_path)
        for file in ("matrix.mtx", "barcodes.tsv", "features.tsv"):
            (tmp_path / file).rename(tmp_path / f"GSM1_{name}_{file}")
    refuse(tmp_path, "E233", "2 matrices", "GSM1_a_matrix.mtx")
    assert open_matrix(tmp_path / "GSM1_b_matrix.mtx").n_genes == G


@pytest.mark.parametrize(("missing", "what"), [("barcodes", "cells"), ("features", "genes")])
def test_a_missing_table(missing, what, tmp_path):
    refuse(folder(tmp_path, **{missing: None}), "E233", f"no table of {what}")


# Sizes (B23)


def test_sizes_that_differ_are_all_named(tmp_path):
    refuse(folder(tmp_path, barcodes=BARCODES + BARCODES), "E234", "5 x 60", "barcodes.tsv 120", "features.tsv 5")


@pytest.mark.parametrize(
    ("line", "parts"),
    [("0 1 3", ("line 12", "row 0", "from 1")), ("6 1 3", ("line 12", "row 6", "5 x 60")), ("1 61 3", ("column 61",))],
)
def test_places_outside_the_matrix(line, parts, tmp_path):
    mtx = lines()
    mtx[9] = line
    refuse(folder(tmp_path, mtx=mtx), "E234", *parts)


def test_more_lines_than_the_header_says(tmp_path):
    refuse(folder(tmp_path, size=f"{G} {C} {G * C - 2}"), "E234", f"{G * C} lines", f"{G * C - 2}")


# Values (B24, B25)


def test_fractions_below_an_integer_header(tmp_path):
    mtx = lines()
    mtx[7] = "3 2 5.7"
    refuse(folder(tmp_path, mtx=mtx), "E235", "header says integers", "line 10 has 5.7")


@pytest.mark.parametrize("line", ["1 2 three", "1 2", "1 2 3 4", "x"])
def test_lines_that_are_no_counts(line, tmp_path):
    mtx = lines()
    mtx[7] = line
    refuse(folder(tmp_path, mtx=mtx), "E235", "line 10")


@pytest.mark.parametrize(("value", "code"), [("2.5", "E201"), ("-1", "E203"), ("nan", "E204")])
def test_values_of_a_real_header(value, code, tmp_path):
    mtx = lines()
    mtx[0] = f"1 1 {value}"
    refuse(folder(tmp_path, mtx=mtx, header=HEADER.replace("integer", "real")), code, f"{value} at cell 0, G0")


@pytest.mark.parametrize(
    "kind", ["matrix array real general", "matrix coordinate real symmetric", "matrix coordinate complex general"]
)
def test_kinds_that_are_no_counts(kind, tmp_path):
    refuse(folder(tmp_path, header=f"%%MatrixMarket {kind}\n"), "E235", "kind")


def test_duplicate_lines_are_summed_and_counted(tmp_path):
    mtx = [*lines()[:1], *lines()]
    for order in (mtx, sorted(mtx, key=lambda line: int(line.split()[0]))):
        source = open_matrix(folder(tmp_path, mtx=order, size=f"{G} {C} {G * C + 1}"))
        [(_, first)] = source.blocks(100)
        assert first[0, 0] == 6
        assert source.n_merged() == 1


def test_order_that_breaks_later(tmp_path, monkeypatch):
    monkeypatch.setattr("musegnn.data_store.formats.matrix_market.SAMPLE_BYTES", 100)
    mtx = lines()
    refuse(folder(tmp_path, mtx=[*mtx[10:], *mtx[:10]]), "E235", "order of cells")


# Tables


def table(path, rows, header="\tg0\tg1\tg2\tg3"):
    file = path / "x.tsv"
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


def rows(values="1\t0\t2\t3"):
    return [f"cell{i}\t{values}" for i in range(C)]


def test_missing_values_and_text_in_tables(tmp_path):
    bad = rows()
    bad[3] = "cell3\t1\tNA\t2\t3"
    refuse(table(tmp_path, bad), "E204", "nan at cell 3, g1")
    bad[3] = "cell3\t1\tT cell\t2\t3"
    refuse(table(tmp_path, bad), "E235", "T cell")
    bad[3] = "cell3\t1\t2"
    refuse(table(tmp_path, bad), "E235", "columns")


def test_tables_that_are_none(tmp_path):
    refuse(table(tmp_path, []), "E230", "no table")
    refuse(table(tmp_path, rows("1\t2")), "E234", "5 fields", "line 2 has 3")
    (tmp_path / "x.tsv").write_bytes("\t".join(["", "a", "na\xefve"]).encode("latin-1") + b"\nc\t1\t2\n")
    refuse(tmp_path / "x.tsv", "E240")


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    file = table(tmp_path, rows())
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert open_matrix(file).gene.tolist() == ["g0", "g1", "g2", "g3"]


# Other files (B19)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("x.rds", gzip.compress(b"X\n\x00\x00\x00", mtime=0), "zellkonverter"),
        ("x.gz", gzip.compress(b"RDX3\nX\n", mtime=0), "zellkonverter"),
        ("x.h5ad.gz", gzip.compress(b"\x89HDF\r\n\x1a\n", mtime=0), "gunzip"),
        ("x.tar", b"a" * 257 + b"ustar" + b"\x00" * 300, "extract"),
        ("x.parquet", b"PAR1\x00", "Parquet"),
        ("x.npz", b"PK\x03\x04", "zip"),
        ("x.csv", b"\x00\x01\x02", "no format"),
        ("x.html", b" <!DOCTYPE html>", "HTML"),
        ("x.txt", "gene,a\n".encode("utf-16"), "no format"),
    ],
)
def test_formats_that_are_not_read_say_what_to_do(name, content, what, tmp_path):
    (tmp_path / name).write_bytes(content)
    refuse(tmp_path / name, "E230", what)


def test_any_bytes_end_in_one_line(tmp_path):
    rng = np.random.default_rng(0)
    folder(tmp_path)
    raw = (tmp_path / "matrix.mtx").read_bytes()
    accepted, refused = 0, []
    for _ in range(200):
        changed = bytearray(raw)
        for place in rng.integers(0, len(raw), rng.integers(1, 4)):
            changed[place] = rng.integers(0, 256)
        (tmp_path / "matrix.mtx").write_bytes(changed)
        try:
            validate_counts(open_matrix(tmp_path))
            accepted += 1
        except InputError as error:
            refused.append(error.line())
    assert not any("\n" in line for line in refused)
    assert accepted + len(refused) == 200
    assert len(refused) > 50
