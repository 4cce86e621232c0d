"""What has to hold before models are compared: noise scores like noise, and training sees nothing that is held out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.quality.groups import group_atlas
from benchmarks.registry import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

NOISE = {
    "pair_over_chance": (1.0, 0.5),
    "joint_over_chance": (1.0, 0.7),
    "mixing": (1.0, 0.05),
    "conservation": (0.5, 0.05),
    "edges_positive": (0.5, 0.05),
    "within": (0.5, 0.05),
    "transfer": (0.5, 0.05),
    "modules": (0.5, 0.05),
}
"""By measure, what noise scores and how far it may be from that."""


def noise_checks() -> Iterator[Check]:
    """Score random vectors of random graphs: all must be at chance."""
    from benchmarks.graphs import held_out_pairs, plain_graph
    from benchmarks.quality.scores import Scorer

    random = np.random.default_rng(0)
    n, n_pairs = 400, 2000
    graphs = []
    for name in ("one", "two"):
        edges, others = random.integers(0, n, (2, 2, n_pairs)).transpose(0, 2, 1)
        keys, held_out = [f"g{k}" for k in range(n)], held_out_pairs(edges, others)
        graphs.append(plain_graph(name, keys, trainable=np.arange(n) % 2 != 0, held_out=held_out))
    sets = {f"s{k}": [f"g{i}" for i in random.permutation(n)[:60]] for k in range(40)}
    modules = {graph.name: {f"{graph.name} {name}": genes for name, genes in sets.items()} for graph in graphs}
    scorer = Scorer(graphs, sets=sets, modules=modules, six=False)
    found = scorer.space({graph.name: random.normal(size=(n, 32)) for graph in graphs}).measures
    for measure, (want, bound) in NOISE.items():
        got = found[measure]
        claim = f"{measure} of noise is within {bound} of {want}"
        yield Check(claim=claim, holds=abs(got - want) <= bound, got=f"{got:.3f}")


def holdout_checks() -> Iterator[Check]:
    """Look for held-out edges and genes of the example atlas in what training sees."""
    import musegnn as mg

    with tempfile.TemporaryDirectory() as folder:
        atlas = group_atlas("atlas", Path(folder), {"graph": {"n_genes": 200}})
        model = mg.MuSeGNN(mg.build_graphs(atlas, Path(folder) / "store"), atlas)
    leaked = 0
    for graph in model.graphs:
        seen = {(int(r), int(c)) for r, c in zip(graph.edges.rows, graph.edges.indices, strict=True)}
        held = zip(graph.held_out.rows.tolist(), graph.held_out.columns.tolist(), strict=True)
        leaked += sum((r, c) in seen or (c, r) in seen for r, c in held)
    yield Check(claim="no held-out edge is a training edge", holds=leaked == 0, got=f"{leaked} are")
    hidden = {key for graph in model.graphs for key in graph.keys[~graph.trainable].tolist()}
    shown = {key for graph in model.graphs for key in graph.keys[graph.trainable].tolist()}
    both = len(hidden & shown)
    yield Check(claim="a gene held out in one dataset is held out in all", holds=both == 0, got=f"{both} are not")
