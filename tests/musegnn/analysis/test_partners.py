"""The strongest partners of genes, beside a sort of each row."""

from __future__ import annotations

import numpy as np
import pytest

from musegnn.analysis.partners import strongest_partners
from musegnn.data_store.records import PairTable
from musegnn.random import stream


@pytest.mark.parametrize("k", [1, 4, 100])
def test_partners_are_the_largest_by_size_of_z(k):
    z = np.round(np.triu(stream(0, "partners").normal(size=(30, 30)) * 3, 1), 1)
    z += z.T
    stored = np.abs(z) > 2
    stored[7] = stored[:, 7] = False  # a gene without partners
    indptr = np.concatenate([[0], np.cumsum(stored.sum(axis=1))])
    pairs = PairTable(
        indptr=indptr, indices=np.nonzero(stored)[1].astype(np.int32), z=z[stored].astype(np.float32),
        estimate=np.zeros(stored.sum(), np.float32), n_tests=435, z_store=2.0, histogram=np.zeros(801, np.int64),
    )  # fmt: skip
    found = strongest_partners(pairs, k)
    for row in range(30):
        expected = sorted(np.flatnonzero(stored[row]), key=lambda c: (-abs(z[row, c]), c))[:k]
        part = slice(found.indptr[row], found.indptr[row + 1])
        assert found.gene[part].tolist() == expected
        np.testing.assert_allclose(found.z[part], z[row, expected], rtol=1e-6)
