"""Nearest genes against scikit-learn, and the lists that people ask for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from musegnn.analysis import neighbors
from musegnn.analysis.neighbors import nearest, nearest_split, query, unit_rows
from musegnn.errors import InputError
from musegnn.random import stream


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), points=st.integers(2, 90), dim=st.integers(2, 20), k=st.integers(1, 12))
def test_equals_scikit_learn(seed, points, dim, k):
    x = stream(seed, "points").normal(size=(points, dim))
    found = nearest(x, k)
    real = min(k, points - 1)
    cosine = unit_rows(x).astype(np.float64) @ unit_rows(x).astype(np.float64).T
    np.fill_diagonal(cosine, -np.inf)
    expected = -np.sort(-cosine, axis=1)[:, :real]
    np.testing.assert_allclose(found.score[:, :real], expected, atol=1e-6)
    chosen = np.take_along_axis(cosine, found.index[:, :real].astype(np.int64), axis=1)
    np.testing.assert_allclose(chosen, found.score[:, :real], atol=1e-6)
    assert (found.index[:, real:] == -1).all()
    assert np.isnan(found.score[:, real:]).all()
    if points > k:
        oracle = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(x)
        distance, _ = oracle.kneighbors()
        np.testing.assert_allclose(1.0 - found.score, distance, atol=2e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), points=st.integers(2, 80), groups=st.integers(1, 5), k=st.integers(1, 9))
def test_two_sides_together_are_the_nearest_of_all(seed, points, groups, k):
    rng = stream(seed, "points")
    x, group = rng.normal(size=(points, 6)), rng.integers(0, groups, points)
    inside, outside = nearest_split(x, group, k)
    for i in range(points):
        own, far = inside.index[i][inside.index[i] >= 0], outside.index[i][outside.index[i] >= 0]
        assert (group[own] == group[i]).all()
        assert i not in own
        assert (group[far] != group[i]).all()
        assert len(own) == min(k, (group == group[i]).sum() - 1)
        assert len(far) == min(k, (group != group[i]).sum())
    scores = np.sort(np.concatenate([inside.score, outside.score], axis=1), axis=1)  # NaN last
    all_scores = nearest(x, k).score
    merged = -np.sort(-np.nan_to_num(scores, nan=-2.0), axis=1)[:, :k]
    np.testing.assert_allclose(merged, np.nan_to_num(all_scores, nan=-2.0), atol=1e-6)


def test_blocks_do_not_change_the_answer(monkeypatch):
    x = stream(0, "points").normal(size=(101, 7))
    whole = nearest(x, 5)
    monkeypatch.setattr(neighbors, "BLOCK_BYTES", 4 * 101 * 13)
    parts = nearest(x, 5)
    np.testing.assert_array_equal(whole.index, parts.index)
    np.testing.assert_allclose(whole.score, parts.score, atol=1e-6)


def test_ties_are_in_the_order_of_the_points():
    x = np.ones((6, 3))
    assert nearest(x, 3).index.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]]


def test_a_zero_vector_is_at_right_angles_to_all():
    found = nearest([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], 2)
    assert found.score[0].tolist() == [0.0, 0.0]
    assert found.score[1].tolist() == [0.0, -1.0]


@pytest.mark.parametrize(
    ("x", "group", "k", "what"),
    [
        ([[1.0, np.nan]], [0], 1, "finite"),
        ([1.0, 2.0], [0, 0], 1, "shape"),
        ([[1.0], [2.0]], [0], 1, "one group per point"),
        ([[1.0], [2.0]], [0, 0], 0, "at least 1"),
    ],
)
def test_wrong_input_is_refused(x, group, k, what):
    with pytest.raises(ValueError, match=what):
        nearest_split(x, group, k)


def test_query_lists_every_copy(adata):
    table = query(adata, "GENE3", k=4)
    assert table["query"].unique().tolist() == ["lung_rna", "brain_visium", "brain_atac"]  # there it is called Gene3
    assert table["rank"].tolist() == [1, 2, 3, 4] * 3
    assert set(table.columns) == {
        "query", "rank", "gene", "gene_id", "dataset", "modality", "tissue", "species", "cosine",
    }  # fmt: skip
    row = np.flatnonzero((adata.obs["gene"] == "GENE3") & (adata.obs["dataset"] == "lung_rna"))[0]
    unit = unit_rows(adata.X)
    cosine = unit @ unit[row]
    cosine[row] = -2
    np.testing.assert_allclose(table["cosine"][:4], np.sort(cosine)[::-1][:4], atol=1e-6)
    assert table["gene"][0] == adata.obs["gene"].iloc[int(np.argmax(cosine))]


def test_query_finds_by_identifier_and_without_case(adata):
    assert query(adata, "ENSG00000000003", k=1)["query"].tolist() == ["lung_rna", "brain_visium", "brain_atac"]
    assert len(query(adata, "gEnE3", k=1)) == 3
    far = query(adata, "GENE3", dataset="lung_rna", k=9, across=True)
    assert "lung_rna" not in far["dataset"].tolist()


def test_query_says_what_is_near_and_where_it_is(adata):
    with pytest.raises(InputError, match="GENE33"):
        query(adata, "GENE333")
    only = adata.obs.loc[adata.obs["gene_key"].map(adata.obs["gene_key"].value_counts()) == 1, "gene"].iloc[0]
    with pytest.raises(InputError, match="choose one of: lung_rna"):
        query(adata, only, dataset="brain_atac")
    with pytest.raises(ValueError, match="at least 1"):
        query(adata, "GENE3", k=0)
