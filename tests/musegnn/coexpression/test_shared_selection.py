"""Genes that several datasets choose together, against scanpy's batches and a naive ranking."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from musegnn.coexpression.shared_selection import SharedGenes, combine_rankings


def naive(rankings, n_genes):
    """Order by the number of choices, then by the median rank among them, then by name."""
    names = sorted({str(name) for one in rankings for name in one})
    table = pd.DataFrame({k: pd.Series(range(len(one)), index=one) for k, one in enumerate(rankings)}, index=names)
    chosen = table.where(table < n_genes)
    times = chosen.notna().sum(axis=1)
    median = chosen.median(axis=1).where(times > 0, table.median(axis=1))
    keys = pd.DataFrame({"times": -times, "median": median, "name": names})
    return keys.sort_values(["times", "median", "name"], kind="stable").index.tolist()


rankings = st.lists(
    st.lists(st.sampled_from([f"G{k}" for k in range(12)]), unique=True, min_size=1, max_size=12),
    min_size=1,
    max_size=5,
)


@given(rankings, st.integers(1, 12))
def test_the_order_is_that_of_a_naive_ranking(given_rankings, n_genes):
    found = combine_rankings([np.array(one, dtype=np.str_) for one in given_rankings], n_genes)
    assert found.tolist() == naive(given_rankings, n_genes)


def test_one_dataset_keeps_its_own_order():
    own = np.array(["B", "C", "A"])
    assert combine_rankings([own], 2).tolist() == ["B", "C", "A"]


def test_positions_are_those_of_the_genes_that_are_there():
    order = SharedGenes((), np.array(["X", "B", "A", "Y"]))
    names = np.array(["A", "B", "C"])
    assert order.positions(names).tolist() == [1, 0]
