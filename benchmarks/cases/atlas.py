"""The example atlas: what the trained model does with what was hidden from it, beside its rivals, over three seeds."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from musegnn.data_store import Store
    from musegnn.musegnn import MuSeGNN

ATLAS = Path(__file__).resolve().parents[2] / "examples" / "atlas" / "atlas.yaml"
SEEDS = (0, 1, 2)
QUICK_ROUNDS = 5
RIVALS = ("untrained", "pca_procrustes", "coexpression_profile")
QUICK_GENES = 200


class Atlas:
    """Training and evaluation as `musegnn run examples/atlas/atlas.yaml` does them, for three training seeds."""

    name = "atlas"

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._store: Store | None = None

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Check that what is held out is nowhere in what training sees."""
        model = self._model(SEEDS[0], quick=quick)
        leaked = 0
        for graph in model.graphs:
            split = model.holdout.datasets[graph.name]
            seen = {(int(r), int(c)) for r, c in zip(graph.edges.rows, graph.edges.indices, strict=True)}
            held = zip(split.rows.tolist(), split.columns.tolist(), strict=True)
            leaked += sum((r, c) in seen or (c, r) in seen for r, c in held)
        yield Check(claim="no held-out edge is a training edge", holds=leaked == 0, got=f"{leaked} are")
        hidden = {key for graph in model.graphs for key in graph.keys[~graph.trainable].tolist()}
        shown = {key for graph in model.graphs for key in graph.keys[graph.trainable].tolist()}
        both = len(hidden & shown)
        yield Check(claim="a gene held out in one dataset is held out in all", holds=both == 0, got=f"{both} are not")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Train and evaluate once per seed."""
        from musegnn.evaluation.evaluate import evaluate_model

        scores: dict[str, list[float]] = {}
        for seed in SEEDS[:1] if quick else SEEDS:
            model = self._model(seed, quick=quick)
            began, cpu = time.perf_counter(), time.process_time()
            model.train()
            wall, cpu = time.perf_counter() - began, time.process_time() - cpu
            shape = f"{len(model.graphs)} datasets seed {seed}"
            yield Measurement(shape=shape, metric="training_cpu_time", value=cpu, unit="s")
            yield Measurement(shape=shape, metric="training_wall_time", value=wall, unit="s")
            for measurement in _scores(evaluate_model(model), shape, rank_goal=model.config.model.dim / 4):
                yield measurement
                key = f"{measurement.metric} {measurement.rival}"
                scores.setdefault(key, []).append(measurement.value)
                scores.setdefault(key + " rival", []).append(measurement.rival_value or np.nan)
        if not quick:
            yield from _summary(scores)

    def _model(self, seed: int, *, quick: bool) -> MuSeGNN:
        import musegnn as mg

        overrides: dict[str, Any] = {"training.seed": seed}  # values of any setting
        if quick:
            overrides |= {"training.rounds": QUICK_ROUNDS, "graph.n_genes": QUICK_GENES}
        atlas = mg.load_atlas(ATLAS, overrides)
        if self._store is None:
            self._store = mg.build_graphs(atlas, Path(self._folder.name) / "store")
        return mg.MuSeGNN(self._store, atlas)


def _scores(evaluation: dict[str, Any], shape: str, *, rank_goal: float) -> Iterator[Measurement]:  # JSON
    models = evaluation["models"]
    for rival in RIVALS:
        for metric, path in (
            ("held_out_gene_mrr", ("retrieval", "held_out", "overall", "mrr")),
            ("held_out_edge_auc_decoder", ("held_out_edges", "overall", "decoder", "all")),
            ("held_out_edge_auc_cosine", ("held_out_edges", "overall", "cosine", "all")),
            ("held_out_edge_auc_cosine_positive", ("held_out_edges", "overall", "cosine", "positive")),
        ):
            theirs = _at(models[rival], path)
            if theirs is not None:
                ours = _at(models["trained"], path)
                assert ours is not None
                yield Measurement(
                    shape=shape,
                    metric=metric,
                    value=ours,
                    unit="",
                    rival=rival,
                    rival_value=theirs,
                    larger_is_better=True,
                )
    rank = models["trained"]["space"]["effective_rank"]
    yield Measurement(shape=shape, metric="effective_rank", value=rank, unit="", goal=("value", ">=", rank_goal))


def _at(model: dict[str, Any], path: tuple[str, ...]) -> float | None:  # JSON
    value: Any = model
    for key in path:
        value = None if value is None else value.get(key)
    return None if value is None else float(value)


def _summary(scores: dict[str, list[float]]) -> Iterator[Measurement]:
    for key, values in scores.items():
        metric, _, rival = key.partition(" ")
        if rival.endswith("rival") or len(values) < 2:
            continue
        others = scores[key + " rival"]
        yield Measurement(
            shape=f"mean of {len(values)} seeds",
            metric=metric,
            value=statistics.mean(values),
            unit=f"sd {statistics.stdev(values):.3g}",
            rival=rival,
            rival_value=statistics.mean(others) if rival else None,
            larger_is_better=True,
        )


CASE = Atlas()
