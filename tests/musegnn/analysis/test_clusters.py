"""Clusters, layout and annotation."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from musegnn.analysis import clusters
from musegnn.analysis.annotate import agreement, annotate
from musegnn.analysis.clusters import cluster
from musegnn.analysis.layout import umap_layout
from musegnn.errors import MissingDependencyError
from musegnn.random import stream
from musegnn.vectors import nearest, unit_rows


@pytest.fixture(scope="module")
def blobs():
    rng = stream(0, "blobs")
    truth = np.sort(rng.choice(4, 240, p=[0.4, 0.3, 0.2, 0.1]))
    return 4.0 * rng.normal(size=(4, 10))[truth] + rng.normal(size=(240, 10)), truth


def leiden_or_skip(*args, **options):
    pytest.importorskip("igraph", reason="Leiden needs igraph (extra bio)")
    return cluster(*args, method="leiden", **options)


def test_leiden_finds_separate_groups(blobs):
    x, truth = blobs
    found = leiden_or_skip(x, resolution=0.2)
    assert adjusted_rand_score(truth, found.label) > 0.95
    assert (leiden_or_skip(x, resolution=0.2).label == found.label).all()
    assert leiden_or_skip(x, resolution=3.0).n > found.n
    assert found.method.startswith("Leiden")


def test_kmeans_finds_separate_groups(blobs):
    x, truth = blobs
    found = cluster(x, method="kmeans", n_clusters=4)
    assert adjusted_rand_score(truth, found.label) > 0.95
    assert (cluster(x, method="kmeans", n_clusters=4).label == found.label).all()
    assert found.method == "k-means on unit vectors, k = 4"


def test_clusters_are_numbered_by_size(blobs):
    count = np.bincount(cluster(blobs[0], method="kmeans", n_clusters=4).label)
    assert (np.diff(count) <= 0).all()


def test_without_igraph_it_says_so(blobs, monkeypatch, caplog):
    monkeypatch.setattr(clusters, "has_leiden", lambda: False)
    with caplog.at_level(logging.WARNING, logger="musegnn"):
        assert cluster(blobs[0]).method.startswith("k-means")
    assert "igraph is not installed" in caplog.text
    with pytest.raises(MissingDependencyError, match=r"musegnn\[bio\]"):
        cluster(blobs[0], method="leiden")


def test_few_points_are_one_cluster():
    assert cluster(np.eye(2)).label.tolist() == [0, 0]
    assert cluster(np.zeros((0, 3))).n == 0


def test_equal_points_are_one_cluster():
    assert cluster(np.ones((9, 3)), method="kmeans", n_clusters=3).n == 1


@pytest.mark.slow
def test_layout_keeps_groups_together_and_repeats_itself(blobs):
    x, truth = blobs
    layout = umap_layout(x, seed=3)
    assert layout.shape == (240, 2)
    assert layout.dtype == np.float32
    np.testing.assert_allclose(layout.mean(axis=0), 0.0, atol=1e-3)
    distance = np.linalg.norm(layout[:, None] - layout[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (truth[distance.argmin(axis=1)] == truth).mean() > 0.97
    np.testing.assert_array_equal(umap_layout(x, neighbors=nearest(x, 14), seed=3), layout)
    assert not np.array_equal(umap_layout(x, seed=4), layout)
    with pytest.raises(ValueError, match="expected 14 neighbours"):
        umap_layout(x, neighbors=nearest(x, 5))


@pytest.mark.parametrize("points", [0, 1, 3])
def test_layout_of_very_few_points(points):
    assert umap_layout(np.ones((points, 4))).shape == (points, 2)


@pytest.mark.slow
def test_annotation_is_complete(adata):
    assert annotate(adata) is adata
    assert adata.obsm["X_umap"].shape == (adata.n_obs, 2)
    assert adata.obs["cluster"].cat.categories[0] == "0"
    assert "cosine neighbours" in adata.uns["clusters"] or "k-means" in adata.uns["clusters"]


def test_agreement_is_the_mean_cosine_to_the_copies():
    unit = unit_rows(stream(0, "a").normal(size=(5, 3)))
    copies, mean = agreement(unit, np.array(["a", "b", "a", "a", "c"], dtype=object))
    assert copies.tolist() == [3, 1, 3, 3, 1]
    assert mean[0] == pytest.approx((unit[0] @ unit[2] + unit[0] @ unit[3]) / 2, abs=1e-6)
    assert np.isnan(mean[[1, 4]]).all()
