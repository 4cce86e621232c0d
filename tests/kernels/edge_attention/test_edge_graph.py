"""The graph structure against scipy's transpose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from musegnn.kernels.edge_attention import batch_graphs, edge_graph, edge_graph_from_pairs


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(0, 12), density=st.sampled_from([0.0, 0.2, 1.0]))
def test_columns_are_the_transpose(seed: int, n: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    rows = sparse.csr_matrix(rng.random((n, n)) < density)
    graph = edge_graph(rows.indptr, rows.indices)
    assert (graph.n_nodes, graph.n_edges) == (n, rows.nnz)
    numbered = sparse.csr_matrix((np.arange(rows.nnz), rows.indices, rows.indptr), shape=(n, n))
    columns = numbered.tocsc()
    assert np.array_equal(graph.colptr, columns.indptr)
    assert np.array_equal(graph.row, columns.indices)
    assert np.array_equal(graph.perm, columns.data)
    assert np.array_equal(graph.target, rows.tocoo().row)


def test_pairs_in_any_order_give_one_graph() -> None:
    source, target = np.array([2, 0, 1, 2]), np.array([0, 0, 2, 1])
    graph, order = edge_graph_from_pairs(source, target, 3)
    assert graph.rowptr.tolist() == [0, 2, 3, 4]
    assert graph.col.tolist() == [0, 2, 2, 1]
    assert order.tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0, 2, 1], [0, 1], "without decreasing"),
        ([1, 2], [0, 0], "rise from 0"),
        ([0, 1], [0, 0], "rise from 0"),
        ([], [], "rise from 0"),
        ([0, 1], [1], "must be in"),
        ([0, 1], [-1], "must be in"),
        ([0, 2, 2], [1, 0], "strictly increasing"),
        ([0, 2, 2], [1, 1], "strictly increasing"),
        ([0, 1], [0.0], "array of integers"),
        ([[0, 1]], [0], "one-dimensional"),
    ],
)
def test_other_structures_are_refused(indptr: list, indices: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edge_graph(indptr, indices)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ([0], [0, 1], "equal lengths"),
        ([0], [3], "target must be in"),
        ([3], [0], "indices must be in"),
        ([0, 0], [1, 1], "strictly"),
    ],
)
def test_other_pairs_are_refused(source: list, target: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        edge_graph_from_pairs(source, target, 3)


def test_moving_keeps_every_part() -> None:
    graph = edge_graph([0, 1, 2], [1, 0])
    assert all(torch.equal(a, b) for a, b in zip(graph, graph.to("cpu"), strict=True))


def test_a_batch_is_the_graph_of_the_diagonal_blocks() -> None:
    rng = np.random.default_rng(0)
    blocks = [sparse.csr_matrix(rng.random((n, n)) < 0.4) for n in (5, 0, 1, 7)]
    graphs = [edge_graph(block.indptr, block.indices) for block in blocks]
    whole = sparse.csr_matrix(sparse.block_diag(blocks))
    whole.sort_indices()
    want = edge_graph(whole.indptr, whole.indices)
    batch = batch_graphs(graphs)
    assert all(torch.equal(got, part) for got, part in zip(batch[:5], want[:5], strict=True))
    assert batch.offsets.tolist() == [0, 5, 5, 6, 13]
    nested = batch_graphs([batch_graphs(graphs[:2]), *graphs[2:]])
    assert all(torch.equal(a, b) for a, b in zip(nested, batch, strict=True))


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one graph"):
        batch_graphs([])
