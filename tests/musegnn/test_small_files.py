"""Tables and lists that spreadsheets and editors write: marks, blank lines, other separators."""

from __future__ import annotations

import pytest

from musegnn.atlas_file import read_genes
from musegnn.errors import ConfigError, InputError
from musegnn.evaluation.gene_sets import read_gmt
from musegnn.training.genes import read_orthologs

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]
ENDS = ["\n", "\r\n"]


def write(path, lines, encoding="utf-8", end="\n"):
    path.write_bytes(end.join(lines).encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_orthologs(separator, end, encoding, tmp_path):
    rows = [("human", "mouse", "human_id"), ("ACTB", "Actb", "ENSG1"), ("", "", ""), ("GFAP", "Gfap", "")]
    lines = ["", *(separator.join(row) for row in rows), "", "   "]
    table = read_orthologs(write(tmp_path / "t.csv", lines, encoding, end))
    assert table.species == ("human", "mouse")
    assert table.keys["mouse"] == {"Actb": "human:ACTB", "Gfap": "human:GFAP"}


def test_a_row_of_orthologs_that_is_too_short_is_named_by_its_line(tmp_path):
    with pytest.raises(ConfigError, match=r"E306.*line 4 has 1 fields, the header 2"):
        read_orthologs(write(tmp_path / "t.csv", ["human,mouse", "ACTB,Actb", "", "GFAP"]))
    for lines in ([], ["human"], ["", ""], ["human,human", "A,B"]):
        with pytest.raises(ConfigError, match="E306"):
            read_orthologs(write(tmp_path / "t.csv", lines))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ENDS)
def test_gene_lists(end, encoding, tmp_path):
    lines = ["ACTB", "", '"GFAP"', "  HLA-A ", "# a comment", "TP53\tENSG00000141510", "SOX2,x", ""]
    assert read_genes(write(tmp_path / "g.txt", lines, encoding, end)) == ("ACTB", "GFAP", "HLA-A", "TP53", "SOX2")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ENDS)
def test_gene_sets(end, encoding, tmp_path):
    lines = ["one\tabout\tACTB\tGFAP\t", "", "two\t\tTP53,1.0\tSOX2,0.5"]
    sets = read_gmt(write(tmp_path / "s.gmt", lines, encoding, end))
    assert sets == {"one": {"ACTB", "GFAP"}, "two": {"TP53", "SOX2"}}


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"human,mouse\nna\xefve,x\n")
    for read, code in ((read_orthologs, "E306"), (read_genes, "E300"), (read_gmt, "E279")):
        with pytest.raises((ConfigError, InputError), match=code):
            read(path)
