"""Graphs as edge lists, opened by the programs they are for; and neighbours with what the graphs say."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import musegnn as mg
from musegnn.analysis.gene_lists import read_names
from musegnn.analysis.neighbors import query
from musegnn.analysis.network import edge_table, write_network
from musegnn.errors import InputError
from musegnn.graph import EdgeSet

DATA = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture(scope="module")
def model():
    return mg.MuSeGNN.load(DATA / "closed_form")


@pytest.fixture(scope="module")
def table(model):
    return edge_table(model.store, model.config)


def test_every_edge_is_there_once(model, table):
    for name, edges in model.edges.items():
        part = table[table["dataset"] == name]
        assert len(part) == edges.n_edges // 2
        gene = model.records[name].genes.gene
        known = {}
        for i, j, z in zip(edges.rows, edges.indices, edges.z, strict=True):
            known[frozenset((gene[i], gene[j]))] = z
        for row in part.itertuples():
            assert known[frozenset((row.source, row.target))] == row.z
        assert part["z"].abs().is_monotonic_decreasing
    one = edge_table(model.store, model.config, dataset=model.graphs[0].name)
    assert set(one["dataset"]) == {model.graphs[0].name}
    with pytest.raises(InputError, match="choose one of"):
        edge_table(model.store, model.config, dataset="nothing")


def test_pandas_and_networkx_read_it(table, tmp_path):
    networkx = pytest.importorskip("networkx")
    write_network(table, tmp_path / "n.tsv", format="edges")
    back = pd.read_csv(tmp_path / "n.tsv", sep="\t")
    pd.testing.assert_frame_equal(back, table, check_dtype=False, rtol=1e-6)
    odd = table.head(20).copy()
    odd.loc[odd.index[0], "source"] = 'A<&">'
    write_network(odd, tmp_path / "n.graphml", format="graphml")
    graph = networkx.read_graphml(tmp_path / "n.graphml")
    assert graph.number_of_edges() == 20
    assert 'A<&">' in graph
    weights = sorted(data["weight"] for *_, data in graph.edges(data=True))
    np.testing.assert_allclose(weights, sorted(odd["estimate"]), rtol=1e-6)
    assert {data["dataset"] for *_, data in graph.edges(data=True)} == set(odd["dataset"])


def test_the_net_for_decoupler_has_unique_pairs_in_both_directions(table, tmp_path):
    write_network(table, tmp_path / "n.tsv", format="decoupler")
    net = pd.read_csv(tmp_path / "n.tsv", sep="\t")
    assert net.columns.tolist() == ["source", "target", "weight"]
    assert not net.duplicated(["source", "target"]).any()
    pairs = set(zip(net["source"], net["target"], strict=True))
    assert {(b, a) for a, b in pairs} == pairs


def test_decoupler_scores_with_it(table, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoupler = pytest.importorskip("decoupler")
        write_network(table, tmp_path / "n.tsv", format="decoupler")
        net = pd.read_csv(tmp_path / "n.tsv", sep="\t")
        genes = sorted(set(net["target"]))
        hub = net["source"].value_counts().index[0]
        partners = net[net["source"] == hub].set_index("target")["weight"]
        data = pd.DataFrame(0.0, index=["up", "flat"], columns=genes)
        data.loc["flat"] = np.random.default_rng(0).normal(size=len(genes))
        data.loc["up", partners.index] = partners
        scores, _ = decoupler.mt.ulm(data, net, tmin=3)
    assert scores.loc["up"].idxmax() == hub


def star(n, centre, others, z):
    """Make the graph of one gene with some others."""
    rows = np.array([centre] * len(others) + list(others), dtype=np.int64)
    columns = np.array(list(others) + [centre] * len(others), dtype=np.int64)
    value = np.array(list(z) * 2, dtype=np.float32)
    order = np.lexsort((columns, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int64)
    features = np.zeros((len(rows), 2), dtype=np.float32)
    return EdgeSet(
        indptr=indptr,
        indices=columns[order].astype(np.int32),
        z=value[order],
        estimate=value[order] / 10,
        features=features,
        cutoff=2.8,
    )


@pytest.fixture
def graphs(annotated):
    """GENE3 goes with 4, 5 and 6 in the lung, with 5 alone in brain_visium, and with none in brain_atac."""
    found = {}
    for name, partners in (("lung_rna", [4, 5, 6]), ("brain_visium", [5]), ("brain_atac", [])):
        keys = annotated.obs["gene_key"][(annotated.obs["dataset"] == name).to_numpy()].to_numpy(dtype=str)
        place = {key: k for k, key in enumerate(keys.tolist())}
        others = [place[f"GENE{k}"] for k in partners]
        found[name] = (keys, star(len(keys), place["GENE3"], others, [9.0, -5.0, 4.0][: len(others)]))
    return found


def test_partners_in_one_dataset_but_not_in_another(annotated, graphs):
    found = query(annotated, "GENE3", dataset="lung_rna", by="coexpression", graphs=graphs)
    assert found["gene"].tolist() == ["GENE4", "GENE5", "GENE6"]
    np.testing.assert_array_equal(found["z"], [9.0, -5.0, 4.0])
    np.testing.assert_allclose(found["estimate"], [0.9, -0.5, 0.4], rtol=1e-6)
    for where in ("brain_visium", "brain"):
        found = query(annotated, "GENE3", dataset="lung_rna", by="coexpression", graphs=graphs, not_in=where)
        assert found["gene"].tolist() == ["GENE4", "GENE6"]
    found = query(annotated, "GENE3", dataset="lung_rna", by="coexpression", graphs=graphs, not_in="brain_atac")
    assert len(found) == 3


def test_z_stands_beside_neighbours_by_cosine(annotated, graphs):
    plain = query(annotated, "GENE3", k=40)
    found = query(annotated, "GENE3", k=40, graphs=graphs)
    pd.testing.assert_frame_equal(found[plain.columns], plain)
    own = found[(found["query"] == "lung_rna") & (found["dataset"] == "lung_rna")]
    assert own.set_index("gene")["z"].dropna().to_dict() == {
        gene: z for gene, z in (("GENE4", 9.0), ("GENE5", -5.0), ("GENE6", 4.0)) if gene in set(own["gene"])
    }
    assert found[found["dataset"] != found["query"]]["z"].isna().all()
    without = query(annotated, "GENE3", k=200, graphs=graphs, not_in="lung")
    assert not {"GENE4", "GENE5", "GENE6"} & set(without["gene"])


def test_one_tissue_alone(annotated):
    found = query(annotated, "GENE3", tissue="brain", k=5)
    assert set(found["query"]) == {"brain_visium", "brain_atac"}
    assert set(found["tissue"]) == {"brain"}
    with pytest.raises(InputError, match="choose one of: brain, lung"):
        query(annotated, "GENE3", tissue="skin")
    with pytest.raises(InputError, match="no dataset or tissue nowhere"):
        query(annotated, "GENE3", graphs={}, not_in="nowhere")


@pytest.fixture
def run(tmp_path, model):
    for name in ("store", "closed_form"):
        shutil.copytree(DATA / name, tmp_path / name)
    adata = model.embeddings(layout=False)
    adata.obs["cluster"] = pd.Categorical(np.where(np.arange(adata.n_obs) % 2 == 0, "0", "1"))
    adata.write_h5ad(tmp_path / "closed_form" / "embeddings.h5ad")
    return tmp_path / "closed_form"


def test_the_commands(run, model, tmp_path, capsys):
    from musegnn.cli import main

    def call(*arguments):
        with pytest.raises(SystemExit) as done:
            main([str(argument) for argument in arguments])
        assert done.value.code == 0, capsys.readouterr().err
        return capsys.readouterr().out

    graph = model.graphs[0]
    names = model.records[graph.name].genes.gene.tolist()
    hub = names[int(np.argmax(np.diff(model.edges[graph.name].indptr)))]
    for kind, file in (("npz", "consensus_gene.npz"), ("edges", "network.edges.tsv"), ("graphml", "network.graphml")):
        call("export", run, "--format", kind, *(["--per", "gene"] if kind == "npz" else []))
        assert (run / file).stat().st_size > 0
    out = call("neighbors", run, hub, "--dataset", graph.name, "--by", "coexpression", "--to", tmp_path / "n.tsv")
    assert " z " in out
    near = pd.read_csv(tmp_path / "n.tsv", sep="\t")
    assert near["z"].abs().is_monotonic_decreasing
    everywhere = names[:40]
    gmt = tmp_path / "sets.gmt"
    gmt.write_text("\t".join(["planted", "", *near["gene"]]) + "\n" + "\t".join(["first", "", *everywhere]) + "\n")
    found = pd.DataFrame(json.loads(call("enrich", run, "--gmt", gmt, "--fdr", "1", "--json")))
    assert set(found["set"]) <= {"planted", "first"}
    call("enrich", run, "--gmt", gmt, "--of", hub, "--k", "10")
    call("predict", run, "--gmt", gmt, "--to", tmp_path / "p.tsv")
    scores = pd.read_csv(tmp_path / "p.tsv", sep="\t")
    assert {"set", "gene", "member", "score", "probability"} <= set(scores)
    assert scores["probability"].between(0, 1).all()
    (tmp_path / "list.txt").write_text("# a list\n" + ", ".join(near["gene"]) + "\n")
    (tmp_path / "factors.txt").write_text("\n".join(everywhere))
    figures = [tmp_path / name for name in ("upset.png", "bubbles.png")]
    shown = call("factors", run, "--genes", tmp_path / "list.txt", "--factors", tmp_path / "factors.txt", "--json",
                 "--fdr", "1", "--per", "dataset", "--figure", figures[0])  # fmt: skip
    rows = pd.DataFrame(json.loads(shown))
    assert graph.name in set(rows["context"])
    assert set(rows["factor"]) <= set(everywhere)
    call("enrich", run, "--gmt", gmt, "--of", tmp_path / "list.txt", "--k", "20", "--figure", figures[1])
    assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in figures)


def test_a_list_of_genes_that_is_none_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("# nothing\n")
    for name in ("empty.txt", "absent.txt"):
        with pytest.raises(InputError, match="E279"):
            read_names(tmp_path / name)
