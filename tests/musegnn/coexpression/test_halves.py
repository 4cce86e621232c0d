"""Certainty: what it is, what decides it, and what must not."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.stats import pearsonr, spearmanr

from musegnn.coexpression.build import build_dataset
from musegnn.coexpression.cscore import cscore
from musegnn.coexpression.halves import certainty, in_first_half
from musegnn.config import DatasetConfig, GraphConfig
from musegnn.data_store import ArraySource, open_matrix

ALL = GraphConfig(selection="all")
N_CELLS, N_GENES, PLANTED = 1200, 120, 40


def counts(seed: int = 0, *, rate: float = 2.0, planted: bool = True, cells: int = N_CELLS) -> np.ndarray:
    """Genes on their own, of which the first 40 share a programme; every second gene has a tenth of the counts."""
    rng = np.random.default_rng(seed)
    level = rng.gamma(4.0, 1 / 4, (cells, N_GENES))
    if planted:
        level[:, :PLANTED] = rng.gamma(2.0, 0.5, (cells, 1)) * rng.gamma(8.0, 1 / 8, (cells, PLANTED))
    level[:, ::2] *= 0.1
    return rng.poisson(rate * level * rng.lognormal(0.0, 0.3, (cells, 1)))


def about(path: str = "x.h5ad") -> DatasetConfig:
    return DatasetConfig(name="x", path=path, modality="scrna", tissue="t", species="human")


def source(x: np.ndarray) -> ArraySource:
    return ArraySource(csr_matrix(x), [f"G{j:03d}" for j in range(x.shape[1])])


def test_it_is_the_agreement_of_two_halves_stepped_up():
    """Against CS-CORE run on either half by itself, with means and variances of its own."""
    x = counts(rate=10.0)
    record = build_dataset(source(x), about(), ALL)
    first = in_first_half(np.arange(N_CELLS))
    z = [cscore(x[half], x[half].sum(1)).z for half in (first, ~first)]
    other = ~np.eye(N_GENES, dtype=bool)
    r = np.array([pearsonr(z[0][j][other[j]], z[1][j][other[j]]).statistic for j in range(N_GENES)])
    expected = np.clip(2 * r / (1 + r), 0, 1)
    assert record.genes.certainty.dtype == np.float32
    assert np.abs(record.genes.certainty - expected).max() < 0.05  # 1 / sqrt(cells of a half) is .04
    assert np.abs(record.genes.certainty - expected).mean() < 0.01


def test_planted_genes_have_a_high_certainty_and_those_of_few_counts_a_lower_one():
    found = build_dataset(source(counts(rate=1.0)), about(), ALL).genes.certainty
    rich, poor, alone = found[1:PLANTED:2], found[0:PLANTED:2], found[PLANTED:]
    assert np.median(rich) > 0.9
    assert np.median(poor) < np.median(rich) - 0.1
    assert rich.min() > np.quantile(alone, 0.9)


def test_genes_on_their_own_have_none():
    found = build_dataset(source(counts(planted=False)), about(), ALL).genes.certainty
    assert np.median(found) < 0.1  # 0 in half of the genes, else 2 / sqrt(pairs) at most
    assert (found == 0).mean() > 0.25
    assert np.quantile(found, 0.99) < 0.5


def test_it_foretells_the_agreement_with_other_cells():
    """What z of other cells agree with is what was said, gene by gene."""
    x = counts(3, cells=2 * N_CELLS, rate=1.0)
    said = build_dataset(source(x[:N_CELLS]), about(), ALL).genes.certainty
    z = [cscore(part, part.sum(1)).z for part in (x[:N_CELLS], x[N_CELLS:])]
    for each in z:
        np.fill_diagonal(each, np.nan)
    known = [np.isfinite(z[0][j]) & np.isfinite(z[1][j]) for j in range(N_GENES)]
    r = np.array([pearsonr(z[0][j][known[j]], z[1][j][known[j]]).statistic for j in range(N_GENES)])
    assert spearmanr(said, r).statistic > 0.6
    assert np.abs(said - np.maximum(r, 0)).mean() < 0.1


@pytest.mark.parametrize("options", [{"parallel": 5}, {"stripe_bytes": 1}, {"block_rows": 100}])
def test_neither_stripes_nor_ranges_of_cells_matter(options):
    x = counts(4)
    expected = build_dataset(source(x), about(), ALL).genes.certainty
    found = build_dataset(source(x), about(), ALL, **options).genes.certainty
    if "block_rows" in options:  # z differs by rounding
        np.testing.assert_allclose(found, expected, atol=1e-4)
    else:
        np.testing.assert_array_equal(found, expected)


def test_the_format_does_not_matter(tmp_path):
    x = counts(5, cells=300)
    expected = build_dataset(source(x), about(), ALL).genes.certainty
    names = [f"G{j:03d}" for j in range(N_GENES)]
    for k, matrix in enumerate((x.astype(np.float32), csr_matrix(x.astype(np.int64)), csr_matrix(x).tocsc())):
        adata = ad.AnnData(matrix)
        adata.var_names = names
        adata.write_h5ad(tmp_path / f"{k}.h5ad")
        found = build_dataset(open_matrix(tmp_path / f"{k}.h5ad"), about(), ALL).genes.certainty
        np.testing.assert_array_equal(found, expected)


def test_cells_that_are_dropped_move_no_other_cell_to_the_other_half():
    """An empty cell in front shifts all positions; one that is dropped in its place does not."""
    x = counts(6, cells=400)
    x[::50] = 0
    kept = build_dataset(source(x), about(), ALL)
    assert kept.n_cells == 392
    first = in_first_half(np.flatnonzero(np.arange(400) % 50))
    assert 0.4 < first.mean() < 0.6
    np.testing.assert_array_equal(first, in_first_half(np.arange(400))[np.arange(400) % 50 > 0])


@given(st.integers(0, 2**40), st.integers(1, 300))
def test_halves_depend_on_positions_alone(start, n):
    position = np.arange(start, start + n)
    order = np.random.default_rng(n).permutation(n)
    np.testing.assert_array_equal(in_first_half(position)[order], in_first_half(position[order]))


def test_halves_are_of_equal_size_and_follow_no_period():
    half = in_first_half(np.arange(100_000))
    assert abs(half.mean() - 0.5) < 0.005
    for period in (2, 3, 8, 96, 384):
        means = half[: len(half) // period * period].reshape(-1, period).mean(axis=0)
        assert np.abs(means - 0.5).max() < 5 * 0.5 / np.sqrt(len(half) / period)


def test_genes_without_pairs_or_spread_have_none():
    sums = np.array([[0.0, 5.0, 5.0, 5.0], [0, 5, 0, 0], [0, 5, 0, 0], [0, 5, 10, 10], [0, 5, 10, 10], [0, 5, -8, 10]])
    np.testing.assert_array_equal(certainty(sums), [0.0, 0.0, 0.0, 1.0])
