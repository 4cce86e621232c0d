"""An estimate of the memory that training takes, before it runs, and of settings that would make it fit.

Bytes are sums of array sizes; weights are counted exactly. ``python -m benchmarks estimate`` holds the total against
measured peaks. Nothing here changes a number: a run that does not fit stops.

Legend: N genes, d dimensions, V anchor genes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from musegnn.errors import RunError
from musegnn.kernels.edge_attention.impl import HANDOFF_BYTES
from musegnn.model.decoder import PAIRWISE_WIDTH, make_decoder
from musegnn.model.model import make_own, make_shared_layers
from musegnn.model.shared import sharing_key
from musegnn.training.canonical import COMPONENTS
from musegnn.training.overlap import KEEP_BYTES
from musegnn.training.reconstruction import PAIR_TILE_ENTRIES, TILE_ENTRIES
from musegnn.units import OPTIMIZER, TRAINING_PROCESS, megabytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from musegnn.config import ModelConfig, TrainingConfig
    from musegnn.training.prepare import Prepared

MOST_AT_A_TIME = 4
"""Datasets that one process computes at a time; more have not been tried."""

PAIR_BYTES = 12  # per entry of the stored pairs: gene, z and estimate
EDGE_BYTES = 20 + 20 + 21 + 32  # per directed edge: selected; whole; signs and what overlaps take; attention, target
OUTLINE_BYTES = 1000  # of a dataset in processes that do not own it: labels, size and path
COPIES, COPIES_AT_REST = 7, 2  # of weights: with gradients, moments and three times in a checkpoint; without rounds
TILE_BYTES = {"mlp": 20, "inner": 16, "signed": 20, "pairwise": 12 * PAIRWISE_WIDTH}
"""Bytes that a decoder and the reconstruction loss hold per decoded pair of genes of a tile."""
SUGGESTED_SETTINGS: tuple[dict[str, Any], ...] = tuple(
    part | recompute
    for part in ({}, {"row_block": 512}, {"pairs": 50_000}, {"decoder": "pairwise", "pairs": 50_000})
    for recompute in ({}, {"recompute": True})
)[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSize:
    """Key of shared layers; N; entries of stored pairs and of the graph; columns of the profile; anchors, with maps."""

    key: str
    n_genes: int
    n_pairs: int
    n_edges: int
    n_profile: int
    n_related: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetMemory:
    """Bytes of one dataset: in every process; in its owner's, as long as it is owned; while it is worked on."""

    everywhere: int
    held: int
    step: int


def estimate_memory(
    sizes: Sequence[DatasetSize], model: ModelConfig, training: TrainingConfig, *, n_anchors: int, at_a_time: int = 1
) -> dict[str, int]:
    """Estimate the bytes, by part, of one process on the CPU that owns all datasets and computes some at a time."""
    found = [dataset_memory(size, model, training, n_anchors=n_anchors) for size in sizes]
    return {
        "libraries": TRAINING_PROCESS + (OPTIMIZER if training.rounds > 0 else 0),
        "graphs": sum(d.everywhere for d in found) + overlap_bytes(sizes),
        "datasets": sum(d.held for d in found),
        "shared modules": (COPIES if training.rounds > 0 else COPIES_AT_REST) * shared_bytes(sizes, model, n_anchors),
        "step": sum(sorted((d.step for d in found), reverse=True)[:at_a_time]),
    }


def dataset_memory(size: DatasetSize, model: ModelConfig, training: TrainingConfig, *, n_anchors: int) -> DatasetMemory:
    """Estimate the memory of one dataset, with its arrays as loaded."""
    n, profile, related = size.n_genes, size.n_profile, size.n_related
    held = 4 * n * (2 * profile + 2 * related) + PAIR_BYTES * size.n_pairs + EDGE_BYTES * size.n_edges
    held += (COPIES if training.rounds > 0 else COPIES_AT_REST) * sum(weight_bytes(size, model))
    step = 0
    if model.has_maps:  # in closed form: components of the profile and their regression, relations as float64
        held += 8 * max(COMPONENTS) * (profile + 2 * related)
        step = 8 * n * (2 * profile + 6 * related)
    if training.rounds > 0:
        encoder = encoder_bytes(size, model)
        held += shared_bytes([size], model, n_anchors) + (0 if training.recompute else encoder)
        per_head = 0 if model.encoder == "none" else 8 * size.n_edges  # handed over by the backward pass of attention
        backward = max(per_head, min(HANDOFF_BYTES, per_head * model.heads_dataset))
        scores = 16 * n**2 if training.loss.alignment > 0.0 else 0
        again = encoder if training.recompute else 0
        step = max(step, max(_decoding_bytes(size, model, training), backward) + scores + again)
    return DatasetMemory(everywhere=OUTLINE_BYTES, held=held, step=step)


@cache
def weight_bytes(size: DatasetSize, model: ModelConfig) -> tuple[int, int]:
    """Count the weights of a dataset, in bytes: maps and layer; decoder."""
    with torch.device("meta"):
        own, decoder = make_own(model, size.n_profile), make_decoder(model.decoder, size.n_genes, dim=model.dim)
    return _bytes(own), _bytes(decoder)


def shared_bytes(sizes: Sequence[DatasetSize], model: ModelConfig, n_anchors: int) -> int:
    """Count the weights that datasets share, layers and projection, in bytes."""
    with torch.device("meta"):
        layers = 0 if model.encoder == "none" else _bytes(make_shared_layers(model))
    return len({size.key for size in sizes}) * layers + 8 * n_anchors * model.projected_width


def encoder_bytes(size: DatasetSize, model: ModelConfig) -> int:
    """Count what the encoder keeps of one dataset for its backward pass, in bytes."""
    kept = (size.n_profile if model.feature_dropout > 0.0 else 0) + (3 * model.dim if model.has_maps else 0)
    if model.encoder != "none":  # of each head: query, key, value, message and what the softmax sums
        columns = (model.heads_dataset + model.heads_shared) * model.head_width
        kept += 8 * columns + 9 * model.dim + 3 * (columns + 2 * model.dim) // model.head_width
    return 4 * (size.n_genes * kept + 2 * size.n_related * model.projected_width)


def overlap_bytes(sizes: Sequence[DatasetSize]) -> int:
    """Return a bound of the overlaps of pairs of datasets that are kept, in bytes."""
    per_pair = 40 * max((size.n_genes for size in sizes), default=0)
    return min(len(sizes) * (len(sizes) - 1) // 2 * per_pair, KEEP_BYTES + per_pair)


def check_memory(data: Prepared, model: ModelConfig, training: TrainingConfig, budget: int) -> dict[str, int]:
    """Return the estimate of a training that fits a budget of bytes.

    Raises
    ------
    RunError
        E411 naming the parts that need most and the first of SUGGESTED_SETTINGS that fits, if any does.
    """
    sizes, n_anchors = dataset_sizes(data, model), len(data.anchors)
    found = estimate_memory(sizes, model, training, n_anchors=n_anchors)
    needed = sum(found.values())
    if needed <= budget:
        return found
    largest = sorted(found, key=lambda name: -found[name])[:3]
    shown = ", ".join(f"{name} {megabytes(found[name])}" for name in largest)
    msg = f"training needs about {megabytes(needed)} ({shown}), got {megabytes(budget)}"
    fix = f"give --memory {megabytes(needed)} or more"
    for changes in SUGGESTED_SETTINGS:
        given = dict(changes) | ({"row_block": None} if "pairs" in changes else {})
        other = model.model_copy(update={"decoder": given.pop("decoder", model.decoder)})
        sampled = training.model_copy(update=given)
        total = sum(estimate_memory(sizes, other, sampled, n_anchors=n_anchors).values())
        if total <= budget and not (sampled.pairs and other.decoder == "mlp"):
            settings = (f"{'model' if k == 'decoder' else 'training'}.{k}={str(v).lower()}" for k, v in changes.items())
            fix += f", or set {', '.join(settings)} ({megabytes(total)}; results differ but for recompute)"
            break
    else:
        fix += ", or train fewer datasets or genes; no setting of decoder, row blocks and recomputation fits"
    raise RunError(msg, code="E411", where="memory", fix=fix)


def fitting_at_a_time(data: Prepared, model: ModelConfig, training: TrainingConfig, budget: int | None) -> int:
    """Return how many datasets this process computes at a time in a round on the CPU: as many as cores and bytes allow.

    At least one, and at most MOST_AT_A_TIME; `budget` is ``None`` where bytes do not matter.
    """
    most = max(1, min(MOST_AT_A_TIME, len(os.sched_getaffinity(0)) // training.threads))
    if budget is None:
        return most
    sizes, n_anchors = dataset_sizes(data, model), len(data.anchors)
    needed = {
        k: sum(estimate_memory(sizes, model, training, n_anchors=n_anchors, at_a_time=k).values())
        for k in range(2, most + 1)
    }
    return max((k for k, total in needed.items() if total <= budget), default=1)


def dataset_sizes(data: Prepared, model: ModelConfig) -> list[DatasetSize]:
    """Return the sizes of the datasets that a process owns."""
    sizes, anchors = [], set(data.anchors if model.has_maps else ())
    for graph in data.owned_graphs().values():
        record = data.records[graph.name]
        about = {"n_pairs": len(record.pairs.indices), "n_profile": int(record.profile.shape[1])}
        about |= {"n_edges": graph.edges.n_edges, "n_related": len(anchors.intersection(graph.keys.tolist()))}
        sizes.append(DatasetSize(key=sharing_key(graph, model.share_by), n_genes=graph.n_genes, **about))
    return sizes


def _bytes(module: nn.Module) -> int:
    return sum(4 * parameter.numel() for parameter in module.parameters())


def _decoding_bytes(size: DatasetSize, model: ModelConfig, training: TrainingConfig) -> int:
    n = size.n_genes
    if training.pairs is not None:
        return 128 * min(training.pairs, n * (n - 1) // 2) + 32 * PAIR_TILE_ENTRIES
    rows = min(training.row_block or n, n)
    decoded = min(rows * n, TILE_ENTRIES // (PAIRWISE_WIDTH if model.decoder == "pairwise" else 1))
    summed = weight_bytes(size, model)[1] if decoded < rows * n else 0  # tiles add their gradients to a sum
    return TILE_BYTES[model.decoder] * decoded + summed + 24 * size.n_edges * rows // n
