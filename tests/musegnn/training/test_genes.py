"""Gene keys within and across species."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musegnn.errors import ConfigError
from musegnn.training.genes import gene_keys, read_orthologs


def table(tmp_path, text):
    path = tmp_path / "orthologs.csv"
    path.write_text(text, encoding="utf-8")
    return read_orthologs(path)


def test_orthologs_get_one_key(tmp_path):
    orthologs = table(tmp_path, "human,mouse,human_id,mouse_id\nACTB,Actb,ENSG1,ENSMUSG1\nCD4,Cd4,ENSG2,ENSMUSG2\n")
    human = gene_keys(np.array(["ACTB", "CD4", "XIST"]), "human", orthologs)
    mouse = gene_keys(np.array(["Cd4", "Actb", "Xist"]), "mouse", orthologs)
    assert human.tolist() == ["human:ACTB", "human:CD4", "human:XIST"]
    assert mouse.tolist() == ["human:CD4", "human:ACTB", "mouse:Xist"]


def test_equal_names_of_different_species_are_different_genes_without_a_row(tmp_path):
    orthologs = table(tmp_path, "human,mouse\nA,B\n")
    assert gene_keys(np.array(["A", "B"]), "mouse", orthologs).tolist() == ["mouse:A", "human:A"]
    assert gene_keys(np.array(["A", "B"]), "human", orthologs).tolist() == ["human:A", "human:B"]
    assert gene_keys(np.array(["A"]), "lemur", orthologs).tolist() == ["lemur:A"]


def test_rows_that_share_a_gene_are_left_out_whole(tmp_path):
    orthologs = table(tmp_path, "human,mouse\nA,a1\nA,a2\nB,b\nB,b\nC,\n")
    assert orthologs.n_ambiguous == 2
    assert gene_keys(np.array(["a1", "a2", "b"]), "mouse", orthologs).tolist() == ["mouse:a1", "mouse:a2", "human:B"]


def test_a_gene_missing_in_the_first_species_takes_the_next(tmp_path):
    orthologs = table(tmp_path, "human,mouse,lemur\n,m,l\n")
    assert gene_keys(np.array(["l"]), "lemur", orthologs).tolist() == ["mouse:m"]


@given(st.lists(st.tuples(st.sampled_from(["", "A", "B", "C"]), st.sampled_from(["", "a", "b", "c"])), max_size=8))
def test_keys_stay_unique_within_a_dataset(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("orthologs") / "table.csv"
    path.write_text("human,mouse\n" + "".join(f"{h},{m}\n" for h, m in rows))
    orthologs = read_orthologs(path)
    for species, genes in (("human", ["A", "B", "C", "a"]), ("mouse", ["a", "b", "c", "A"])):
        assert len(set(gene_keys(np.array(genes), species, orthologs).tolist())) == 4


@pytest.mark.parametrize("text", ["", "human\nA\n", "human,human\nA,B\n", "human,mouse\nA\n"])
def test_a_table_that_cannot_be_read_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="E306"):
        table(tmp_path, text)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.csv"):
        read_orthologs(tmp_path / "missing.csv")
