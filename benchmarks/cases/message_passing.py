"""Does a gene's neighbourhood in the graph add to its vector? Message passing on top of the closed forms.

*Smoothing* adds a share of the signed mean of the neighbours, without parameters, under several edge rules; *attention*
trains the layers of the method, which start as nothing, for 100 rounds (the rounds without layers stand beside it), and
on PBMC other convolutions in their place.
Evaluation seed 1 of PBMC, lung and brain, from which defaults are chosen. Writes
``benchmarks/reports/message_passing.md``.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks.cases.maps import score
from benchmarks.peers.convolutions import CONVOLUTIONS, convolution
from benchmarks.quality import groups
from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from musegnn.api import MuSeGNN
    from musegnn.graph import EdgeSet

    Vectors = Mapping[str, NDArray[np.floating]]

SPLIT = 1
RULES: dict[str, dict[str, Any]] = {  # values of any setting
    "default edges": {},
    "10 strongest per gene": {"rule": "top_k", "degree": 10},
    "shared axes, 10 per gene": {"rule": "shared_axes", "mean_degree": 10.0},
    "10 strongest positive per gene": {"rule": "top_k", "degree": 10, "sign": "positive"},
}
SHARES = (0.2, 0.4)
ROUNDS = {"rounds": 100, "threads": 1, "checkpoint_every": 100_000}
TRAINED: dict[str, dict[str, Any]] = {
    "100 rounds without layers": {},
    "attention, default edges": {"model": {"encoder": "transformer"}},
    "attention, 10 strongest per gene": {"model": {"encoder": "transformer"}, "edges": {"rule": "top_k", "degree": 10}},
}
KINDS = ("within_tissue", "across_modality", "across_species")
COLUMNS = {
    "joint_mrr": "joint MRR",
    "pair_mrr": "pair MRR",
    "pair_mrr within_tissue": "within tissue",
    "pair_mrr across_modality": "across modality",
    "pair_mrr across_species": "across species",
    "mixing": "mixing",
    "edges_positive": "positive edges",
    "transfer": "transfer",
    "within": "gene sets within",
    "seconds": "CPU seconds",
}
REPORT = Path(__file__).resolve().parents[1] / "reports" / "message_passing.md"


def smoothed(vectors: Vectors, edges: Mapping[str, EdgeSet], share: float) -> dict[str, NDArray[np.float64]]:
    """Return unit vectors plus a share of the mean of the neighbours, negative ones with the other sign."""
    from musegnn.vectors import unit_rows

    result = {}
    for name, x in vectors.items():
        graph = edges[name]
        n = graph.n_genes
        sign = csr_matrix((np.sign(graph.z), graph.indices, graph.indptr), shape=(n, n))
        degree = np.maximum(np.diff(graph.indptr), 1)[:, None]
        unit = unit_rows(x)
        result[name] = (1 - share) * unit + share * np.asarray(sign @ unit) / degree
    return result


def measures(model: MuSeGNN, vectors: Vectors) -> dict[str, float]:
    """Return what is measured of vectors; missing where a group has no such pairs or no gene sets are here."""
    from musegnn.evaluation.baselines.candidates import vector_candidate
    from musegnn.evaluation.gene_sets import function_scores, read_gmt, transfer_scores
    from musegnn.evaluation.retrieval import retrieve_all, summarize_pairs

    graphs = model.graphs
    found = score(model, vectors)
    pairs = summarize_pairs(retrieve_all(graphs, vector_candidate("", vectors).similarity))
    found |= {f"pair_mrr {kind}": pairs[kind]["mrr"] for kind in KINDS if pairs[kind]["n_pairs"]}
    path = groups.gene_sets()
    if path is not None:
        sets = model.gene_sets(read_gmt(path))
        found["transfer"] = transfer_scores(graphs, vectors, sets).mean
        found["within"] = function_scores(graphs, vectors, sets).mean
    return found


class MessagePassing:
    """Vectors with and without messages along edges."""

    name = "message_passing"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check smoothing against its definition."""
        from musegnn.graph import EdgeSet

        part = np.array([1.0, -2.0, 1.0, -2.0], dtype=np.float32)
        graph = EdgeSet(
            indptr=np.array([0, 1, 3, 4]),
            indices=np.array([1, 0, 2, 1], dtype=np.int32),
            z=np.array([3.0, 3.0, -2.0, -2.0], dtype=np.float32),
            estimate=part,
            features=np.zeros((4, 2), dtype=np.float32),
            cutoff=0.0,
        )
        found = smoothed({"a": np.eye(3)}, {"a": graph}, 0.5)["a"]
        want = 0.5 * np.eye(3) + 0.5 * np.array([[0, 1, 0], [0.5, 0, -0.5], [0, -1, 0]])
        holds = bool(np.allclose(found, want))
        yield Check(claim="smoothing is the signed mean of neighbours", holds=holds, got=f"{found.tolist()}")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Compare all variants in each group."""
        logging.disable(logging.WARNING)
        table: dict[tuple[str, str], dict[str, float]] = {}
        names = [name for name in ("pbmc", "lung", "brain") if name in groups.present()]
        for group in names[:1] if quick else names:
            for variant, model, vectors, seconds in _variants(group, quick=quick):
                found = table[group, variant] = measures(model, vectors) | {"seconds": seconds}
                for measure, value in found.items():
                    plain = table[group, "closed form"][measure]
                    yield Measurement(
                        shape=f"{group} {variant}",
                        metric=measure,
                        value=value,
                        unit="",
                        baseline="" if variant == "closed form" else "closed form",
                        baseline_value=None if variant == "closed form" else plain,
                        larger_is_better=measure != "seconds",
                    )
        if not quick and len(names) == 3:
            REPORT.write_text(page(table), encoding="utf-8")


def _variants(group: str, *, quick: bool) -> Iterator[tuple[str, MuSeGNN, Vectors, float]]:
    """Yield name, model (for its hold-outs), vectors and CPU seconds of each variant."""
    import musegnn as mg
    from musegnn.coexpression.edges import select_edges
    from musegnn.config import EdgeConfig

    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):

        def make(settings: dict[str, Any]) -> MuSeGNN:
            split = {"evaluation": {"seed": SPLIT}, "training": {"threads": 1}}
            atlas = groups.group_atlas(group, Path(folder), split | settings)
            return mg.MuSeGNN(mg.build_graphs(atlas, Path(folder) / "store"), atlas)

        plain = make({})
        began = time.process_time()
        vectors = plain.train().vectors()
        yield "closed form", plain, vectors, time.process_time() - began
        for rule, settings in dict(list(RULES.items())[:1] if quick else RULES.items()).items():
            edges, hidden = {}, {graph.name: graph.held_out for graph in plain.graphs}
            for name, record in plain.records.items():
                kept = select_edges(record.pairs, record.n_cells, EdgeConfig(**settings))
                edges[name] = _without(kept, *hidden[name].all)
            for share in SHARES:
                began = time.process_time()
                found = smoothed(vectors, edges, share)
                yield f"smoothing {share:g}, {rule}", plain, found, time.process_time() - began
        for name, settings in {} if quick else TRAINED.items():
            model = make(settings | {"training": ROUNDS})
            began = time.process_time()
            model.train()
            yield name, model, model.vectors(), time.process_time() - began
        for kind in CONVOLUTIONS if group == "pbmc" and not quick else ():
            with convolution(kind):
                model = make({"model": {"encoder": "transformer"}, "training": ROUNDS})
                began = time.process_time()
                model.train()
                yield f"{kind}, default edges", model, model.vectors(), time.process_time() - began


def _without(edges: EdgeSet, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> EdgeSet:
    """Leave out pairs that are held out."""
    from musegnn.coexpression.edges import edges_from_mask

    n = edges.n_genes
    code = edges.rows * n + edges.indices
    return edges_from_mask(edges, ~np.isin(code, np.concatenate([rows * n + columns, columns * n + rows])))


def page(table: Mapping[tuple[str, str], Mapping[str, float]]) -> str:
    """Return the page of all variants, a table per group."""
    lines = [
        "# Does message passing add to the closed forms?",
        "",
        "`python -m benchmarks message_passing` writes this page: evaluation seed 1, one training seed.",
        "Measures as in [the comparison of models](quality.md). With another edge rule, attention has the held-out",
        "edges of that rule.",
        "",
    ]
    for group in dict.fromkeys(group for group, _ in table):
        rows = {variant: found for (g, variant), found in table.items() if g == group}
        shown = {m: title for m, title in COLUMNS.items() if any(m in found for found in rows.values())}
        lines += [
            f"## {group}",
            "",
            "| vectors | " + " | ".join(shown.values()) + " |",
            "|---" * (len(shown) + 1) + "|",
        ]
        for variant, found in rows.items():
            cells = [_cell(found.get(m), m) for m in shown]
            lines.append(f"| {variant} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(value: float | None, measure: str) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if measure == "seconds" else f"{value:.4f}" if measure == "joint_mrr" else f"{value:.3f}"


CASE = MessagePassing()
