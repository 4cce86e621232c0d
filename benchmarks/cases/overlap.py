"""Overlaps of neighbourhoods of all pairs of graphs against sets of networkx neighbours."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import TYPE_CHECKING

from benchmarks.graphs import random_graphs
from benchmarks.peers.networkx_overlap import EPSILON, networkx_graph, overlaps
from benchmarks.registry import Check, Measurement
from benchmarks.run import interleave
from musegnn.training.overlap import Overlaps

if TYPE_CHECKING:
    from collections.abc import Iterator

    import networkx as nx

    from musegnn.graph import GraphData

N_GENES, N_POOL, DENSITY = 1000, 2000, 0.1
GOAL = 50.0


class Overlap:
    """Graphs of 1000 genes and about 50,000 edges; two share about 500 genes; networkx keeps no signs.

    Ours starts from the training graphs and includes finding shared genes and packing; networkx starts from its own
    graphs. The baseline compares every pair once where its published caller does so twice, which has a row of its own.
    """

    name = "overlap"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Compare every weight of every pair: the counts exactly, the published quotient within its epsilon."""
        del quick
        graphs = random_graphs(4, N_GENES, DENSITY, n_pool=N_POOL, seed=1)
        ours, baselines = Overlaps(graphs), [networkx_graph(graph) for graph in graphs]
        n, differ, published = 0, 0, 0.0
        for i, j in combinations(range(len(graphs)), 2):
            pair = ours.pair(i, j)
            mine = dict(zip(graphs[i].keys[pair.rows_i].tolist(), pair.weight.tolist(), strict=True))
            theirs = overlaps(baselines[i], baselines[j], epsilon=0.0)
            n += len(mine)
            differ += len(mine.keys() ^ theirs.keys()) + sum(mine[gene] != theirs[gene] for gene in mine)
            rounded = overlaps(baselines[i], baselines[j])
            published = max(published, *(abs(mine[gene] - rounded[gene]) for gene in mine))
        yield Check(claim=f"{n} weights equal those of sets", holds=n > 0 and differ == 0, got=f"{differ} differ")
        claim = f"and those with the published epsilon within {EPSILON:g}"
        yield Check(claim=claim, holds=published <= EPSILON, got=f"{published:.1e}")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Time all pairs."""
        for n_graphs in (4,) if quick else (4, 16):
            graphs = random_graphs(n_graphs, N_GENES, DENSITY, n_pool=N_POOL)
            baselines = [networkx_graph(graph) for graph in graphs]
            goal = None if n_graphs < 16 else ("ratio", ">=", GOAL)
            yield from _compare(graphs, baselines, rounds=3 if quick else 5, goal=goal)


def _compare(
    graphs: list[GraphData], baselines: list[nx.Graph], *, rounds: int, goal: tuple[str, str, float] | None
) -> Iterator[Measurement]:
    places = range(len(graphs))

    def ours() -> None:
        found = Overlaps(graphs)
        for i, j in combinations(places, 2):
            found.pair(i, j)

    shape = f"T={len(graphs)} N={N_GENES} E={graphs[0].edges.n_edges // 2}"
    for which, pairs in (("", list(combinations(places, 2))), (", both orders", list(permutations(places, 2)))):

        def baseline(pairs: list[tuple[int, int]] = pairs) -> None:
            for i, j in pairs:
                overlaps(baselines[i], baselines[j])

        seconds, baseline_seconds = interleave(ours, baseline, rounds=rounds)
        yield Measurement(
            shape=shape,
            metric="cpu_time" + which,
            value=seconds,
            unit="s",
            baseline="networkx sets",
            baseline_value=baseline_seconds,
            goal=None if which else goal,
        )


CASE = Overlap()
