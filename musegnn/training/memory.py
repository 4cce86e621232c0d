"""An estimate of the memory that training takes, before it runs, and of settings that would make it fit.

Bytes are sums of array sizes; parameters are counted exactly. ``python -m benchmarks training_step`` holds the total
against measured peaks. Nothing here changes a number: a run that does not fit stops.

Legend: T datasets, N genes, E entries of a graph (each edge twice), d dimensions, V anchor genes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from musegnn.errors import RunError
from musegnn.kernels.edge_attention.impl import HANDOFF_BYTES
from musegnn.model.decoder import PAIRWISE_WIDTH, make_decoder
from musegnn.model.model import make_own, make_shared_layers
from musegnn.model.shared import sharing_key
from musegnn.training.canonical import COMPONENTS, MORE_COMPONENTS
from musegnn.training.decoder_fit import MAX_ROWS
from musegnn.training.discriminant import AXES
from musegnn.training.overlap import KEEP_BYTES
from musegnn.training.reconstruction import PAIR_TILE_ENTRIES, TILE_ENTRIES
from musegnn.units import TRAINING_PROCESS, megabytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from musegnn.config import ModelConfig, TrainingConfig
    from musegnn.graph import GraphData
    from musegnn.training.prepare import Prepared

OPTIMIZER = 160 * 10**6  # torch.optim, which rounds load
GRAPH_ENTRY, COMPARED_ENTRY = 24 + 8, 9 + 12  # bytes per edge: attention and target; positive edges and overlaps
DECODER_ARRAYS = {"mlp": 5, "inner": 4, "signed": 5, "pairwise": 3}
SUGGESTED_SETTINGS: tuple[dict[str, Any], ...] = (
    {"training.recompute": True},
    {"training.row_block": 512},
    {"training.row_block": 512, "training.recompute": True},
    {"training.pairs": 50_000},
    {"training.pairs": 50_000, "training.recompute": True},
    {"model.decoder": "pairwise", "training.pairs": 50_000},
    {"model.decoder": "pairwise", "training.pairs": 50_000, "training.recompute": True},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSize:
    """Key of the shared layers of a dataset; N; E; columns of the profile; anchor genes in it, 0 without maps."""

    key: str
    n_genes: int
    n_entries: int
    n_profile: int
    n_related: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetMemory:
    """Bytes that one dataset takes in the process that owns it, beside the arrays that were loaded.

    `compared` is the graph as losses between datasets hold it, `copies` counts the weights, their gradients, moments
    and a checkpoint's copies, `contribution` is the gradient of shared modules, `encoder` what is kept for the
    backward pass, and `step` the largest of closed form, decoder, comparison and backward pass, one by one.
    """

    features: int
    graph: int
    compared: int
    weights: int
    copies: int
    contribution: int
    encoder: int
    step: int

    @property
    def kept(self) -> int:
        """Bytes that are there as long as the process owns the dataset, but for `encoder` and `compared`."""
        return self.features + self.graph + self.copies * self.weights + self.contribution


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The peak of the training process, in bytes by part."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())


def estimate_memory(
    sizes: Sequence[DatasetSize], model: ModelConfig, training: TrainingConfig, *, n_anchors: int, data_bytes: int
) -> MemoryEstimate:
    """Estimate the memory on the CPU when one process owns all datasets, of which `data_bytes` are loaded already."""
    found = [dataset_memory(size, model, training, n_anchors=n_anchors) for size in sizes]
    shared = len({size.key for size in sizes}) * group_bytes(model) + projection_bytes(model, n_anchors)
    weights, encoder, trains = sum(d.weights for d in found) + shared, [d.encoder for d in found], training.rounds > 0
    parts = {
        "base": TRAINING_PROCESS + (OPTIMIZER if trains else 0),
        "data": data_bytes,
        "features": sum(d.features for d in found),
        "graphs": sum(d.graph + d.compared for d in found) + overlap_bytes([size.n_genes for size in sizes]),
        "parameters": weights,
        "moments": 2 * weights if trains else 0,
        "gradients": weights - shared + sum(d.contribution for d in found) if trains else 0,
        "checkpoint": (3 if trains else 1) * weights,
        "encoder": max(encoder, default=0) if training.recompute else sum(encoder),
        "step": max([_closed_form_bytes(sizes, model, n_anchors), *(d.step for d in found)]),
    }
    return MemoryEstimate(parts)


def dataset_memory(size: DatasetSize, model: ModelConfig, training: TrainingConfig, *, n_anchors: int) -> DatasetMemory:
    """Estimate the memory of one dataset."""
    n, trains = size.n_genes, training.rounds > 0
    with torch.device("meta"):
        own = _bytes(make_own(model, size.n_profile))
        decoder = _bytes(make_decoder(model.decoder, n, dim=model.dim))
    first, second, d = model.heads_dataset, model.heads_shared, model.head_width
    encoder, backward = size.n_profile if model.feature_dropout > 0.0 else 0, own
    if model.has_maps:
        encoder += 3 * model.dim
    if model.encoder != "none":  # of each head: query, key, value, message and what the softmax sums
        heads = first + second + 2 * (model.dim // d)
        encoder += model.dim + 4 * (first + second) * d + heads * (4 * d + 3)
        handed_over = max(2 * 4 * size.n_entries, min(HANDOFF_BYTES, 2 * 4 * size.n_entries * first))
        backward += 8 * n * max(first * d, second * d, model.dim) + handed_over
    compared = 4 * training.loss.n_contrast if training.loss.contrast > 0.0 else 0
    scores = min(compared, 4 * n) ** 2 + (n**2 if training.loss.alignment > 0.0 else 0)
    steps = (_decoder_bytes(size, decoder, model, training), 16 * scores, backward) if trains else ()
    return DatasetMemory(
        features=4 * n * (size.n_profile + 2 * size.n_related),
        graph=GRAPH_ENTRY * size.n_entries,
        compared=COMPARED_ENTRY * size.n_entries,
        weights=own + decoder,
        copies=7 if trains else 2,
        contribution=group_bytes(model) + projection_bytes(model, n_anchors) if trains else 0,
        encoder=4 * (n * encoder + 2 * size.n_related * model.projected_width) if trains else 0,
        step=max([_closed_form_bytes([size], model, n_anchors), *steps]),
    )


@cache
def group_bytes(model: ModelConfig) -> int:
    """Count the weights of the layers that a group of datasets shares, in bytes."""
    with torch.device("meta"):
        return 0 if model.encoder == "none" else _bytes(make_shared_layers(model))


def projection_bytes(model: ModelConfig, n_anchors: int) -> int:
    """Count the weights of the projection that all datasets share, in bytes."""
    return 4 * 2 * n_anchors * model.projected_width


def overlap_bytes(n_genes: Sequence[int]) -> int:
    """Return a bound of the overlaps of pairs that are kept, from the genes of each dataset, in bytes."""
    per_pair = 40 * max(n_genes, default=0)
    return min(len(n_genes) * (len(n_genes) - 1) // 2 * per_pair, KEEP_BYTES + per_pair)


def check_memory(data: Prepared, model: ModelConfig, training: TrainingConfig, budget: int) -> MemoryEstimate:
    """Return the estimate of a training that fits a budget of bytes.

    Raises
    ------
    RunError
        E411 naming the parts that need most and the first of SUGGESTED_SETTINGS that fits, if any does.
    """
    owned = [graph for graph in data.graphs if graph.name in data.records]
    sizes = [size_of(g, model, int(data.records[g.name].profile.shape[1]), data.anchors) for g in owned]
    n_anchors, loaded = len(data.anchors), count_bytes((data.records, data.edges, data.graphs))
    found = estimate_memory(sizes, model, training, n_anchors=n_anchors, data_bytes=loaded)
    if found.total <= budget:
        return found
    largest = sorted(found.parts.items(), key=lambda item: -item[1])[:3]
    shown = ", ".join(f"{name} {megabytes(part)}" for name, part in largest)
    msg = f"training needs about {megabytes(found.total)} ({shown}), got {megabytes(budget)}"
    fix = f"give --memory {megabytes(found.total)} or more"
    for changes in SUGGESTED_SETTINGS:
        sections = {"model": model.model_dump(), "training": training.model_dump()}
        for name, value in changes.items():
            section, _, key = name.partition(".")
            sections[section][key] = value
        if sections["training"]["pairs"] is not None:
            sections["training"]["row_block"] = None
            if sections["model"]["decoder"] == "mlp":
                continue
        other = type(model).model_validate(sections["model"]), type(training).model_validate(sections["training"])
        total = estimate_memory(sizes, *other, n_anchors=n_anchors, data_bytes=loaded).total
        if total <= budget:
            settings = ", ".join(f"{name}={str(value).lower()}" for name, value in changes.items())
            fix += f", or set {settings} ({megabytes(total)}; results differ but for recompute)"
            break
    else:
        fix += ", or train fewer datasets or genes; no setting of decoder, row blocks and recomputation fits"
    raise RunError(msg, code="E411", where="memory", fix=fix)


def size_of(graph: GraphData, model: ModelConfig, n_profile: int, anchors: Sequence[str]) -> DatasetSize:
    """Return the sizes of a dataset with `n_profile` columns of its residual profile."""
    return DatasetSize(
        key=sharing_key(graph, model.share_by),
        n_genes=graph.n_genes,
        n_entries=graph.edges.n_edges,
        n_profile=n_profile,
        n_related=len(set(anchors).intersection(graph.keys.tolist())) if model.has_maps else 0,
    )


def count_bytes(thing: Any) -> int:  # anything that holds arrays
    """Add up the bytes of all different arrays in dataclasses, mappings and sequences."""
    seen: dict[int, int] = {}
    waiting = [thing]
    while waiting:
        part = waiting.pop()
        if isinstance(part, np.ndarray):
            seen[id(part)] = part.nbytes
        elif is_dataclass(part):
            waiting += [getattr(part, field.name) for field in fields(part)]
        elif isinstance(part, dict | list | tuple):
            waiting += part.values() if isinstance(part, dict) else part
    return sum(seen.values())


def _bytes(module: nn.Module) -> int:
    return sum(4 * parameter.numel() for parameter in module.parameters())


def _decoder_bytes(size: DatasetSize, weights: int, model: ModelConfig, training: TrainingConfig) -> int:
    n, width = size.n_genes, PAIRWISE_WIDTH if model.decoder == "pairwise" else 1
    if training.pairs is not None:
        drawn = 2 * min(training.pairs, n * (n - 1) // 2)
        return 64 * drawn + 32 * min(PAIR_TILE_ENTRIES, drawn * PAIRWISE_WIDTH)
    rows = n if training.row_block is None else min(training.row_block, n)
    tile = max(1, TILE_ENTRIES // (n * width))
    summed = weights if rows > tile else 0  # tiles add their gradients to a sum
    return 4 * DECODER_ARRAYS[model.decoder] * min(rows, tile) * n * width + summed + 24 * size.n_entries * rows // n


def _closed_form_bytes(sizes: Sequence[DatasetSize], model: ModelConfig, n_anchors: int) -> int:
    """Estimate the float64 arrays of :mod:`musegnn.training.initialize`: the largest of its four stages."""
    if not model.has_maps or not sizes:
        return 0
    axes = min(AXES, 2 * n_anchors)
    relations = max(s.n_genes * (6 * s.n_related + 2 * s.n_profile) for s in sizes)
    views = sum(max(COMPONENTS) * (s.n_profile + 2 * s.n_related) for s in sizes) + 10 * n_anchors * model.own_width
    views += max(s.n_genes * (2 * s.n_profile + max(COMPONENTS) + MORE_COMPONENTS) for s in sizes)
    shared = max(s.n_genes * (4 * s.n_related + axes) for s in sizes) + 10 * n_anchors * axes
    decoders = max(8 * min(s.n_genes, MAX_ROWS) * s.n_genes for s in sizes)
    return 8 * max(relations, views, shared, decoders)
