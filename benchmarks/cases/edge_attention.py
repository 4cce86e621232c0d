"""Edge-featured attention on the CPU against PyG's TransformerConv: time, memory, threads, share of the GEMM rate.

Legend: N nodes, E edges; 4 heads of dimension 32, 2 edge features, 128 input features, float32, uniform random graphs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.attention.layers import ATTRIBUTES, DIM, HEADS, random_graph, setting
from benchmarks.registry import Check, Measurement
from benchmarks.run import interleave
from musegnn.kernels.edge_attention import edge_attention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
BASELINE = "PyG TransformerConv"
EXACT, TIMES_THEIRS = 1e-9, 2.0
# Nodes, density, goal, rounds.
SPEED = ((1000, 0.2, 40.0, 11), (2000, 0.05, 30.0, 11), (5000, 0.05, 30.0, 5), (1000, 0.05, 8.0, 31))
QUICK_SPEED = ((1000, 0.05, None, 11), (1000, 0.2, None, 5))
MEMORY = ((1000, 0.2), (2000, 0.05), (5000, 0.05))
FORWARD = ((1000, 0.2), (2000, 0.2), (5000, 0.05), (10_000, 0.02), (20_000, 0.01))
SETTLE = 2
NANOSECONDS = 40.0
SPEED_UP = 1.7


class EdgeAttention:
    """Random graphs of 1000 to 20,000 nodes, one thread unless said."""

    name = "edge_attention"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Compare every output and gradient with PyG's, in float64 and by the errors in float32."""
        del quick
        for n_nodes, density in ((400, 0.2), (700, 0.03)):
            exact = setting(n_nodes, density, torch.float64)
            truth, ours = exact.run_theirs(), exact.run_ours()
            single = setting(n_nodes, density)
            for name, want, got, mine, other in zip(
                exact.names(), truth, ours, single.run_ours(), single.run_theirs(), strict=True
            ):
                size = 1.0 if name == "lin_key.bias.grad" else float(want.norm())  # a bias of keys has no effect
                off = float((got - want).norm()) / size
                what = f"{n_nodes} nodes, {name}"
                yield Check(claim=f"{what}: PyG's in float64 to {EXACT:g}", holds=off <= EXACT, got=f"{off:.1e}")
                error, theirs = (float((part.double() - want).norm()) for part in (mine, other))
                yield Check(
                    claim=f"{what}: float32 error at most {TIMES_THEIRS:g} times PyG's",
                    holds=error <= TIMES_THEIRS * theirs,
                    got=f"{error / theirs:.2f}",
                )

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Time the layers in turns, weigh them in processes of their own, then time the operation alone."""
        with _threads(1):
            for n_nodes, density, goal, rounds in QUICK_SPEED if quick else SPEED:
                yield from _compare(n_nodes, density, goal, rounds)
            for n_nodes, density in MEMORY[:1] if quick else MEMORY:
                yield _weigh(n_nodes, density)
            for n_nodes, density in FORWARD[:1] if quick else FORWARD:
                yield from _forward(n_nodes, density)
        if len(os.sched_getaffinity(0)) > 1:
            yield _two_threads(*(FORWARD[0] if quick else FORWARD[2]), rounds=5 if quick else 9)


def _shape(n_nodes: int, density: float) -> str:
    return f"N={n_nodes} d={density:g}"


def _compare(n_nodes: int, density: float, goal: float | None, rounds: int) -> Iterator[Measurement]:
    chosen = setting(n_nodes, density)
    ours, theirs = interleave(chosen.run_ours, chosen.run_theirs, rounds=rounds, settle=SETTLE)
    yield Measurement(
        shape=_shape(n_nodes, density),
        metric="layer_fwd_bwd_cpu_1_thread",
        value=ours,
        unit="s",
        baseline=BASELINE,
        baseline_value=theirs,
        goal=None if goal is None else ("ratio", ">=", goal),
    )


def _weigh(n_nodes: int, density: float) -> Measurement:
    peaks = {}
    for layer in ("ours", "theirs"):
        command = [sys.executable, "-m", "benchmarks.probes.edge_attention", layer, str(n_nodes), str(density)]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        peaks[layer] = int(done.stdout) / 1e6
    return Measurement(
        shape=_shape(n_nodes, density),
        metric="layer_fwd_bwd_peak",
        value=peaks["ours"],
        unit="MB",
        baseline=BASELINE,
        baseline_value=peaks["theirs"],
        goal=("ratio", ">=", 30.0),
    )


def _forward(n_nodes: int, density: float) -> Iterator[Measurement]:
    """Time the operation alone, in turns with products of matrices of inner dimension D."""
    graph = random_graph(n_nodes, density)
    inputs = _inputs(n_nodes, graph.n_edges)
    a, b = torch.randn(HEADS, 1000, DIM), torch.randn(HEADS, DIM, 1000)
    c = torch.empty(HEADS, 1000, 1000)
    seconds = _best([lambda: edge_attention(*inputs, graph), lambda: torch.bmm(a, b, out=c)], time.process_time)
    shape = f"{_shape(n_nodes, density)} E={graph.n_edges}"
    yield Measurement(
        shape=shape,
        metric="op_fwd_cpu_1_thread",
        value=seconds[0] / graph.n_edges * 1e9,
        unit="ns/edge",
        goal=("value", "<=", NANOSECONDS),
    )
    rate = HEADS * (4 * DIM + 4 * ATTRIBUTES) * graph.n_edges / seconds[0] / 1e9
    gemm = 2 * HEADS * 1000 * 1000 * DIM / seconds[1] / 1e9
    yield Measurement(
        shape=shape,
        metric="op_fwd_rate",
        value=rate,
        unit="GFLOP/s",
        baseline="torch.bmm, K=32",
        baseline_value=gemm,
        larger_is_better=True,
    )


def _two_threads(n_nodes: int, density: float, *, rounds: int) -> Measurement:
    """Return the best wall time of two threads against that of one, forward and backward."""
    graph = random_graph(n_nodes, density)
    inputs = [part.requires_grad_() for part in _inputs(n_nodes, graph.n_edges)]

    def run(threads: int) -> None:
        with _threads(threads):
            out = edge_attention(*inputs, graph)
            torch.autograd.grad([out.o, out.z], inputs[:4], [out.o.detach(), out.z.detach()])

    two, one = _best([lambda: run(2), lambda: run(1)], time.perf_counter, rounds)
    return Measurement(
        shape=_shape(n_nodes, density),
        metric="op_fwd_bwd_wall_2_threads",
        value=two,
        unit="s",
        baseline="1 thread",
        baseline_value=one,
        goal=("ratio", ">=", SPEED_UP),
    )


def _inputs(n_nodes: int, n_edges: int) -> list[torch.Tensor]:
    nodes = [torch.randn(n_nodes, HEADS, DIM) for _ in range(3)]
    return [*nodes, torch.randn(n_nodes, HEADS, ATTRIBUTES), torch.randn(n_edges, ATTRIBUTES)]


def _best(jobs: list[Callable[[], object]], clock: Callable[[], float], rounds: int = 9) -> list[float]:
    """Return the shortest time of each job, measured in turns."""
    times: list[list[float]] = [[] for _ in jobs]
    for _ in range(rounds + 1):
        for job, taken in zip(jobs, times, strict=True):
            start = clock()
            job()
            taken.append(clock() - start)
    return [min(taken[1:]) for taken in times]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


CASE = EdgeAttention()
