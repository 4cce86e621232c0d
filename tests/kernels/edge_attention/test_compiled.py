"""The compiled implementation from inside: its exponential, tiles, vector widths, cache and memory."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numba import njit

from musegnn.kernels.edge_attention import edge_attention, edge_graph
from musegnn.kernels.edge_attention.impl import cpu, simd
from musegnn.kernels.edge_attention.impl.tiles import cut

ROOT = Path(__file__).resolve().parents[3]


@njit
def exp_of_each(x: np.ndarray, out: np.ndarray) -> None:
    for at in range(0, x.size, simd.VECTOR_BYTES // x.itemsize):
        simd.store(simd.exp(simd.load(x, at, x.size - at)), out, at, x.size - at)


@njit
def sum_and_largest(x: np.ndarray, n: int) -> tuple[float, float]:
    value, least = simd.load(x, 0, n), x.dtype.type(-np.inf)
    return simd.total(value), simd.largest(simd.only(value, n, least))


@pytest.mark.parametrize(("dtype", "lowest"), [(np.float32, -87.0), (np.float64, -708.0)])
@pytest.mark.parametrize("n", [1, 1023])
def test_exponential_is_within_two_ulp(dtype: type, lowest: float, n: int) -> None:
    x = np.linspace(lowest, 0.25, n).astype(dtype)
    got = np.full(n + 1, 7, dtype)
    exp_of_each(x, got[:n])
    assert got[n] == 7
    want = np.exp(x.astype(np.longdouble))
    assert (np.abs(got[:n] - want) <= 2 * np.spacing(want.astype(dtype))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exponential_below_the_bound_and_of_no_number(dtype: type) -> None:
    got = np.empty(3, dtype)
    exp_of_each(np.array([-np.inf, np.nan, 0.0], dtype), got)
    assert 0 <= got[0] < 1e-37
    assert np.isnan(got[1])
    assert got[2] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_only_what_is_left_counts(dtype: type) -> None:
    x = np.arange(-30, -30 + 64, dtype=dtype)
    for n in range(1, simd.VECTOR_BYTES // x.itemsize + 1):
        assert sum_and_largest(x, n) == (x[:n].sum(), x[n - 1])


def test_cuts_are_where_tiles_begin() -> None:
    rng = np.random.default_rng(0)
    rows = [np.sort(rng.choice(50, size, replace=False)) for size in rng.integers(0, 50, 50)]
    pointers, index = np.cumsum([0, *map(len, rows)]), np.concatenate(rows)
    cuts = cut(pointers, index, np.array([0, 50]), np.array([13]), 4)
    for t in range(5):
        want = [start + np.searchsorted(row, 13 * t) for start, row in zip(pointers[:-1], rows, strict=True)]
        assert cuts[t * 50 :][:50].tolist() == (want if t < 4 else pointers[1:].tolist())


def results(n: int = 60, dim: int = 32, dropout: float = 0.0, impl: str = "numba") -> list[torch.Tensor]:
    rng = np.random.default_rng(3)
    mask = rng.random((n, n)) < 0.4
    mask[n // 3], mask[n // 2] = True, False
    graph = edge_graph(np.concatenate([[0], np.cumsum(mask.sum(1))]), np.nonzero(mask)[1])
    generator = torch.Generator().manual_seed(0)
    shapes = [(n, 3, dim)] * 3 + [(n, 3, 2), (graph.n_edges, 2)]
    inputs = [torch.randn(*shape, generator=generator).requires_grad_() for shape in shapes]
    out = edge_attention(*inputs, graph, impl=impl, dropout=dropout)
    return [part.detach() for part in (*out, *torch.autograd.grad(out.o.sum() + out.z.square().sum(), inputs))]


@pytest.mark.parametrize("n", [17, 1023])
def test_odd_sizes_equal_the_reference(n: int) -> None:
    for got, want in zip(results(n, dropout=0.1), results(n, dropout=0.1, impl="reference"), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


def test_ten_runs_give_the_same_bits() -> None:
    want = results(150, dropout=0.1)
    for _ in range(9):
        assert all(torch.equal(g, w) for g, w in zip(results(150, dropout=0.1), want, strict=True))


def test_tiles_change_results_by_rounding_only(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = results(dropout=0.2)
    monkeypatch.setattr(cpu, "TILE_BYTES", 20 * 32 * 4)
    monkeypatch.setattr(cpu, "BLOCK_EDGES", 200)
    for got, want in zip(results(dropout=0.2), whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_blocks_and_threads_change_no_bit_of_tiled_results(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(cpu, "TILE_BYTES", 20 * 32 * 4)
    monkeypatch.setattr(cpu, "SERIAL_WORK", 0)
    want = results()
    try:
        for block_edges, threads in ((1, 1), (200, 2), (100_000, 3)):
            monkeypatch.setattr(cpu, "BLOCK_EDGES", block_edges)
            torch.set_num_threads(threads)
            assert all(torch.equal(g, w) for g, w in zip(results(), want, strict=True)), (block_edges, threads)
    finally:
        torch.set_num_threads(before)


def test_no_memory_is_read_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    want = results()
    empty = np.empty

    def poisoned(shape: int, dtype: type) -> np.ndarray:
        memory = empty(shape, dtype)
        memory.view(np.uint8).fill(0xFF)  # not-a-numbers
        return memory

    monkeypatch.setattr(cpu.np, "empty", poisoned)
    torch.use_deterministic_algorithms(mode=True)  # torch fills new memory with not-a-numbers then
    try:
        assert torch.randn(3).new_empty(3).isnan().all()
        with ThreadPoolExecutor(1) as pool:  # a thread of its own has no memory from earlier calls
            assert all(torch.equal(g, w) for g, w in zip(pool.submit(results).result(), want, strict=True))
        monkeypatch.setattr(cpu, "KEPT_BYTES", 0)
        assert all(torch.equal(g, w) for g, w in zip(results(), want, strict=True))
    finally:
        torch.use_deterministic_algorithms(mode=False)


def test_tiles_are_cut_once_per_graph_and_again_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(cpu, "cut", lambda *arguments: made.append(1) or cut(*arguments))
    graph = edge_graph([0, 2, 3, 3], [0, 2, 0])
    tensors = [torch.randn(3, 2, 4) for _ in range(3)]
    inputs = (*tensors, torch.randn(3, 2, 1), torch.randn(3, 1))

    first = edge_attention(*inputs, graph, impl="numba").o
    assert torch.equal(edge_attention(*inputs, graph, impl="numba").o, first)
    assert len(made) == 1
    graph.col.copy_(torch.tensor([1, 2, 0]))
    changed = edge_attention(*inputs, graph, impl="numba").o
    assert not torch.equal(changed, first)
    torch.testing.assert_close(changed, edge_attention(*inputs, graph, impl="reference").o)
    assert len(made) == 2
    kept = len(cpu._tilings)
    del graph
    gc.collect()
    other = edge_graph([0, 1], [0])
    edge_attention(*(part[:1] for part in inputs), other, impl="numba")
    assert len(cpu._tilings) <= kept - 1


def test_graphs_of_inference_mode_are_taken() -> None:
    with torch.inference_mode():
        graph = edge_graph([0, 2, 3, 3], [0, 2, 0])
        tensors = [torch.randn(3, 2, 4) for _ in range(3)]
        inputs = (*tensors, torch.randn(3, 2, 1), torch.randn(3, 1))
        found = [edge_attention(*inputs, graph, impl=impl).o for impl in ("numba", "reference")]
        torch.testing.assert_close(*found)


def test_memory_kept_between_calls_is_bounded() -> None:
    def kept() -> int:
        results(400)
        return max(memory.nbytes for memory in vars(cpu._kept).values())

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(kept).result() <= cpu.KEPT_BYTES


CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_compiled import results
from musegnn.kernels.edge_attention.impl import numba
bits = [part.numpy().tobytes().hex() for part in results(dim=16)]
stats = [f(16).stats for f in (numba.forward_kernel, numba.backward_rows_kernel, numba.backward_columns_kernel)]
print(json.dumps({"bits": bits, "compiled": sum(sum(s.cache_misses.values()) for s in stats)}))
"""
PLAIN, AVX2 = "-avx,-avx2,-fma,-avx512f", "+avx2,+fma,-avx512f"


def child(**environment: str) -> dict:
    """Compute the results in a process whose kernels are compiled for other instructions."""
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer: dict = json.loads(done.stdout)
    return answer


def has(*flags: str) -> bool:
    info = Path("/proc/cpuinfo")
    return info.is_file() and set(flags) <= set(info.read_text(encoding="utf-8").split())


@pytest.mark.slow
@pytest.mark.skipif(not has("avx2", "fma"), reason="needs a processor with AVX2 and FMA")
def test_vector_widths_agree_bit_by_bit_and_plain_code_to_rounding() -> None:
    generic = {"NUMBA_CPU_NAME": "x86-64"}
    plain = child(**generic, NUMBA_CPU_FEATURES=PLAIN)["bits"]
    narrow = child(**generic, NUMBA_CPU_FEATURES=AVX2)["bits"]
    assert narrow == [
        part.numpy().tobytes().hex() for part in results(dim=16)
    ]  # as this processor is, with AVX-512 or not
    for x, y in zip(plain, narrow, strict=True):
        got, want = (np.frombuffer(bytes.fromhex(part), np.float32) for part in (x, y))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-6)


@pytest.mark.slow
def test_second_process_compiles_nothing(tmp_path: Path) -> None:
    assert child(NUMBA_CACHE_DIR=str(tmp_path))["compiled"] == 3
    assert child(NUMBA_CACHE_DIR=str(tmp_path))["compiled"] == 0


def test_change_of_any_source_is_seen_by_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from musegnn.kernels.edge_attention.impl import compile as compile_

    before = compile_.sources.__wrapped__()
    for file in Path(compile_.__file__).parent.glob("*.py"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "lanes.py").write_text("other = 1\n")
    monkeypatch.setattr(compile_, "__file__", str(tmp_path / "compile.py"))
    assert compile_.sources.__wrapped__() != before
