from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from musegnn.coexpression.profile import FullProfile, GramProfile, compress
from musegnn.coexpression.residuals import pearson_residuals
from musegnn.coexpression.sctransform import SCTModel


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


def test_profiles_are_of_centred_clipped_residuals():
    rng = np.random.default_rng(3)
    depth = rng.integers(200, 900, 3000).astype(float)
    counts = csr_matrix(rng.poisson(depth[:, None] * rng.gamma(1.0, 2e-3, 9)).astype(np.int32))
    model = SCTModel(intercept=np.log(rng.gamma(1.0, 2e-3, 9)), theta=np.full(9, 3.0), min_variance=0.04, n_cells=3000)
    residuals = pearson_residuals(counts, depth, model, clip=model.profile_clip)
    assert (np.abs(residuals) == model.profile_clip).any()
    centred = residuals - residuals.mean(0)
    gram, full = GramProfile(model), FullProfile(model, 3000)
    for start in range(0, 3000, 700):
        part = slice(start, start + 700)
        gram.update(counts[part], depth[part])
        full.update(counts[part], depth[part])
    small = gram.finish().astype(float)
    expected = centred.T @ centred
    np.testing.assert_allclose(small @ small.T, expected, rtol=0, atol=1e-6 * expected.max())
    np.testing.assert_allclose(full.finish(), centred.T, rtol=0, atol=1e-5)
