"""Extend a trained run by datasets: what is trained is read, never computed anew, and nothing of it changes.

Of the datasets of the run, vectors, gene keys and weights are enough; their graphs are not read. The checkpoint of the
extended run holds the same units as that of the run, by the same digests, and those of the added datasets.

Legend: N genes, d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from musegnn.errors import RunError
from musegnn.graph import PartnerGraph, SignedNeighbours
from musegnn.model.relational_features import anchor_genes
from musegnn.training.added import Fixed, fit_added, mean_align
from musegnn.training.checkpoint import Shard, commit, load_weights, manifests, read_units, write_shard
from musegnn.training.diagnostics import compare_pair
from musegnn.training.genes import check_orthologs
from musegnn.training.metrics_log import describe_space
from musegnn.training.prepare import Prepared, fingerprint_with, make_model, prepare_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.config import AtlasConfig, DatasetConfig
    from musegnn.graph import ComparedGraph
    from musegnn.training.checkpoint import Tensors
    from musegnn.training.prepare import Records

    Vectors = dict[str, NDArray[np.float32]]

MOST_PAIRS = 200
FINISH = "finish the run with the command that started it"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRun:
    """What an added dataset is fitted to, and what an extended run takes over.

    Attributes
    ----------
    graphs
        Datasets of the run in the order of the atlas: labels, gene keys and what is held out, without edges.
    vectors
        Vectors by dataset name, (N, d) float32.
    units
        Weights, and moments where rounds were trained, by unit.
    fingerprint, rounds
        Fingerprint of the run, and number of rounds trained.
    """

    graphs: Sequence[PartnerGraph]
    vectors: Vectors
    units: Mapping[str, Tensors]
    fingerprint: str
    rounds: int


def read_trained(folder: Path, config: AtlasConfig) -> TrainedRun:
    """Read a finished run from its newest checkpoint and ``embeddings.h5ad``.

    Raises
    ------
    RunError
        E405 when either is missing, E406 when they do not belong together, E403 when the checkpoint is damaged.
    """
    import anndata

    path = folder / "embeddings.h5ad"
    found = manifests(folder / "checkpoints")
    if not found or not path.is_file():
        msg = f"the run has no {'checkpoint' if not found else path.name} yet"
        raise RunError(msg, code="E405", where=str(folder), fix=FINISH)
    manifest, adata = found[0], anndata.read_h5ad(path)
    about = dict(adata.uns.get("musegnn", {}))
    if about != {"rounds": manifest.round, "fingerprint": manifest.fingerprint}:
        msg = f"{path.name} is not of the newest checkpoint, of round {manifest.round}"
        raise RunError(msg, code="E406", where=str(folder), fix=FINISH)
    keys = adata.obs["gene_key"].to_numpy(dtype=np.str_)
    trainable, names = ~adata.obs["held_out"].to_numpy(dtype=np.bool_), adata.obs["dataset"].to_numpy(dtype=np.str_)
    rows = {dataset.name: np.flatnonzero(names == dataset.name) for dataset in config.datasets}
    return TrainedRun(
        graphs=[outline(d, keys[rows[d.name]], trainable[rows[d.name]]) for d in config.datasets],
        vectors={name: np.asarray(adata.X[at], dtype=np.float32) for name, at in rows.items()},
        units=read_units(folder / "checkpoints", manifest),
        fingerprint=manifest.fingerprint,
        rounds=manifest.round,
    )


def outline(dataset: DatasetConfig, keys: NDArray[np.str_], trainable: NDArray[np.bool_]) -> PartnerGraph:
    """Return a dataset by its labels, gene keys (N,) and which genes are not held out, without edges."""
    none = np.empty(0, dtype=np.int64)
    return PartnerGraph(
        name=dataset.name,
        modality=dataset.modality,
        tissue=dataset.tissue,
        species=dataset.species,
        added=dataset.added,
        keys=keys,
        trainable=trainable,
        neighbours=SignedNeighbours.of(np.zeros(len(keys) + 1, dtype=np.int64), none, none.astype(np.bool_)),
    )


def extend(run: TrainedRun, store: Records, config: AtlasConfig) -> tuple[TrainedRun, list[dict[str, Any]]]:  # JSON
    """Place the datasets of a configuration that a run does not have, and return the run with them.

    Parameters
    ----------
    store
        Store that holds the graphs of the new datasets.
    config
        The configuration of the run with datasets after its own, each with `added`.

    Returns
    -------
    TrainedRun, list of dict
        The extended run, and records for ``metrics.jsonl``: of kind ``space``, ``watch`` and ``drift``
        (:func:`compare_with_run`).

    Raises
    ------
    InputError
        E258 when a dataset shares too few genes with those before it.
    """
    graphs, vectors, units = list(run.graphs), dict(run.vectors), dict(run.units)
    trained = [graph for graph in graphs if not graph.added]
    anchors = anchor_genes([graph.keys[graph.trainable] for graph in trained])
    align = mean_align([units[f"dataset/{graph.name}/layer"]["weight/maps.align"] for graph in trained])
    orthologs = check_orthologs(config)
    found, rows = run.fingerprint, list[dict[str, Any]]()
    for i, dataset in enumerate(config.datasets[len(graphs) :], start=len(graphs)):
        new = prepare_dataset(store, config, dataset, orthologs)
        records, edges = {dataset.name: new.record}, {dataset.name: new.edges}
        data = Prepared(records=records, edges=edges, graphs=[*graphs, new.graph], anchors=anchors, digests=[])
        model = make_model(data, config, owned=[i])
        for unit, module in model.shared.by_unit.items():
            load_weights(module, unit, units[unit])
        fixed = Fixed(graphs=graphs, vectors=[vectors[graph.name] for graph in graphs], align=align)
        fit_added(model, i, fixed, seed=config.training.seed)
        with torch.no_grad():
            z = {dataset.name: model.encode(i).numpy().astype(np.float32)}
        for unit in (model.layer_unit(i), model.decoder_unit(i)):
            named = model.units[unit].named_parameters()
            units[unit] = {f"weight/{name}": parameter.detach().contiguous() for name, parameter in named}
        rows += describe_space(z, run.rounds)
        rows += compare_with_run(new.graph, z[dataset.name], graphs, vectors, run.rounds)
        found = fingerprint_with(found, new.digest)
        vectors |= z
        graphs.append(outline(dataset, new.graph.keys, new.graph.trainable))
    extended = TrainedRun(graphs=graphs, vectors=vectors, units=units, fingerprint=found, rounds=run.rounds)
    return extended, rows


def compare_with_run(
    graph: ComparedGraph,
    z: NDArray[np.floating],
    graphs: Sequence[ComparedGraph],
    vectors: Mapping[str, NDArray[np.floating]],
    round_: int,
) -> list[dict[str, Any]]:  # JSON
    """Compare how the genes of an added dataset are found with how those of the run find one another.

    Returns
    -------
    list of dict
        A record of kind ``watch`` (:func:`~musegnn.training.diagnostics.compare_pair`) per dataset of the run that
        shares genes; then one of kind ``drift`` with ``held_out`` and ``anchors``, the mean over these of the mean
        reciprocal rank over chance of genes that are held out, and that are not; ``run_held_out`` and ``run_anchors``,
        the same means over pairs of datasets of the run, at most ``MOST_PAIRS`` of them; and ``n_held_out``, the
        number of held-out genes compared. ``None`` where there is nothing to compare.
    """
    watched = [row for other in graphs if (row := compare_pair(graph, other, z, vectors[other.name], round_))]
    within = [row for a, b in _pairs(graphs)
              if (row := compare_pair(a, b, vectors[a.name], vectors[b.name], round_))]  # fmt: skip
    drift: dict[str, Any] = {"kind": "drift", "round": round_, "dataset": graph.name}
    for prefix, rows in (("", watched), ("run_", within)):
        drift |= {f"{prefix}held_out": _over_chance(rows, "held_out_mrr")}
        drift |= {f"{prefix}anchors": _over_chance(rows, "anchor_mrr")}
    return [*watched, drift | {"n_held_out": sum(int(row["n_held_out"]) for row in watched)}]


def write_extended(run: TrainedRun, folder: Path) -> None:
    """Write the checkpoint of an extended run into a folder; units that it holds already are not written again."""
    checkpoints = folder / "checkpoints"
    shards: list[Shard] = [write_shard(checkpoints, name, tensors) for name, tensors in run.units.items()]
    commit(checkpoints, run.rounds, shards, fingerprint=run.fingerprint)


def _pairs(graphs: Sequence[ComparedGraph]) -> Iterator[tuple[ComparedGraph, ComparedGraph]]:
    """Yield pairs of datasets in both orders, spread evenly over all where there are many."""
    every = list(permutations(graphs, 2))
    yield from every[:: -(-len(every) // MOST_PAIRS)] if every else ()


def _over_chance(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    found = [row[key] / row["chance_mrr"] for row in rows if key in row]
    return float(np.mean(found)) if found else None
