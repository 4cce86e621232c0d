"""What training will take, before it runs, and which settings would make it fit.

Bytes are counted from the sizes of the tensors in the code, part by part; parameters exactly. ``python -m benchmarks
training_step`` holds the total against measured peaks. Nothing here changes a number: a run that does not fit stops.

Legend: T datasets, N genes, E entries of a graph (each edge twice), d dimensions, A genes that a pair shares.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from musegnn.errors import RunError
from musegnn.kernels.edge_attention.impl import HANDOFF_BYTES
from musegnn.model.decoder import make_decoder
from musegnn.model.encoder import DatasetLayer, SharedLayers
from musegnn.model.shared import sharing_key
from musegnn.model.variants import CONVOLUTIONS
from musegnn.training.canonical import COMPONENTS, MORE_COMPONENTS
from musegnn.training.decoder_fit import MAX_ROWS
from musegnn.training.discriminant import AXES
from musegnn.training.overlap import KEEP_BYTES
from musegnn.training.reconstruction import PAIR_TILE_ENTRIES, TILE_ENTRIES
from musegnn.units import TRAINING_PROCESS, megabytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from musegnn.config import ModelConfig, TrainingConfig
    from musegnn.graph import GraphData
    from musegnn.training.prepare import Prepared

GEOMETRIC = 240 * 10**6
"""What PyTorch Geometric takes, where a convolution uses it."""
EDGE_GRAPH, TARGET, POSITIVE, PACKED = 24, 8, 9, 12
NORM_ARRAYS = 4
MAP_ARRAYS = 3
RELATION_ARRAYS, TABLES, PAIR_COLUMNS = 6, 5, 8
DECODER_ARRAYS = {"mlp": 5, "inner": 4, "signed": 5, "pairwise": 3}
DRAWN_PAIR = 64
PAIR_ARRAYS = 8
SCORE_ARRAYS = 4
SUGGESTED_SETTINGS: tuple[tuple[str, ...], ...] = (
    ("training.recompute=true",),
    ("training.loss.n_alignment=2000",),
    ("training.row_block=512",),
    ("training.row_block=512", "training.loss.n_alignment=2000", "training.recompute=true"),
    ("training.pairs=50000",),
    ("training.pairs=50000", "training.loss.n_alignment=2000", "training.recompute=true"),
    ("model.decoder=pairwise", "training.pairs=50000"),
    (
        "model.decoder=pairwise",
        "training.pairs=50000",
        "training.loss.n_alignment=2000",
        "training.recompute=true",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSize:
    """What one dataset's share of memory depends on.

    Attributes
    ----------
    key
        Of the shared layers that it uses.
    n_genes, n_entries
        N and E.
    n_profile
        Columns of the residual profile.
    n_related
        Anchor genes in this dataset, where relations are used; else 0.
    """

    key: str
    n_genes: int
    n_entries: int
    n_profile: int
    n_related: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetMemory:
    """Bytes that one dataset takes in the process that owns it, beside the arrays that were loaded.

    Attributes
    ----------
    features, graph
        Tensors of node features; the graph as attention and loss hold it.
    compared
        The graph as losses between two datasets hold it.
    weights
        Of its own maps, layer and decoder.
    copies
        How often these are there: with rounds their gradients take as much, their moments twice, and the copy that a
        checkpoint makes of weights and moments three times as much; without, there is the copy of the weights.
    contribution
        Its gradient of the shared modules.
    encoder
        What the encoder keeps for its backward pass.
    step
        The largest of the closed form and, with rounds, decoder, losses between two datasets and the encoder's backward
        pass. Datasets are computed one by one, so a process needs the largest of its datasets' steps.
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
        """Bytes that are there as long as the process owns the dataset, but for the encoder's and those compared."""
        return self.features + self.graph + self.copies * self.weights + self.contribution


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Peak of the training process.

    Attributes
    ----------
    parts
        Bytes by part.
    """

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())

    def describe(self) -> str:
        """Name the parts that need most, in one line."""
        largest = sorted(self.parts.items(), key=lambda item: -item[1])[:3]
        return ", ".join(f"{name} {megabytes(size)}" for name, size in largest)


def estimate_memory(
    sizes: Sequence[DatasetSize], model: ModelConfig, training: TrainingConfig, *, n_words: int, data_bytes: int
) -> MemoryEstimate:
    """Count what training takes on the CPU when one process owns all datasets.

    Parameters
    ----------
    sizes
        The datasets.
    model, training
        Settings.
    n_words
        Genes of the vocabulary.
    data_bytes
        Arrays of graphs and profiles that are loaded already.

    Returns
    -------
    MemoryEstimate
        Parts: ``base`` (interpreter and libraries), ``data``, ``features``, ``graphs`` (as attention, loss and overlaps
        hold them), ``parameters``, ``moments``, ``gradients``, ``checkpoint`` (copies of weights and moments while it
        is written), ``encoder`` (results kept for the backward pass) and ``step`` (the largest of decoder, losses
        between two datasets, the encoder's backward pass and the closed form).
    """
    found = [dataset_memory(size, model, training, n_words=n_words) for size in sizes]
    groups = len({size.key for size in sizes})
    shared = groups * group_bytes(model, training) + projection_bytes(model, training, n_words=n_words)
    own = sum(d.weights for d in found)
    trains = training.rounds > 0  # else nothing is kept for a backward pass
    encoder = [d.encoder for d in found]
    parts = {
        "base": TRAINING_PROCESS + library_bytes(model),
        "data": data_bytes,
        "features": sum(d.features for d in found),
        "graphs": sum(d.graph + d.compared for d in found) + overlap_bytes([size.n_genes for size in sizes]),
        "parameters": own + shared,
        "moments": 2 * (own + shared) if trains else 0,
        "gradients": (own if trains else 0) + sum(d.contribution for d in found),
        "checkpoint": (3 if trains else 1) * (own + shared),
        "encoder": max(encoder, default=0) if training.recompute else sum(encoder),
        "step": max([closed_form_bytes(sizes, model, n_words=n_words), *(d.step for d in found)]),
    }
    return MemoryEstimate(parts)


def dataset_memory(size: DatasetSize, model: ModelConfig, training: TrainingConfig, *, n_words: int) -> DatasetMemory:
    """Count what one dataset takes.

    Parameters
    ----------
    size
        The dataset.
    model, training
        Settings.
    n_words
        Genes of the vocabulary.
    """
    item = _item(training)
    with torch.device("meta"):
        layer = _own_weights(size, model)
        decoder = _count(make_decoder(model.decoder, size.n_genes, dim=model.dim, width=model.decoder_width))
    kept, passing = (item * n for n in _encoder_entries(size, model))
    backward = passing + _handed_over(item * size.n_entries, model.heads_dataset) + item * layer
    trains = training.rounds > 0
    shared = group_bytes(model, training) + projection_bytes(model, training, n_words=n_words)
    steps = _decoder_bytes(size, decoder, model, training, item), _comparison_bytes(size, training, item), backward
    return DatasetMemory(
        features=item * size.n_genes * (size.n_profile + 2 * size.n_related),
        graph=_graph_bytes(size, model, training),
        compared=(POSITIVE + PACKED) * size.n_entries,
        weights=item * (layer + decoder),
        copies=7 if trains else 2,
        contribution=shared if trains else 0,
        encoder=kept if trains else 0,
        step=max([closed_form_bytes([size], model, n_words=n_words), *(steps if trains else ())]),
    )


def closed_form_bytes(sizes: Sequence[DatasetSize], model: ModelConfig, *, n_words: int) -> int:
    """Count the float64 arrays of relations and closed forms (:mod:`musegnn.training.initialize`) alive at a time.

    Parameters
    ----------
    sizes
        The datasets of one process.
    model
        Settings.
    n_words
        Genes of the vocabulary.

    Returns
    -------
    int
        Bytes of the largest of: the relations of a dataset while they are made; the components of all datasets with the
        profile of one; the shared map, with the relations of one dataset and tables of all relations on the axes; the
        pairs that one decoder is fitted to.
    """
    if not model.has_maps:
        return 0
    axes, known, own = min(AXES, 2 * n_words), max(COMPONENTS) + MORE_COMPONENTS, 2 * model.own_width

    def largest(entries: Callable[[DatasetSize], int]) -> int:
        return max(map(entries, sizes), default=0)

    made = largest(lambda size: size.n_genes * (RELATION_ARRAYS * size.n_related + 2 * size.n_profile))
    views = sum(max(COMPONENTS) * (size.n_profile + 2 * size.n_related) for size in sizes)
    views += largest(lambda size: size.n_genes * (2 * size.n_profile + known)) + TABLES * n_words * own
    shared = largest(lambda size: size.n_genes * (4 * size.n_related + axes)) + TABLES * 2 * n_words * axes
    decoded = largest(lambda size: PAIR_COLUMNS * min(size.n_genes, MAX_ROWS) * size.n_genes)
    return 8 * max(made, views, shared, decoded)


def library_bytes(model: ModelConfig) -> int:
    """Return what the libraries of a model take beside those that every process loads, in bytes."""
    uses_pyg = model.encoder != "none" and CONVOLUTIONS[model.encoder].uses_pyg
    return GEOMETRIC if uses_pyg else 0


def group_bytes(model: ModelConfig, training: TrainingConfig) -> int:
    """Count the weights of the layers that a group of datasets shares, in bytes."""
    return 0 if model.encoder == "none" else _item(training) * _shared_weights(model)


def projection_bytes(model: ModelConfig, training: TrainingConfig, *, n_words: int) -> int:
    """Count the weights of the projection that all datasets share, in bytes; 0 where there is none."""
    return _item(training) * 2 * n_words * model.projected_width


def overlap_bytes(n_genes: Sequence[int]) -> int:
    """Bound the overlaps of pairs that are kept, from the genes of each dataset, in bytes."""
    n_pairs = len(n_genes) * (len(n_genes) - 1) // 2
    per_pair = 40 * max(n_genes, default=0)
    return min(n_pairs * per_pair, KEEP_BYTES + per_pair)


def check_memory(data: Prepared, model: ModelConfig, training: TrainingConfig, budget: int) -> MemoryEstimate:
    """Stop before a training that does not fit.

    Parameters
    ----------
    data
        The data of the run.
    model, training
        Settings.
    budget
        Bytes that the process may use.

    Returns
    -------
    MemoryEstimate
        What training takes; it fits.

    Raises
    ------
    RunError
        E411 naming the parts that need most and settings that fit, if any of
        SUGGESTED_SETTINGS does. They change results, so
        nothing is changed here.
    """
    sizes = [
        size_of(graph, model, int(data.records[graph.name].profile.shape[1]), data.words)
        for graph in data.graphs
        if graph.name in data.records
    ]
    loaded, n_words = count_bytes((data.records, data.edges, data.graphs)), len(data.words)
    found = estimate_memory(sizes, model, training, n_words=n_words, data_bytes=loaded)
    if found.total <= budget:
        return found
    msg = f"training needs about {megabytes(found.total)} ({found.describe()}), got {megabytes(budget)}"
    fix = f"give --memory {megabytes(found.total)} or more"
    for changes in SUGGESTED_SETTINGS:
        other = _changed(model, training, changes)
        if other is None:
            continue
        total = estimate_memory(sizes, *other, n_words=n_words, data_bytes=loaded).total
        if total <= budget:
            fix += f", or set {', '.join(changes)} ({megabytes(total)}; results differ but for recompute)"
            break
    else:
        fix += ", or train fewer datasets or genes; no setting of decoder, row blocks and recomputation fits"
    raise RunError(msg, code="E411", where="memory", fix=fix)


def size_of(graph: GraphData, model: ModelConfig, n_profile: int, words: Sequence[str]) -> DatasetSize:
    """Describe a dataset.

    Parameters
    ----------
    graph
        The graph as training sees it.
    model
        Settings.
    n_profile
        Columns of the residual profile.
    words
        The vocabulary.
    """
    related = len(set(words).intersection(graph.keys.tolist())) if model.has_maps else 0
    return DatasetSize(
        key=sharing_key(graph, model.share_by),
        n_genes=graph.n_genes,
        n_entries=graph.edges.n_edges,
        n_profile=n_profile,
        n_related=related,
    )


def count_bytes(thing: Any) -> int:  # anything that holds arrays
    """Add up the bytes of all different arrays in dataclasses, mappings and sequences."""
    seen: dict[int, int] = {}

    def visit(part: Any) -> None:
        if isinstance(part, np.ndarray):
            seen[id(part)] = part.nbytes
        elif is_dataclass(part):
            for field in fields(part):
                visit(getattr(part, field.name))
        elif isinstance(part, dict):
            for value in part.values():
                visit(value)
        elif isinstance(part, list | tuple):
            for value in part:
                visit(value)

    visit(thing)
    return sum(seen.values())


@cache
def _shared_weights(model: ModelConfig) -> int:
    with torch.device("meta"):
        return _count(
            SharedLayers(
                model.head_width * model.heads_dataset,
                model.dim,
                model.heads_shared,
                head_dim=model.head_width,
                edge_dim=model.edge_dim,
                convolution=model.encoder,
                gated=model.has_maps,
            )
        )


def _own_weights(size: DatasetSize, model: ModelConfig) -> int:
    """Count the weights of a dataset's maps and layer."""
    maps = size.n_profile * model.own_width + model.projected_width * model.shared_width if model.has_maps else 0
    if model.encoder == "none":
        return maps
    width, edge_dim = _width(size, model), model.edge_dim
    layer = DatasetLayer(width, model.head_width, model.heads_dataset, edge_dim=edge_dim, convolution=model.encoder)
    return maps + _count(layer)


def _item(training: TrainingConfig) -> int:
    return torch.empty(0, dtype=getattr(torch, training.dtype)).element_size()


def _count(module: nn.Module) -> int:
    return sum(int(parameter.numel()) for parameter in module.parameters())


def _width(size: DatasetSize, model: ModelConfig) -> int:
    return model.dim if model.has_maps else size.n_profile


def _encoder_entries(size: DatasetSize, model: ModelConfig) -> tuple[int, int]:
    """Count the numbers per dataset that the encoder keeps for its backward pass, and those needed for a moment."""
    dropped = size.n_genes * size.n_profile if model.feature_dropout > 0.0 else 0
    maps = MAP_ARRAYS * size.n_genes * model.dim + 2 * size.n_related * model.projected_width if model.has_maps else 0
    if model.encoder == "none":
        return dropped + maps, 0
    outputs = size.n_genes * model.dim
    first, second, last = model.heads_dataset, model.heads_shared, model.dim // model.head_width
    kind, shape = CONVOLUTIONS[model.encoder], (size.n_genes, size.n_entries)
    normalised = NORM_ARRAYS * size.n_genes * (first + second) * model.head_width
    kept = sum(kind.kept(*shape, heads, model.head_width) for heads in (first, second, last, last))
    passing = kind.passing(*shape, max(first, second, last), model.head_width)
    return dropped + maps + outputs + normalised + kept, passing


def _handed_over(entries: int, heads: int) -> int:
    """Count what the backward pass of attention keeps: two numbers per edge, of as many heads as fit, at least one."""
    return max(2 * entries, min(HANDOFF_BYTES, 2 * entries * heads))


def _graph_bytes(size: DatasetSize, model: ModelConfig, training: TrainingConfig) -> int:
    copied = model.edge_features and training.dtype != "float32"
    return size.n_entries * (EDGE_GRAPH + TARGET + (16 if copied else 0))


def _decoder_bytes(size: DatasetSize, parameters: int, model: ModelConfig, training: TrainingConfig, item: int) -> int:
    n = size.n_genes
    if training.pairs is not None:
        drawn = 2 * min(training.pairs, n * (n - 1) // 2)
        return DRAWN_PAIR * drawn + item * PAIR_ARRAYS * min(PAIR_TILE_ENTRIES, drawn * model.decoder_width)
    width = n * (model.decoder_width if model.decoder == "pairwise" else 1)
    rows = n if training.row_block is None else min(training.row_block, n)
    tile = max(1, TILE_ENTRIES // max(1, width))
    again = parameters if rows > tile else 0  # tiles add their gradients to a sum
    return item * (DECODER_ARRAYS[model.decoder] * min(rows, tile) * width + again) + 3 * 8 * size.n_entries * rows // n


def _comparison_bytes(size: DatasetSize, training: TrainingConfig, item: int) -> int:
    """Count the scores of contrast and alignment, as if the partner had all genes."""
    loss, n = training.loss, size.n_genes
    drawn = 2 * 2 * min(loss.n_contrast, n) if loss.contrast > 0.0 else 0
    shared = 0 if loss.alignment == 0.0 else n if loss.n_alignment is None else min(loss.n_alignment, n)
    return item * SCORE_ARRAYS * (drawn**2 + shared**2)


def _changed(
    model: ModelConfig, training: TrainingConfig, changes: Sequence[str]
) -> tuple[ModelConfig, TrainingConfig] | None:
    """Apply settings; ``None`` when one of them does nothing here or does not go with the others."""
    sections: dict[str, dict[str, Any]] = {"model": model.model_dump(), "training": training.model_dump()}
    for change in changes:
        name, _, text = change.partition("=")
        *parents, last = name.split(".")
        section = sections[parents[0]]
        for parent in parents[1:]:
            section = section[parent]
        section[last] = {"true": True}.get(text, int(text) if text.isdigit() else text)
    if sections["training"]["pairs"] is not None:
        if sections["model"]["decoder"] == "mlp":
            return None
        sections["training"]["row_block"] = None
    return type(model).model_validate(sections["model"]), type(training).model_validate(sections["training"])
