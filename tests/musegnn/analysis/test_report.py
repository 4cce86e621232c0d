"""The page as a file: its payload, its safety, its tables."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib

import numpy as np
import pytest

from musegnn.analysis.colors import dataset_colors, tissue_colors
from musegnn.analysis.report import ReportData, data, write_report
from musegnn.analysis.report.packing import place
from musegnn.analysis.report.page import render
from musegnn.analysis.report.tables import MAX_ROUNDS, evaluation_tables, graph_rows, loss_curves
from musegnn.vectors import nearest_split, typical_similarity, unit_rows

STRANGE = "<script>alert(1)</script>"


def payload(page):
    """Read the two blocks back, as the page does."""
    header, arrays = {}, {}
    for block in ("points", "lists"):
        text = re.search(rf'<script type="text/plain" id="data-{block}">([^<]*)</script>', page)[1]
        body = zlib.decompress(base64.b64decode(text))
        length = int.from_bytes(body[:4], "little")
        head, at = json.loads(body[4 : 4 + length]), 4 + length
        for entry in head.pop("arrays"):
            dtype, size = np.dtype("<" + entry["type"]), entry["size"]
            planes = np.frombuffer(body, np.uint8, size * dtype.itemsize, at).reshape(dtype.itemsize, size)
            arrays[entry["name"]] = np.ascontiguousarray(planes.T).view(dtype).ravel()
            at += size * dtype.itemsize
        assert at == len(body)
        header |= head
    return header, arrays


def order_of(report_data):
    return place(np.asarray(report_data.adata.obsm["X_umap"], dtype=np.float64))[1]


def unzigzag(code):
    wide = code.astype(np.int64)
    return (wide >> 1) ^ -(wide & 1)


def test_payload_holds_names_places_and_labels(report_data):
    header, arrays = payload(render(report_data, k=6))
    obs = report_data.adata.obs.iloc[order_of(report_data)]
    assert [header["genes"][g] for g in arrays["name"]] == obs["gene"].tolist()
    ids = [header["ids"][g] or header["genes"][g] for g in arrays["name"]]
    assert ids == obs["gene_id"].tolist()
    keys = arrays["key_of"][arrays["name"]]
    assert len(set(zip(keys, obs["gene_key"], strict=True))) == obs["gene_key"].nunique() == header["n_keys"]
    for name, category in header["categories"].items():
        codes = np.array(category["by_dataset"])[arrays["dataset"]] if "by_dataset" in category else arrays[name]
        assert [category["values"][c] for c in codes] == obs[name].astype(str).tolist()
    for number in header["numbers"]:
        code = arrays["n:" + number["name"]].astype(float)
        values = np.where(code > 0, number["start"] + (code - 1) * number["step"], np.nan)
        np.testing.assert_allclose(values, obs[number["name"]].to_numpy(float), atol=number["step"] / 2 + 1e-6)
    code = np.cumsum(arrays["place"], dtype=np.uint64)
    bits = np.arange(16, dtype=np.uint64)
    x, y = ((((code[:, None] >> (2 * bits + np.uint64(a))) & np.uint64(1)) << bits).sum(axis=1) for a in (0, 1))
    layout = report_data.adata.obsm["X_umap"]
    back = np.stack([x, y], axis=1) / 65535 * header["span"] + layout.min(axis=0)
    np.testing.assert_allclose(back, layout[order_of(report_data)], atol=np.max(header["span"]) / 65535)


def test_payload_holds_neighbours(report_data):
    header, arrays = payload(render(report_data, k=6))
    order = order_of(report_data)
    group, unit = arrays["dataset"].astype(np.int64), unit_rows(report_data.adata.X[order], dtype=np.float32)
    typical = typical_similarity(unit, group)
    np.testing.assert_allclose(np.reshape(header["typical"], typical.shape), typical, atol=1e-5)
    for name, found in zip(("within", "across"), nearest_split(unit, group, 6, typical=typical), strict=True):
        code = arrays[f"{name}_index"].reshape(-1, 6)
        if name == "across":
            at = np.arange(len(unit))[:, None] + unzigzag(code)
        else:  # places among the points of the dataset
            mine = [np.flatnonzero(group == g) for g in group]
            own = np.array([np.searchsorted(m, i) for i, m in enumerate(mine)])
            local = own[:, None] + unzigzag(code)
            at = np.array([m[np.minimum(row, len(m) - 1)] for m, row in zip(mine, local, strict=True)])
        index = np.where(code > 0, at, -1)
        np.testing.assert_array_equal(index, found.index)
        cosine = np.einsum("pd,pkd->pk", unit, unit[found.index])
        step = arrays[f"{name}_score"].reshape(-1, 6).astype(np.int64)
        score = np.cumsum(np.where(np.arange(6) == 0, step, -step), axis=1) % 2**16
        np.testing.assert_allclose(score / 1000 - 1, cosine, atol=0.0005 + 1e-6)


def test_payload_holds_partners_and_sets(report_data):
    header, arrays = payload(render(report_data))
    obs = report_data.adata.obs.iloc[order_of(report_data)]
    starts = np.concatenate([[0], np.cumsum(arrays["partner_count"], dtype=int)])
    for point in (0, 50, len(obs) - 1):
        mine = np.flatnonzero(obs["dataset"] == obs["dataset"].iloc[point])
        part = slice(starts[point], starts[point + 1])
        code, drop = arrays["partner_index"][part], arrays["partner_z"][part].astype(int)
        size = np.cumsum(np.where(np.arange(len(drop)) == 0, drop, -drop))
        found = {obs["gene"].iloc[mine[c // 2]]: s / 20 * (-1) ** int(c % 2) for c, s in zip(code, size, strict=True)}
        rows = report_data.adata.obs[(report_data.adata.obs["dataset"] == obs["dataset"].iloc[point]).to_numpy()]
        pairs, row = report_data.pairs[obs["dataset"].iloc[point]], rows["gene"].tolist().index(obs["gene"].iloc[point])
        entries = slice(pairs.indptr[row], pairs.indptr[row + 1])
        expected = dict(zip(rows["gene"].iloc[pairs.indices[entries]], pairs.z[entries].tolist(), strict=True))
        assert found == pytest.approx(expected, abs=0.0251)
    assert header["sets"] == ["HALLMARK_FIRST_TWENTY", "cell thing (GO:0000001)"]
    assert arrays["set_size"].tolist() == [19, 14]  # the gene with a strange name is not called GENE7


def test_datasets_of_a_tissue_stand_together_in_shades_of_its_colour(report_data):
    header, _ = payload(render(report_data))
    assert header["categories"]["dataset"]["values"] == ["brain_atac", "brain_visium", "lung_rna"]
    assert header["categories"]["tissue"]["values"] == ["brain", "lung"]
    tissue_of = {"brain_atac": "brain", "brain_visium": "brain", "lung_rna": "lung"}
    assert header["colors"]["dataset"] == list(dataset_colors(tissue_of).values())
    assert header["colors"]["tissue"] == list(tissue_colors(tissue_of).values())
    report_data.adata.obs["tissue"] = "lung"
    assert payload(render(report_data))[0]["colors"] == {}


def test_cosines_of_copies_are_those_of_pairs_in_the_order_of_datasets(report_data):
    header, arrays = payload(render(report_data))
    order = order_of(report_data)
    unit = unit_rows(report_data.adata.X[order], dtype=np.float32)
    keys, expected = arrays["key_of"][arrays["name"]], []
    for key in range(header["n_keys"]):
        members = np.flatnonzero(keys == key)
        members = members[np.argsort(arrays["dataset"][members])]
        expected += [unit[a] @ unit[b] for n, a in enumerate(members) for b in members[n + 1 :]]
    np.testing.assert_allclose(arrays["copy_score"] / 1000 - 1, expected, atol=0.0005 + 1e-6)


def test_points_lie_in_morton_order():
    grid = np.stack(np.meshgrid(np.arange(4), np.arange(4)), axis=-1).reshape(-1, 2).astype(float)
    code, order = place(grid)
    assert (np.diff(code.astype(np.int64)) > 0).all()
    assert grid[order][:4].tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    code, order = place(np.zeros((3, 2)))
    assert (code.tolist(), order.tolist()) == ([0, 0, 0], [0, 1, 2])
    assert place(np.zeros((0, 2)))[1].shape == (0,)


def test_many_points_have_fewer_neighbours_each(make_atlas, monkeypatch):
    monkeypatch.setattr(data, "NEIGHBOR_ENTRIES", 1000)
    header, arrays = payload(render(ReportData(adata=make_atlas(), evaluation={}, history=[], graphs=[], config="")))
    assert header["k"] == 5  # 1000 entries for 180 points
    assert len(arrays["within_index"]) == 5 * header["n"]


def test_progress_is_told(report_data, tmp_path):
    told = []
    write_report(tmp_path / "page.html", report_data, progress=lambda *step: told.append(step))
    assert {task for task, *_ in told} == {"page"}
    done = [step[1] for step in told]
    assert done == sorted(done)
    assert (done[0], told[-1][1], told[-1][2]) == (0, 100, 100)


def test_equal_data_give_equal_bytes(report_data, tmp_path):
    write_report(tmp_path / "a.html", report_data)
    write_report(tmp_path / "b.html", report_data)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_no_text_of_the_data_is_in_the_markup(report_data):
    page = render(report_data)
    assert STRANGE not in page
    assert "<title>A &lt;b&gt; test</title>" in page
    assert len(re.findall(r"<script\b", page)) == 3
    assert STRANGE in payload(page)[0]["genes"]


def test_policy_names_the_hashes_of_what_is_there(report_data):
    page = render(report_data)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    for text in (style, script):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)


def test_embeddings_must_be_annotated(adata):
    with pytest.raises(ValueError, match="cluster, X_umap; call annotate"):
        ReportData(adata=adata, evaluation={}, history=[], graphs=[], config="")


def test_a_run_without_training_and_evaluation_has_a_page(annotated):
    header, _ = payload(render(ReportData(adata=annotated, evaluation={}, history=[], graphs=[], config="")))
    assert header["evaluation"] == header["graphs"] == header["history"]["measures"] == []


def test_curves_keep_the_last_round_and_say_what_they_leave_out():
    rows = [
        {"round": r, "kind": "losses", "dataset": d, "loss": r + 0.5, "seconds": 1.0}
        for r in range(1, 1302)
        for d in "ab"
    ]
    rows += [{"round": 7, "kind": "space", "dataset": "a", "effective_rank": 3.0, "note": "text"}]
    curves = loss_curves(rows)
    loss, rank = curves["measures"]
    assert (curves["total"], curves["lines"]) == (1301, ["a", "b"])
    assert loss["every"] == 3
    assert len(loss["rounds"]) <= MAX_ROUNDS + 1
    assert loss["rounds"][-1] == 1301
    assert loss["values"][1] == [r + 0.5 for r in loss["rounds"]]
    assert (rank["label"], rank["rounds"], rank["values"][0]) == ("effective rank", [7], [3.0])
    assert np.isnan(rank["values"][1][0])


def test_records_of_no_rounds_are_one_mean_per_dataset():
    rows = [{"round": 0, "kind": "space", "dataset": d, "effective_rank": rank} for d, rank in (("a", 3.0), ("b", 4.0))]
    rows += [{"round": 0, "kind": "watch", "dataset": "a", "held_out_mrr": x, "n_genes": 9} for x in (0.2, 0.4)]
    curves = loss_curves(rows)
    rank, mrr = curves["measures"]
    assert (curves["total"], curves["lines"]) == (0, ["a", "b"])
    assert (rank["label"], rank["rounds"], rank["values"]) == ("effective rank", [0], [[3.0], [4.0]])
    assert (mrr["label"], mrr["values"][0]) == ("held out mrr", [pytest.approx(0.3)])
    assert np.isnan(mrr["values"][1][0])


def test_graph_rows_name_what_was_dropped(graphs):
    row = graph_rows(graphs)[1]
    assert row["n_clamped"] == 4
    assert row["dropped"] == [
        {"count": 3, "what": "cells", "why": "no counts"},
        {"count": 9, "what": "genes", "why": "too few cells"},
        {"count": 10, "what": "genes", "why": "good, but not selected"},
        {"count": 1, "what": "genes", "why": "kept, but without an edge"},
    ]
    bare = {"dataset": "a", "modality": "m", "tissue": "t", "species": "s", "density": float("nan")}
    assert graph_rows([bare])[0]["density"] is None


def test_evaluation_tables_show_what_the_evaluation_says(evaluation):
    tables = evaluation_tables(evaluation)
    joint, mixed, retrieval, edges = tables[:4]
    assert [row["model"] for row in retrieval["rows"]] == ["trained", "untrained"]
    assert [row["ours"] for row in retrieval["rows"]] == [True, False]
    shown = {m["label"]: v for m, v in zip(retrieval["measures"], retrieval["rows"][0]["values"], strict=True)}
    model = evaluation["models"]["trained"]
    assert shown["overall"] == model["retrieval"]["held_out"]["overall"]["mrr"]
    assert shown["recall@10"] == model["retrieval"]["held_out"]["overall"]["recall"]
    assert "across tissue" not in shown  # the task has no such pair
    assert retrieval["rows"][1]["values"][-1].startswith(evaluation["comparisons"]["untrained"]["verdict"])
    assert edges["rows"][0]["values"][0] == model["held_out_edges"]["overall"]["cosine"]["all"]
    assert edges["rows"][-1]["model"] == "degree alone"
    scores = model["joint"]
    assert joint["rows"][0]["values"][0] == scores["retrieval"]["held_out"]["overall"]["mrr"]
    corrected = {m["label"]: v for m, v in zip(joint["measures"], joint["rows"][0]["values"], strict=True)}
    assert corrected["balanced"] == scores["retrieval_balanced"]["held_out"]["overall"]["mrr"]
    assert corrected["CSLS"] == scores["retrieval_csls"]["held_out"]["overall"]["mrr"]
    assert joint["chance"] == scores["retrieval"]["held_out"]["overall"]["chance_mrr"]
    assert joint["rows"][1]["values"][-1].startswith(evaluation["joint_comparisons"]["untrained"]["verdict"])
    assert mixed["rows"][0]["values"][0] == scores["mixing"]["overall"]
    assert mixed["rows"][0]["values"][4] == scores["conservation"]["overall"]["specificity"]
    titled = {table["title"]: table for table in tables}
    modules, sets = (
        titled[f"Do{what}"]
        for what in ("es a dataset know the modules of the others?", " the vectors know what genes do?")
    )
    assert modules["rows"][0]["values"][0] == evaluation["modules"]["models"]["trained"]["auroc"]
    assert sets["rows"][1]["values"][2] == evaluation["function"]["models"]["untrained"]["difference"]
    transfer = titled["Does what one dataset knows of genes hold in another?"]
    assert transfer["rows"][0]["values"][:2] == [
        evaluation["transfer"]["models"]["trained"][k] for k in ("auroc", "within")
    ]
    seeds = titled["Do other seeds agree?"]
    assert seeds["rows"][0]["values"][:2] == [shown["overall"], 0]
    assert seeds["rows"][0]["values"][-2:] == [0.5, None]
    json.dumps(tables, allow_nan=False)
