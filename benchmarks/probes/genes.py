"""``python -m benchmarks.probes.genes SETTINGS FOLDER``: build, map and score PBMC with N genes per dataset.

SETTINGS is JSON: ``graph`` (fields of ``GraphConfig``) and ``splits`` (evaluation seeds). The store is made in FOLDER.
The first process that runs there also writes ``base.json``: its genes and gene sets, to which later ones restrict what
they measure, so that numbers of different selections compare.

Prints one line of JSON per stage as soon as it ends (``build``; by split ``maps`` and ``evaluation``; ``coverage``):
CPU seconds and the peak memory of that stage, what the stages before left included.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from threadpoolctl import threadpool_limits

import musegnn as mg
from benchmarks.graphs import plain_graph
from benchmarks.quality import groups
from musegnn.evaluation.baselines.candidates import vector_candidate
from musegnn.evaluation.edge_prediction import held_out_auc, pair_cosine
from musegnn.evaluation.gene_sets import FunctionScores, function_scores, read_gmt, transfer_scores
from musegnn.evaluation.joint import mixing, retrieve_jointly
from musegnn.evaluation.metrics import mean_of_defined
from musegnn.evaluation.retrieval import chance_level, retrieve_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.api import MuSeGNN
    from musegnn.evaluation.retrieval import PairRetrieval
    from musegnn.graph import GraphData

    Vectors = Mapping[str, NDArray[np.floating]]

GROUP = "pbmc"
MEMORY = 10_000_000_000
"""Bytes that a build may plan with: a constant, as the default depends on what else runs."""


@dataclass(frozen=True, slots=True)
class Base:
    """What other selections are compared on.

    Attributes
    ----------
    genes
        Keys of the genes by dataset.
    sets
        Dataset and name of each gene set that has enough of these genes.
    """

    genes: Mapping[str, frozenset[str]]
    sets: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, path: Path, graphs: Sequence[GraphData], scores: FunctionScores) -> Base:
        """Read what the first process wrote, or write it."""
        if not path.is_file():
            genes = {t.name: t.keys.tolist() for t in graphs}
            path.write_text(json.dumps({"genes": genes, "sets": sorted(scores.auroc)}), encoding="utf-8")
        found = json.loads(path.read_text(encoding="utf-8"))
        genes = {name: frozenset(keys) for name, keys in found["genes"].items()}
        return cls(genes, frozenset((dataset, name) for dataset, name in found["sets"]))

    def restrict(self, graphs: Sequence[GraphData], vectors: Vectors) -> tuple[list[GraphData], Vectors]:
        """Return datasets without edges, and vectors, of the genes of the base alone."""
        small, chosen = [], {}
        for t in graphs:
            keep = np.isin(t.keys, list(self.genes[t.name]))
            chosen[t.name] = vectors[t.name][keep]
            small.append(
                plain_graph(
                    t.name,
                    t.keys[keep].tolist(),
                    trainable=t.trainable[keep],
                    modality=t.modality,
                    tissue=t.tissue,
                    species=t.species,
                )
            )
        return small, chosen

    def mean(self, scores: FunctionScores) -> float:
        """Return the mean over the sets of the base."""
        return FunctionScores({key: value for key, value in scores.auroc.items() if key in self.sets}).mean


def retrieval(
    graphs: Sequence[GraphData], vectors: Vectors, genes: Mapping[str, frozenset[str]] | None = None
) -> dict[str, float]:
    """Compute joint and pair MRR of held-out genes, and both over chance; with `genes`, of queries in these alone."""
    keys, counts = np.unique(np.concatenate([t.keys for t in graphs]), return_counts=True)
    copies = dict(zip(keys.tolist(), counts.tolist(), strict=True))
    sizes, n = {t.name: t.n_genes for t in graphs}, sum(t.n_genes for t in graphs)
    joint_levels = {c: chance_level(n - c + 1)[0] for c in range(1, len(graphs) + 1)}
    pair_levels = {name: chance_level(size)[0] for name, size in sizes.items()}

    def mean(pairs: Sequence[PairRetrieval], *, joint: bool) -> tuple[float, float, int]:
        found, chance, n_queries = [], [], 0
        for p in pairs:
            asked = p.held_out.key.tolist()
            keep = np.array(
                [genes is None or (k in genes[p.first] and k in genes[p.second]) for k in asked], dtype=bool
            )
            if not keep.any():
                continue
            found.append(float(p.held_out.reciprocal_rank[keep].mean()))
            both = (pair_levels[p.first] + pair_levels[p.second]) / 2
            levels = [joint_levels[copies[k]] if joint else both for k in asked]
            chance.append(float(np.mean(np.array(levels)[keep])))
            n_queries += int(keep.sum())
        return mean_of_defined(found), mean_of_defined(chance), n_queries

    joint, joint_chance, n_queries = mean(retrieve_jointly(graphs, vectors), joint=True)
    pair, pair_chance, _ = mean(retrieve_all(graphs, vector_candidate("", vectors).similarity), joint=False)
    return {
        "queries": float(n_queries),
        "joint_mrr": joint,
        "joint_over_chance": joint / joint_chance,
        "pair_mrr": pair,
        "pair_over_chance": pair / pair_chance,
    }


def score(graphs: Sequence[GraphData], vectors: Vectors, sets: Mapping[str, list[str]], path: Path) -> dict[str, float]:
    """Compute all measures: of all genes, of those of the base among all (``same genes``), and of those alone."""
    within, transfer = function_scores(graphs, vectors, sets), transfer_scores(graphs, vectors, sets)
    base = Base.of(path, graphs, within)
    few, few_vectors = base.restrict(graphs, vectors)
    few_within, few_transfer = (f(few, few_vectors, sets) for f in (function_scores, transfer_scores))
    positive = [held_out_auc(pair_cosine(vectors[t.name]), t.held_out)["positive"] for t in graphs]
    found = retrieval(graphs, vectors)
    found |= {f"{name} same genes": value for name, value in retrieval(graphs, vectors, base.genes).items()}
    found |= {f"{name} same rows": value for name, value in retrieval(few, few_vectors).items()}
    return found | {
        "mixing": mixing(graphs, vectors)["overall"],
        "mixing same rows": mixing(few, few_vectors)["overall"],
        "edges_positive": mean_of_defined(positive),
        "sets": float(len(within.by_set)),
        "within": within.mean,
        "within same sets": base.mean(within),
        "within same rows": few_within.mean,
        "transfer": transfer.mean,
        "transfer same sets": base.mean(transfer),
        "transfer same rows": few_transfer.mean,
    }


def coverage(model: MuSeGNN, sets: Mapping[str, list[str]]) -> dict[str, float]:
    """Compute the share of detected genes of gene sets that have a vector in some and in all datasets."""
    import anndata

    least, detected = model.config.graph.min_cells, set[str]()
    for dataset in model.config.datasets:
        counts = anndata.read_h5ad(dataset.path)
        cells = np.asarray((counts.X > 0).sum(axis=0)).ravel()
        names = np.asarray(counts.var_names)[cells >= least]
        detected.update(f"{dataset.species}:{name}" for name in names.tolist())
    wanted = detected & {key for keys in sets.values() for key in keys}
    have = [set(g.keys.tolist()) for g in model.graphs]
    return {
        "detected": float(len(wanted)),
        "covered_some": len(wanted & set.union(*have)) / len(wanted),
        "covered_all": len(wanted & set.intersection(*have)) / len(wanted),
    }


@contextmanager
def stage(name: str, **about: Any) -> Iterator[dict[str, Any]]:  # JSON
    """Measure a stage and print it; what the block puts into the dictionary is printed as well."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is forgotten
    cpu, wall = time.process_time(), time.perf_counter()
    row: dict[str, Any] = {"stage": name, **about}
    yield row
    row |= {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "peak": _peak()}
    print(json.dumps(row), flush=True)


def _peak() -> int:
    return int(Path("/proc/self/status").read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) * 1024


def main(settings: dict[str, Any], folder: Path) -> None:  # JSON
    """Run all stages."""
    place = folder / "store"
    atlas = groups.group_atlas(GROUP, folder, {"graph": settings["graph"], "training": {"threads": 1}})
    with stage("build") as row:
        store = mg.build_graphs(atlas, place, memory=MEMORY)
        row["bytes"] = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    path = groups.gene_sets()
    assert path is not None
    gmt, sets = read_gmt(path), dict[str, list[str]]()
    import_module("musegnn.api")  # torch with it, which is no part of the maps
    for split in settings["splits"]:
        chosen = atlas.model_copy(update={"evaluation": atlas.evaluation.model_copy(update={"seed": split})})
        with threadpool_limits(1):
            with stage("maps", split=split) as row:
                began = time.process_time()
                model = mg.MuSeGNN(store, chosen)
                row["prepare"] = time.process_time() - began
                vectors = model.train().vectors()
                row["genes"] = [g.n_genes for g in model.graphs]
                row["anchors"] = len(model._data.anchors)
            if split == settings["splits"][0]:
                sets = model.gene_sets(gmt)
                with stage("coverage") as row:
                    row["measures"] = coverage(model, sets)
            with stage("evaluation", split=split) as row:
                row["measures"] = score(model.graphs, vectors, sets, folder / "base.json")
        del model, vectors  # before the next split makes its own


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
