"""Profiles in common coordinates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musegnn.training.align import align, leading_components
from musegnn.training.prepare import make_model, prepare


@pytest.fixture
def data(atlas):
    return prepare(*atlas(3, evaluation__holdout_genes=0.3))


def profiles(data):
    return {name: record.profile for name, record in data.records.items()}


def align_profiles(graphs, profiles, dim):
    return align(graphs, {name: leading_components(profile, dim) for name, profile in profiles.items()})


def test_alignment_is_a_rotation_of_components(data):
    """Within a dataset cosines are those of its own principal components."""
    aligned = align_profiles(data.graphs, profiles(data), 8)
    for name, profile in profiles(data).items():
        centred = profile.astype(np.float64) - profile.mean(axis=0, dtype=np.float64)
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        expected = u[:, :8] * s[:8]
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(aligned[name] @ aligned[name].T, expected @ expected.T, atol=1e-5)


def test_shared_genes_come_together_and_held_out_ones_follow(data):
    aligned = align_profiles(data.graphs, profiles(data), 8)
    a, b = data.graphs[:2]
    _, in_a, in_b = np.intersect1d(a.keys, b.keys, return_indices=True)
    cosine = (aligned[a.name][in_a] * aligned[b.name][in_b]).sum(axis=1)
    seen = a.trainable[in_a]
    assert cosine[seen].mean() > 0.6
    assert cosine[~seen].mean() > 0.3


def test_held_out_genes_decide_nothing(data):
    aligned = align_profiles(data.graphs, profiles(data), 8)
    renamed = []
    for g in data.graphs:
        keys = g.keys.astype(object)
        keys[~g.trainable] = [f"{g.name}:{k}" for k in np.flatnonzero(~g.trainable)]
        renamed.append(replace(g, keys=keys.astype(np.str_)))
    for name, vectors in align_profiles(renamed, profiles(data), 8).items():
        np.testing.assert_array_equal(vectors, aligned[name])


def test_training_starts_near_the_alignment(atlas):
    store, config = atlas(3)
    data = prepare(store, config)
    model = make_model(data, config)
    aligned = align_profiles(data.graphs, profiles(data), config.model.dim)
    for i, g in enumerate(data.graphs):
        z = model.encode(i).detach().numpy()
        cosine = (z * aligned[g.name]).sum(axis=1) / np.linalg.norm(z, axis=1)
        assert cosine.mean() > 0.7
