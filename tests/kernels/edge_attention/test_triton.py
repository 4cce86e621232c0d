"""Starts the checks of the Triton kernels, and checks what they read: work lists and bit masks."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from musegnn.kernels.edge_attention import batch_graphs, edge_graph
from musegnn.kernels.edge_attention.impl.triton import config, work_lists

SUITE = Path(__file__).with_name("triton_suite.py")


@pytest.mark.slow
@pytest.mark.parametrize("tests", ["lists", "not lists"])
def test_kernels_equal_the_reference(tests: str) -> None:
    """Compiled on a GPU, otherwise in Triton's interpreter."""
    pytest.importorskip("triton")
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(SUITE),
        "-k",
        tests,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999), n=st.sampled_from([1, 5, 31, 32, 33, 64, 70]), density=st.sampled_from([0.0, 0.3, 1.0])
)
def test_masks_say_which_edges_exist_and_where_they_are(seed: int, n: int, density: float) -> None:
    dense = np.random.default_rng(seed).random((n, n)) < density
    rows = sparse.csr_matrix(dense)
    graph = edge_graph(rows.indptr, rows.indices)
    mask, base = work_lists.make_masks(graph.rowptr, graph.col)
    assert mask.shape == base.shape == (-(-n // 32), n)
    place = np.full((n, n), -1)
    place[dense] = np.arange(rows.nnz)
    bits = mask.numpy().view(np.uint32)
    for i in range(n):
        for j in range(n):
            word, bit = bits[j // 32, i], j % 32
            assert bool(word >> bit & 1) == dense[i, j]
            if dense[i, j]:
                assert base[j // 32, i] + int(word & ((1 << bit) - 1)).bit_count() == place[i, j]


def test_masks_of_many_edges_are_made_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sparse.csr_matrix(np.random.default_rng(1).random((90, 90)) < 0.3)
    graph = edge_graph(rows.indptr, rows.indices)
    whole = work_lists.make_masks(graph.rowptr, graph.col)
    monkeypatch.setattr(work_lists, "CHUNK", 17)
    assert all(torch.equal(x, y) for x, y in zip(work_lists.make_masks(graph.rowptr, graph.col), whole, strict=True))


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(0, 20), max_size=12), longest=st.integers(1, 9))
def test_items_cover_every_edge_once_and_the_longest_come_first(counts: list[int], longest: int) -> None:
    pointers = torch.tensor([0, *np.cumsum(counts)])
    rows = torch.arange(len(counts))
    items = work_lists.make_items(pointers, rows, longest)
    assert items.length.tolist() == sorted(items.length.tolist(), reverse=True)
    assert all(count <= longest for count in items.length.tolist())
    covered = [
        (row, edge)
        for row, start, count in zip(items.row.tolist(), items.start.tolist(), items.length.tolist(), strict=True)
        for edge in range(start, start + count)
    ]
    assert sorted(covered) == [
        (row, edge) for row in range(len(counts)) for edge in range(pointers[row], pointers[row + 1])
    ]
    assert set(items.row.tolist()) == set(range(len(counts)))
    parts = {part: (row, start) for row, start, _, part in zip(*(column.tolist() for column in items[:4]), strict=True)}
    parts.pop(-1, None)
    assert sorted(parts) == list(range(items.n_parts))
    for row, first, last in zip(items.split_row.tolist(), items.split_part, items.split_part[1:], strict=False):
        starts = [parts[part] for part in range(int(first), int(last))]
        assert len(starts) > 1
        assert starts == sorted(starts)
        assert {owner for owner, _ in starts} == {row}


def test_plan_is_made_once_and_freed_with_its_graph() -> None:
    graph = edge_graph([0, 1, 2], [1, 0])
    before = len(work_lists._plans)
    first = work_lists.plan_for(graph, config.LIMITS, may_tile=True)
    assert work_lists.plan_for(graph, config.LIMITS, may_tile=True) is first
    assert work_lists.plan_for(graph, config.LIMITS, may_tile=False) is not first
    assert len(work_lists._plans) == before + 2
    del graph
    gc.collect()
    other = edge_graph([0, 1], [0])
    assert work_lists.plan_for(other, config.LIMITS, may_tile=True) is not first
    assert len(work_lists._plans) <= before + 1


def test_dense_graphs_of_a_batch_take_tiles_and_the_largest_come_first() -> None:
    full, empty = np.ones((40, 40)), np.zeros((9, 9))
    graphs = [
        edge_graph(m.indptr, m.indices) for m in map(sparse.csr_matrix, (full[:20, :20], empty, full, np.eye(50)))
    ]
    batch = work_lists.Plan(batch_graphs(graphs), config.Limits(), may_tile=True)
    assert batch.tiles is not None
    assert batch.tiles.sizes == [20, 40]
    assert batch.tiles.table.tolist() == [[0, 0, 0, 20], [29, 20, 400, 40]]
    assert batch.tile_items(16).tolist() == [[1, 0], [1, 1], [1, 2], [0, 0], [0, 1]]
    rows = batch.row_items(batch_graphs(graphs)).row.tolist()
    assert sorted(rows) == [*range(20, 29), *range(69, 119)]


def test_tiles_are_taken_where_the_table_says() -> None:
    assert config.may_tile("half", 32, 2)
    assert config.may_tile("half", 100, 2)
    assert not config.may_tile("half", 100, 5)
    assert not config.may_tile("half", 129, 0)
    assert not config.may_tile("tf32x3", 64, 0)
    assert config.dot_precision(torch.float32) == "tf32x3"
    assert config.dot_precision(torch.bfloat16) == "half"
