"""SPARK-X against the outputs of R SPARK 1.1.1 on breast cancer layer 2.

R's p-values carry an absolute error of up to 1e-4 (the default accuracy of its numerical inversion), so R judges the
statistics, the combination and the adjustment, and the closed form judges the p-values.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from musegnn.coexpression.sparkx import adjust_by, combine_cauchy, sparkx


@pytest.fixture(scope="module")
def peer(shared):
    folder = shared / "golden"
    coords = pd.read_csv(folder / "sparkx_bc_coords.csv", index_col=0).to_numpy()
    genes = (folder / "sparkx_bc_genes.txt").read_text().split()
    triplet = pd.read_csv(folder / "sparkx_bc_counts_triplet.csv.gz")
    place = (triplet["j"].to_numpy() - 1, triplet["i"].to_numpy() - 1)
    counts = csr_matrix((triplet["x"].to_numpy(np.int32), place), shape=(len(coords), len(genes)))

    def table(name: str) -> pd.DataFrame:
        result = pd.read_csv(folder / f"sparkx_bc_{name}.csv.gz", index_col=0)
        assert result.index.tolist() == genes
        return result

    return SimpleNamespace(
        counts=counts,
        result=sparkx(counts, coords),
        statistic=table("stats").to_numpy(),
        p_kernel=table("pvals").to_numpy(),
        tests=table("mtest"),
    )


def test_statistics(peer):
    assert peer.result.skipped == ()
    np.testing.assert_allclose(peer.result.statistic, peer.statistic, rtol=1e-10, atol=1e-10)


def test_p_values_are_the_closed_form(peer):
    x = peer.counts.toarray().astype(np.float64)
    scale = 1 - len(x) * x.mean(axis=0) ** 2 / (x * x).sum(axis=0)
    expected = np.exp(-peer.result.statistic / (2 * scale[:, None]))
    np.testing.assert_allclose(peer.result.p_kernel, expected, rtol=1e-12)


def test_p_values_lie_within_the_peers_accuracy(peer):
    np.testing.assert_allclose(peer.result.p_kernel, peer.p_kernel, rtol=0, atol=1e-4)


def test_combination_of_the_peers_p_values(peer):
    combined = combine_cauchy(peer.p_kernel)
    np.testing.assert_allclose(combined, peer.tests["combinedPval"], rtol=0, atol=1e-12)


def test_adjustment_of_the_peers_p_values(peer):
    adjusted = adjust_by(peer.tests["combinedPval"].to_numpy())
    np.testing.assert_allclose(adjusted, peer.tests["adjustedPval"], rtol=1e-11)


def test_selection_of_a_thousand_genes(peer):
    theirs = np.argsort(peer.tests["adjustedPval"].to_numpy(), kind="stable")[:1000]
    assert len(np.intersect1d(peer.result.ranking()[:1000], theirs)) == 995
    assert int((peer.result.p_adjusted < 0.05).sum()) == 544
    assert int((peer.tests["adjustedPval"] < 0.05).sum()) == 509
