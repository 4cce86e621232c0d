"""Enrichment and prediction of gene sets: a planted signal is found, and a null is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import fisher_exact

from musegnn.analysis.enrichment import cluster_lists, enrich, neighbor_lists
from musegnn.analysis.prediction import predict
from musegnn.errors import InputError

GENES = [f"G{k:04d}" for k in range(1000)]


def test_a_planted_set_is_found_and_the_others_are_not():
    rng = np.random.default_rng(0)
    lists = {"one": GENES[:50], "two": GENES[500:550]}
    sets = {f"random {k}": rng.choice(GENES, 40, replace=False).tolist() for k in range(50)}
    sets["planted"] = GENES[:20] + GENES[900:910]
    found = enrich(lists, sets, GENES)
    assert found.iloc[0][["list", "set", "k", "n", "K", "N"]].tolist() == ["one", "planted", 20, 50, 30, 1000]
    assert found.iloc[0]["genes"] == ",".join(GENES[:20])
    assert found["q"].iloc[0] < 1e-10
    assert (found["q"] < 0.05).sum() == 1
    assert found["fold"].iloc[0] == pytest.approx(20 / (50 * 30 / 1000))


def test_p_is_that_of_fishers_exact_test():
    found = enrich({"a": GENES[:60]}, {"s": GENES[40:140]}, GENES)
    expected = fisher_exact([[20, 40], [80, 860]], alternative="greater").pvalue
    assert found["p"].iloc[0] == pytest.approx(expected, rel=1e-9)


def test_under_the_null_few_p_values_are_small():
    rng = np.random.default_rng(1)
    lists = {f"list {k}": rng.choice(GENES, 100, replace=False) for k in range(20)}
    sets = {f"set {k}": rng.choice(GENES, 60, replace=False) for k in range(50)}
    found = enrich(lists, sets, GENES)
    small = (found["p"] < 0.05).sum() / 1000
    assert small < 0.06  # discrete tests stay below their level; 1000 of them vary by .007
    assert (found["q"] < 0.05).sum() == 0


def test_genes_outside_the_background_and_small_sets_do_not_count():
    found = enrich({"a": [*GENES[:10], "X"]}, {"s": [*GENES[:5], "Y"], "small": GENES[:4]}, GENES[:100])
    assert found[["set", "k", "n", "K", "N"]].to_numpy().tolist() == [["s", 5, 10, 5, 100]]
    assert enrich({}, {}, GENES).empty
    assert enrich({"a": GENES[:5]}, {"s": GENES[50:60]}, GENES).empty


def test_lists_are_gene_keys(annotated):
    clusters = cluster_lists(annotated)
    assert set(clusters) == {"cluster 0", "cluster 1"}
    near = neighbor_lists(annotated, "GENE3", k=5)
    assert set(near) == {"GENE3 in lung_rna", "GENE3 in brain_visium", "GENE3 in brain_atac"}
    assert all(key == key.upper() or "<" in key for keys in near.values() for key in keys)


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 16)).astype(np.float32)
    return AnnData(X, obs=pd.DataFrame({"gene": GENES, "gene_key": GENES}, index=GENES))


def test_a_set_along_a_direction_is_predicted_and_calibrated(vectors):
    rng = np.random.default_rng(2)
    direction = rng.normal(size=16) / 4
    chance = 1 / (1 + np.exp(-(3.0 * vectors.X @ direction - 2.0)))
    member = rng.random(1000) < chance
    sets = {"planted": np.array(GENES)[member].tolist(), "random": rng.choice(GENES, 200, replace=False).tolist()}
    found = predict(vectors, sets)
    table = found.sets.set_index("set")
    assert table.index[0] == "planted"
    assert table.loc["planted", "auroc"] > 0.85
    assert abs(table.loc["random", "auroc"] - 0.5) < 4 * 0.023  # the error of an AUROC with 200 and 800 genes
    assert table.loc["planted", "brier"] < 0.8 * table.loc["planted", "brier_base"]
    assert abs(table.loc["random", "brier"] / table.loc["random", "brier_base"] - 1) < 0.03
    assert (table["calibration_error"] < 0.06).all()
    planted = found.genes[found.genes["set"] == "planted"]
    assert planted["probability"].is_monotonic_decreasing
    assert planted["member"].head(50).mean() > 0.8
    np.testing.assert_allclose(planted["probability"].sum(), member.sum(), rtol=0.1)


def test_many_random_sets_have_an_auroc_around_one_half(vectors):
    rng = np.random.default_rng(3)
    sets = {f"random {k}": rng.choice(GENES, 100, replace=False).tolist() for k in range(40)}
    found = predict(vectors, sets).sets["auroc"]
    assert abs(found.mean() - 0.5) < 0.02
    assert found.max() < 0.65


def test_equal_seeds_give_equal_scores_and_members_are_not_seen(vectors):
    sets = {"s": GENES[:100]}
    first, again, other = (predict(vectors, sets, seed=seed).genes for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not first["score"].equals(other["score"])


def test_sets_without_genes_are_refused(vectors):
    with pytest.raises(InputError, match="E279"):
        predict(vectors, {"s": GENES[:9], "all": GENES})
