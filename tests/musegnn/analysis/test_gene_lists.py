"""Lists of genes in contexts: planted sharing is found, random lists share nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import mannwhitneyu, median_abs_deviation, norm

from musegnn.analysis.gene_lists import list_change, sets_near, shared_factors
from musegnn.errors import InputError

N, DIM = 300, 16
GENES = [f"G{k}" for k in range(N)]
LISTED = GENES[:30]
BOTH, LUNG_ONLY, FREE = GENES[30:35], GENES[35:40], GENES[40:60]
FACTORS = [*BOTH, *LUNG_ONLY, *FREE]
COMPANIONS = GENES[60:90]
"""Genes near the list in the lung alone."""


@pytest.fixture(scope="module")
def planted():
    """Two datasets of the lung and one of the brain; in each, some factors point where the listed genes do."""
    rng = np.random.default_rng(0)
    axis = {tissue: rng.normal(size=DIM) for tissue in ("lung", "brain")}
    rows, vectors = [], []
    for dataset, tissue in (("lung_1", "lung"), ("lung_2", "lung"), ("brain_1", "brain")):
        near = {*LISTED, *BOTH} | ({*LUNG_ONLY, *COMPANIONS} if tissue == "lung" else set())
        for gene in GENES:
            rows.append((gene, f"human:{gene}", dataset, tissue))
            vectors.append(rng.normal(size=DIM) + (3.0 * axis[tissue] if gene in near else 0.0))
    obs = pd.DataFrame(rows, columns=["gene", "gene_key", "dataset", "tissue"])
    obs.index = obs["dataset"] + "/" + obs["gene"]
    return AnnData(X=np.array(vectors, dtype=np.float32), obs=obs)


def called(table):
    return {context: set(part["factor"]) for context, part in table[table["q"] < 0.05].groupby("context")}


def test_planted_factors_are_found_where_they_share_the_list(planted):
    found = called(shared_factors(planted, LISTED, FACTORS))
    assert found == {"lung": {*BOTH, *LUNG_ONLY}, "brain": set(BOTH)}
    by_dataset = called(shared_factors(planted, LISTED, FACTORS, per="dataset"))
    assert by_dataset == {"lung_1": {*BOTH, *LUNG_ONLY}, "lung_2": {*BOTH, *LUNG_ONLY}, "brain_1": set(BOTH)}


def test_keys_mean_the_same_as_names(planted):
    named = shared_factors(planted, LISTED, FACTORS)
    keyed = shared_factors(planted, [f"human:{g}" for g in LISTED], [f"human:{g}" for g in FACTORS])
    pd.testing.assert_frame_equal(named, keyed)


def test_z_is_by_the_median_and_deviation_of_unlisted_genes(planted):
    found = shared_factors(planted, LISTED, [LISTED[0], FREE[0]], per="dataset")
    unit = planted.X.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for row in found.itertuples():
        inside = unit[(planted.obs["dataset"] == row.context).to_numpy()]
        at = GENES.index(row.factor)
        mean = [np.mean([inside[a] @ inside[b] for b in range(30) if a != b]) for a in range(N)]
        z = (mean[at] - np.median(mean[30:])) / median_abs_deviation(mean[30:], scale="normal")
        assert row.n_listed == 30 - (row.factor in LISTED)
        assert row.cosine == pytest.approx(mean[at])
        assert row.z == pytest.approx(z, rel=1e-4)
        assert row.p == pytest.approx(norm.sf(z), rel=1e-3)
        assert row.nearest.split(",")[0] == max(
            (g for g in LISTED if g != row.factor), key=lambda g: inside[at] @ inside[GENES.index(g)]
        )


def test_factors_that_are_unrelated_to_a_list_that_goes_together_are_not_called(planted):
    """The listed genes are near to a factor all at once: independent tests would call many factors."""
    found = shared_factors(planted, LISTED, GENES[90:])
    assert (found["p"] < 0.05).mean() < 0.08
    assert (found["q"] < 0.05).sum() == 0


def test_random_lists_share_no_factor(planted):
    rng = np.random.default_rng(1)
    found = [
        shared_factors(planted, rng.choice(GENES[90:], 30, replace=False), rng.choice(GENES[90:], 12, replace=False))
        for _ in range(60)
    ]
    assert abs(np.mean(pd.concat(found)["p"] < 0.05) - 0.05) < 0.03
    assert sum((table["q"] < 0.05).any() for table in found) < 8


def test_sets_that_go_with_a_list_are_found_in_their_tissue_alone(planted):
    rng = np.random.default_rng(2)
    sets = {"companions": COMPANIONS, "the list": LISTED}
    sets |= {f"random {k}": rng.choice(GENES[90:], 20, replace=False).tolist() for k in range(20)}
    found = sets_near(planted, LISTED, sets, k=40)
    assert found.loc[found["q"] < 0.05, ["list", "set"]].to_numpy().tolist() == [["lung", "companions"]]
    assert "the list" not in set(found["set"])  # listed genes do not count for themselves
    assert set(found["N"]) == {N - 30}


def test_too_few_genes_are_refused_with_their_number(planted):
    with pytest.raises(InputError, match=r"of 3 listed genes are there: brain 2, lung 2; expected at least 5"):
        shared_factors(planted, ["G1", "G2", "unknown"], FACTORS)
    with pytest.raises(InputError, match="E279"):
        sets_near(planted, ["unknown"], {"s": GENES[:9]})


def ranking(first, rng):
    """Return a table of genes as a contrast gives it, some first."""
    rest = [gene for gene in GENES if gene not in first]
    return pd.DataFrame({"gene": [*first, *rng.permutation(rest)]})


def test_the_rank_of_a_list_is_that_of_mann_and_whitney():
    rng = np.random.default_rng(3)
    top = list_change(ranking(LISTED, rng), [*LISTED, "unknown"])
    assert (top.n_genes, top.auroc) == (30, 1.0)
    table = ranking(LISTED[:10], rng)
    place = dict(zip(table["gene"], range(N), strict=True))
    others = [place[gene] for gene in GENES if gene not in LISTED]
    expected = mannwhitneyu([place[gene] for gene in LISTED], others, alternative="less")
    assert list_change(table, LISTED).p_value == pytest.approx(expected.pvalue)
    p = [list_change(ranking([], rng), LISTED).p_value for _ in range(200)]
    assert 0.01 < np.mean(np.array(p) < 0.05) < 0.1
    with pytest.raises(InputError, match="E279"):
        list_change(table, ["unknown"])
