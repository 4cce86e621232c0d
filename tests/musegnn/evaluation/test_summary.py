"""The sentences and the table at the end of a run, on evaluations with known answers."""

from __future__ import annotations

import pytest

from musegnn.evaluation.summary import dataset_table, sentences

CHANCE = 0.01


def pair(first, second, mrr, n=20):
    held_out = {"n_queries": n, "mrr": mrr, "chance_mrr": CHANCE}
    return {"first": first, "second": second, "held_out": held_out}


def scored(mrr):
    return {"retrieval": {"held_out": {"overall": {"mrr": mrr, "chance_mrr": CHANCE}}}}


@pytest.fixture
def evaluation():
    edges = {"overall": {"cosine": {"positive": 0.87}}}
    pairs = [pair("a", "b", 0.3), pair("a", "c", 0.012), pair("b", "c", 0.011)]
    return {
        "subject": "trained",
        "datasets": [{"name": name, "n_genes": 600} for name in "abc"],
        "models": {
            "trained": {"joint": scored(0.1), "retrieval": {"pairs": pairs}, "held_out_edges": edges},
            "pca_procrustes": {"joint": scored(0.04)},
        },
        "joint_comparisons": {"pca_procrustes": {"verdict": "better", "p_value": 0.001}},
    }


def graphs():
    sizes = {"n_cells": 2700, "n_genes": 600, "n_edges": 5000}
    shares = zip("abc", (0.25, 0.5, None), strict=True)
    return [{"dataset": name, "tissue": "lung", "uncertain_share": share, **sizes} for name, share in shares]


def test_what_aligns_and_what_does_not_is_said(evaluation):
    space, aligned, sure = sentences(evaluation)
    assert space.endswith("10.0 times as well as chance, better than aligned PCA (4.0 times, p = 0.001).")
    assert "2 of 3 datasets are aligned with another one (a, b)" in aligned
    assert "c is not: look at genes within it" in aligned
    assert "87 % of cases (50 % by chance)" in sure
    rows = [line.split() for line in dataset_table(evaluation, graphs())]
    assert rows[1][:5] == ["a", "lung", "2,700", "600", "5,000"]
    assert rows[1][5:7] == ["25", "%"]
    assert rows[3][5] == "-"
    assert rows[1][-4:] == ["30", "x", "chance", "b"]
    assert rows[3][-3:] == ["at", "chance", "-"]


def test_the_share_of_uncertain_genes_is_said(evaluation):
    *_, said = sentences(evaluation, graphs=graphs())
    assert said.startswith("38 % of genes are uncertain (certainty below .5), most of all in b (50 %)")
    unknown = [graph | {"uncertain_share": None} for graph in graphs()]
    assert sentences(evaluation, graphs=unknown) == sentences(evaluation)


def test_a_silent_failure_of_training_counts_as_not_aligned(evaluation):
    assert "1 of 3 datasets" in sentences(evaluation, [("W502", "b")])[1]


@pytest.mark.parametrize(("verdict", "words"), [("worse", "worse than"), ("unclear", "not clearly different from")])
def test_a_baseline_that_is_as_good_is_named(evaluation, verdict, words):
    evaluation["joint_comparisons"]["pca_procrustes"]["verdict"] = verdict
    assert f"{words} aligned PCA" in sentences(evaluation)[0]


def test_few_hidden_genes_say_nothing(evaluation):
    evaluation["models"]["trained"]["retrieval"]["pairs"] = [pair("a", "b", 0.3, n=2), pair("a", "c", 0.05, n=6)]
    assert "b shared too few hidden genes to tell" in sentences(evaluation)[1]
    assert "c are not" in sentences(evaluation)[1] or "a, c are not" in sentences(evaluation)[1]


def test_one_dataset_and_no_hold_outs_are_no_failure(evaluation):
    evaluation["datasets"] = evaluation["datasets"][:1]
    evaluation["models"]["trained"] |= {"joint": None, "held_out_edges": None, "retrieval": {"pairs": []}}
    space, aligned, sure = sentences(evaluation)
    assert "nothing says" in space
    assert "one dataset" in aligned
    assert "nothing says" in sure


def test_the_table_is_bounded(evaluation):
    many = graphs() * 30
    assert len(dataset_table(evaluation, many)) == 22
