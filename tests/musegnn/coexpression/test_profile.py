from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from benchmarks.peers.sctransform_in_memory import residuals
from musegnn.coexpression import profile as profiles
from musegnn.coexpression.pairs import ExtractedCounts
from musegnn.coexpression.profile import compress
from musegnn.coexpression.sctransform import SCTModel
from musegnn.coexpression.tasks import save


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 40))
def test_compression_loses_nothing(seed, genes, cells):
    """Inner products, and so every linear map, are those of the whole profile, to float32."""
    whole = np.random.default_rng(seed).normal(size=(genes, cells))
    small = compress(whole @ whole.T)
    assert small.dtype == np.float32
    assert small.shape[0] == genes
    assert small.shape[1] <= min(genes, cells)
    scale = np.abs(whole @ whole.T).max()
    np.testing.assert_allclose(small.astype(float) @ small.T.astype(float), whole @ whole.T, rtol=0, atol=1e-6 * scale)


def test_a_linear_layer_has_the_same_outputs_up_to_its_weights():
    rng = np.random.default_rng(1)
    whole = rng.normal(size=(20, 300))
    weights = rng.normal(size=(300, 5))
    small = compress(whole @ whole.T).astype(float)
    fitted, *_ = np.linalg.lstsq(small, whole @ weights, rcond=None)
    np.testing.assert_allclose(small @ fitted, whole @ weights, atol=1e-4)


def test_signs_and_order_are_fixed():
    whole = np.random.default_rng(2).normal(size=(15, 60))
    small = compress(whole @ whole.T)
    assert (small[np.abs(small).argmax(0), np.arange(small.shape[1])] > 0).all()
    lengths = np.linalg.norm(small, axis=0)
    assert (np.diff(lengths) <= 1e-5).all()
    assert compress(np.zeros((4, 4))).shape == (4, 0)


def test_bad_matrices_are_refused():
    with pytest.raises(ValueError, match="square and finite"):
        compress(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="square and finite"):
        compress(np.full((2, 2), np.nan))


def stored(folder, counts, depth, model, *, rows: int = 700):
    """Write a model and the counts of ranges as a build does."""
    save(folder / "model.npz", model.noise(model.profile_clip))
    paths = []
    for start in range(0, len(depth), rows):
        part = counts[start : start + rows]
        paths.append(folder / f"{start}.npz")
        none = np.zeros(0)  # moments are not read here
        save(
            paths[-1],
            ExtractedCounts(part.indptr, part.indices, part.data, depth[start : start + rows], none, none, none, none),
        )
    return folder / "model.npz", paths


def groups(folder, function, model, paths, *more):
    results = []
    for k in range(0, len(paths), 2):
        results.append(folder / f"{function.__name__}{k}{len(list(folder.iterdir()))}.npz")
        save(results[-1], function(model, paths[k : k + 2], *more))
    return results


def problem(genes: int, scale: float = 2e-2):
    rng = np.random.default_rng(3)
    depth = rng.integers(200, 900, 3000).astype(float)
    level = rng.gamma(4.0, 0.25, (3000, 5)) @ rng.dirichlet(np.ones(5) * 0.2, genes).T
    counts = csr_matrix(rng.poisson(depth[:, None] * level * rng.gamma(1.0, scale, genes)).astype(np.int32))
    rate = rng.gamma(1.0, 2e-3, genes)
    model = SCTModel(intercept=np.log(rate), theta=np.full(genes, 3.0), min_variance=0.04, n_cells=3000)
    values = residuals(counts, depth, model, clip=model.profile_clip)
    assert (np.abs(values) == model.profile_clip).any()
    return counts, depth, model, values - values.mean(0)


def test_profiles_are_of_centred_clipped_residuals(tmp_path):
    counts, depth, model, centred = problem(9)
    described, paths = stored(tmp_path, counts, depth, model)
    small = profiles.gram_profile(groups(tmp_path, profiles.gram_group, described, paths)).astype(float)
    expected = centred.T @ centred
    np.testing.assert_allclose(small @ small.T, expected, rtol=0, atol=1e-6 * expected.max())
    sparse = groups(tmp_path, profiles.sparse_gram_group, described, paths)
    other = profiles.sparse_gram_profile(sparse, described, depth).astype(float)
    np.testing.assert_allclose(other @ other.T, expected, rtol=0, atol=1e-6 * expected.max())


def test_a_randomised_profile_is_nearly_the_best_of_its_rank(tmp_path):
    """Its inner products are off by little more than those of the exact leading directions."""
    counts, depth, model, centred = problem(120, 0.5)
    described, paths = stored(tmp_path, counts, depth, model)
    save(tmp_path / "first.npz", profiles.first_sketch(120, 20, 0))
    first = groups(tmp_path, profiles.sketch_group, described, paths, tmp_path / "first.npz")
    save(tmp_path / "second.npz", profiles.second_sketch(tmp_path / "first.npz", first))
    second = groups(tmp_path, profiles.sketch_group, described, paths, tmp_path / "second.npz")
    small = profiles.randomized_profile(tmp_path / "second.npz", second, 20).astype(float)
    assert small.shape == (120, 20)
    gram = centred.T @ centred
    best = np.linalg.eigvalsh(gram)[:-20]
    assert np.linalg.norm(best) < 0.5 * np.linalg.norm(gram)
    assert np.linalg.norm(gram - small @ small.T) < 1.2 * np.linalg.norm(best)


def test_the_way_to_the_gram_matrix_follows_from_the_data():
    detected = np.array([10, 90])
    assert profiles.prefers_sparse(detected, 100, 200)
    assert not profiles.prefers_sparse(detected, 101, 200)
    assert not profiles.prefers_sparse(detected + 20, 100, 200)
