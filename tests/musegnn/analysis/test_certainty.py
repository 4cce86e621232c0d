"""Certainty on its way to users: vectors, lists of neighbours, contrasts, networks, files, the page."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import musegnn as mg
from musegnn.analysis.certainty import LOW, higher_certainty, marked_names, with_marks
from musegnn.analysis.consensus import consensus
from musegnn.analysis.export import export
from musegnn.analysis.neighbors import query
from musegnn.analysis.network import edge_table, write_network
from musegnn.analysis.report import data as page

DATA = Path(__file__).resolve().parents[2] / "data"


class Known:
    """A store of an earlier version, some datasets of which know the certainty of their genes."""

    def __init__(self, store, certainty):
        self.store, self.certainty, self.path = store, certainty, store.path

    def read(self, name):
        record = self.store.read(name)
        return replace(record, genes=replace(record.genes, certainty=self.certainty.get(name)))


@pytest.fixture
def model():
    return mg.MuSeGNN.load(DATA / "closed_form")


@pytest.fixture
def certainty(model):
    n = model.graphs[0].n_genes
    return {model.graphs[0].name: np.linspace(0, 1, n, dtype=np.float32)}


@pytest.fixture
def uncertain(annotated):
    annotated.obs["certainty"] = np.linspace(0.0, 1.0, annotated.n_obs, dtype=np.float32)
    return annotated


def test_vectors_have_it_where_the_store_has_it(model, certainty):
    assert "certainty" not in model.embeddings(layout=False).obs
    for name in model.records:
        record = model.records[name]
        model.records[name] = replace(record, genes=replace(record.genes, certainty=certainty.get(name)))
    obs = model.embeddings(layout=False).obs
    assert obs["certainty"].dtype == np.float32
    first = (obs["dataset"] == model.graphs[0].name).to_numpy()
    np.testing.assert_array_equal(obs["certainty"][first], certainty[model.graphs[0].name])
    assert obs["certainty"][~first].isna().all()


@pytest.mark.parametrize("by", ["balanced", "cosine"])
def test_neighbours_have_a_column_of_numbers(uncertain, by):
    found = query(uncertain, "GENE3", k=5, by=by)
    value = uncertain.obs["certainty"]
    where = dict(zip(zip(uncertain.obs["dataset"], uncertain.obs["gene"], strict=True), value, strict=True))
    expected = [where[key] for key in zip(found["dataset"], found["gene"], strict=True)]
    assert found["certainty"].tolist() == expected
    assert found["query_certainty"].nunique() == found["query"].nunique() == 3
    del uncertain.obs["certainty"]
    plain = query(uncertain, "GENE3", k=5, by=by)
    pd.testing.assert_frame_equal(plain, found.drop(columns=["certainty", "query_certainty"]))


def test_low_values_are_marked_in_a_terminal_alone():
    table = pd.DataFrame({"gene": list("abc"), "certainty": np.array([LOW - 0.01, LOW, np.nan], np.float32)})
    shown, legend = with_marks(table)
    assert shown["certainty"].tolist() == ["0.49 ?", "0.50", ""]
    assert "halves of the cells" in legend
    assert with_marks(table.iloc[1:])[1] == ""
    assert with_marks(table[["gene"]])[1] == ""


def test_the_commands_mark_and_say_it(model, tmp_path, capsys):
    from musegnn.cli import main

    for name in ("store", "closed_form"):
        shutil.copytree(DATA / name, tmp_path / name)
    run = tmp_path / "closed_form"
    adata = model.embeddings(layout=False)
    adata.obs["certainty"] = np.full(adata.n_obs, 0.9, np.float32)
    gene = adata.obs["gene"].iloc[0]
    own = (adata.obs["dataset"] == model.graphs[0].name).to_numpy()
    adata.obs.loc[own, "certainty"] = 0.25
    adata.write_h5ad(run / "embeddings.h5ad")

    def call(*arguments):
        with pytest.raises(SystemExit) as done:
            main([str(argument) for argument in arguments])
        assert done.value.code == 0, capsys.readouterr().err
        return capsys.readouterr().out

    text = call("neighbors", run, gene, "--to", tmp_path / "n.tsv")
    assert "0.25 ?" in text
    assert "0.90" in text
    assert f"{gene} itself is uncertain in {model.graphs[0].name} (0.25)" in text
    assert "query_certainty" not in text
    assert {0.25, 0.9} == set(pd.read_csv(tmp_path / "n.tsv", sep="\t")["certainty"].round(6))
    rows = json.loads(call("neighbors", run, gene, "--json"))
    assert {round(row["certainty"], 6) for row in rows} == {0.25, 0.9}
    adata.obs["certainty"] = np.full(adata.n_obs, 0.9, np.float32)
    adata.write_h5ad(run / "embeddings.h5ad")
    assert "uncertain" not in call("neighbors", run, gene)


def test_edges_have_the_higher_certainty_of_their_genes(model, certainty, tmp_path):
    store = Known(model.store, certainty)
    table = edge_table(store, model.config)
    name = model.graphs[0].name
    genes = model.records[name].genes.gene.tolist()
    known = dict(zip(genes, certainty[name].tolist(), strict=True))
    own = table[table["dataset"] == name]
    expected = [min(known[a], known[b]) for a, b in zip(own["source"], own["target"], strict=True)]
    assert own["certainty"].tolist() == expected
    assert table["certainty"][table["dataset"] != name].isna().all()
    networkx = pytest.importorskip("networkx")
    write_network(table, tmp_path / "n.graphml", format="graphml")
    read = networkx.read_graphml(tmp_path / "n.graphml")
    values = [data.get("certainty") for *_, data in read.edges(data=True)]
    assert sum(value is None for value in values) == int(table["certainty"].isna().sum())
    np.testing.assert_allclose(sorted(v for v in values if v is not None), sorted(expected), rtol=1e-6)
    assert "certainty" not in edge_table(model.store, model.config)


def test_files_have_it(uncertain, tmp_path):
    export(uncertain, tmp_path / "e.parquet", format="parquet")
    table = pq.read_table(tmp_path / "e.parquet")
    np.testing.assert_array_equal(table["certainty"].to_numpy(), uncertain.obs["certainty"])
    found = consensus(uncertain).obs
    expected = uncertain.obs.groupby("gene_key")["certainty"].max()
    np.testing.assert_array_equal(found["certainty"], expected[found["gene_key"]])


def test_a_contrast_takes_the_higher_one_of_both_groups():
    genes = pd.DataFrame(
        {"gene": list("abcd"), "certainty_a": [0.9, 0.1, 0.3, np.nan], "certainty_b": [0.2, np.nan, 0.4, np.nan]}
    )
    assert higher_certainty(genes)["certainty"].tolist()[:3] == [0.9, 0.1, 0.4]
    assert marked_names(genes) == ["a", "b ?", "c ?", "d"]
    unknown = genes.assign(certainty_b=np.nan).iloc[3:]
    assert "certainty" not in higher_certainty(unknown)
    assert marked_names(unknown) == marked_names(unknown[["gene"]]) == ["d"]


def test_the_page_marks_below_the_same_bound():
    script = (Path(page.__file__).parent / "assets" / "gene_panel.js").read_text()
    assert float(re.search(r"const LOW_CERTAINTY = ([0-9.]+);", script)[1]) == LOW
