from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from musegnn.kernels.subset import subset


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 20), st.integers(1, 15), st.integers(0, 15), st.floats(0, 1))
def test_equals_indexing(seed, cells, genes, taken, density):
    rng = np.random.default_rng(seed)
    dense = (rng.integers(1, 9, (cells, genes)) * (rng.random((cells, genes)) < density)).astype(np.int32)
    keep = rng.random(cells) < 0.6
    chosen = rng.permutation(genes)[:taken]
    place = np.full(genes, -1, dtype=np.int32)
    place[chosen] = np.arange(len(chosen))
    for impl in ("numba", "reference"):
        out = subset(csr_matrix(dense), keep, place, len(chosen), impl=impl)
        assert out.dtype == np.int32
        np.testing.assert_array_equal(out.toarray(), dense[keep][:, chosen])


def test_what_does_not_fit_is_refused():
    block = csr_matrix(np.eye(3, dtype=np.int32))
    keep, place = np.ones(3, dtype=bool), np.arange(3, dtype=np.int32)
    with pytest.raises(ValueError, match=r"place must be in \[-1, 2\)"):
        subset(block, keep, place, 2)
    with pytest.raises(ValueError, match="keep must have shape"):
        subset(block, keep[1:], place, 3)
    with pytest.raises(TypeError, match="int32"):
        subset(block, keep, place.astype(np.int64), 3)
