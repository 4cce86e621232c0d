r"""Cost of a dataset for its owner: predicted seconds per round, and memory.

.. math:: s = c_0 + c_1 E w + c_2 M + c_3 S

with E entries of the graph (each edge twice), w columns of all attention heads, M multiply-adds of feature maps and
decoder, and S scores: pairs of genes that are decoded, or compared between two datasets. Only ratios decide a
placement, and measured seconds replace the prediction when actors have trained some rounds.

Legend: N genes of a dataset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from musegnn.model.decoder import make_decoder
from musegnn.training.memory import (
    DatasetSize,
    dataset_memory,
    group_bytes,
    library_bytes,
    overlap_bytes,
    projection_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from musegnn.config import AtlasConfig, ModelConfig, TrainingConfig
    from musegnn.data_store import Store

ONCE, ENTRY, PRODUCT, SCORE = 1.0e-2, 6.4e-10, 3.4e-11, 5.2e-9
"""Seconds c_0 to c_3 on one core, forward and backward; fitted to ``benchmarks/results/dataset_cost.csv``."""

MAPS = 4  # of each convolution: queries, keys, values, the node itself
MOST_ANCHORS = 40_000
EDGE = 20  # bytes of an entry of the training graph, which every process keeps of every dataset
RECORD_ENTRY = 12 + EDGE  # of a stored pair and of the whole graph's edge, which only owners keep
SHARED = 12  # times the bytes of a shared module: weights, moments, a checkpoint's copies of both, integers of its sum
SHARED_AT_REST = 2  # without rounds: weights and a checkpoint's copy
ROW = 8  # bytes per gene of the atlas that tell in which row of a dataset it is


@dataclass(frozen=True, slots=True)
class DatasetCost:
    """Cost of one dataset.

    Attributes
    ----------
    name
        Name of the dataset.
    seconds
        Seconds per round, predicted or measured.
    bytes
        Memory of its owner.
    step
        Memory of its owner while it is computed; datasets are computed one by one.
    everywhere
        Memory of every actor: graph of the dataset, and its part in what all actors hold.
    """

    name: str
    seconds: float
    bytes: int
    step: int = 0
    everywhere: int = 0


def dataset_costs(store: Store, config: AtlasConfig) -> list[DatasetCost]:
    """Return the costs of an atlas, from the metadata in the store.

    The store knows how many pairs it keeps, not how many the edge rule accepts: costs are those of a rule that
    accepts all.
    """
    model, training = config.model, config.training
    metadata = [store.info(dataset.name) for dataset in config.datasets]
    sizes = [_size(about, model) for about in metadata]
    n_genes = sum(size.n_genes for size in sizes)
    n_anchors = min(n_genes // min(len(sizes), 2), MOST_ANCHORS)  # genes of two datasets, unless there is one
    shared = len({size.key for size in sizes}) * group_bytes(model, training)
    shared += projection_bytes(model, training, n_words=n_anchors)
    common = library_bytes(model) + overlap_bytes([size.n_genes for size in sizes])
    common += (SHARED if training.rounds > 0 else SHARED_AT_REST) * shared
    costs = []
    for dataset, about, size in zip(config.datasets, metadata, sizes, strict=True):
        memory = dataset_memory(size, model, training, n_words=n_anchors)
        record = RECORD_ENTRY * size.n_entries + 4 * size.n_genes * int(about["profile_columns"])
        costs.append(
            DatasetCost(
                name=dataset.name,
                seconds=predict_seconds(size, model, training),
                bytes=memory.kept + record + (0 if training.recompute else memory.encoder),
                step=memory.step + (memory.encoder if training.recompute else 0),
                everywhere=EDGE * size.n_entries + memory.compared + ROW * n_anchors + common * size.n_genes // n_genes,
            )
        )
    return costs


def predict_seconds(size: DatasetSize, model: ModelConfig, training: TrainingConfig) -> float:
    """Predict the seconds per round of one dataset."""
    n, loss = size.n_genes, training.loss
    products = float(n) * (2 * size.n_related * model.shared_width + size.n_profile * model.own_width)
    columns = 0
    if model.encoder != "none":
        width, first = model.dim if model.has_maps else size.n_profile, model.head_width * model.heads_dataset
        second, d = model.head_width * model.heads_shared, model.dim
        products += MAPS * float(n) * (width * first + first * second + second * d + first * d)
        columns = first + second + 2 * d
    with torch.device("meta"):
        decoder = make_decoder(model.decoder, n, dim=model.dim, width=model.decoder_width)
    decoded = n**2 if training.pairs is None else min(2 * training.pairs, n**2)
    rows = n if training.row_block is None else min(training.row_block, n)
    products += decoder.cost(rows, model.dim) * decoded / n**2
    drawn = 4 * min(loss.n_contrast, n) if loss.contrast > 0.0 else 0
    compared = 0 if loss.alignment == 0.0 else min(loss.n_alignment or n, n)
    scores = decoded * rows / n + drawn**2 + compared**2
    return ONCE + ENTRY * size.n_entries * columns + PRODUCT * products + SCORE * scores


def measured(costs: Sequence[DatasetCost], seconds: Mapping[str, float]) -> list[DatasetCost]:
    """Replace predictions by measured seconds per round, by dataset name.

    Predictions of datasets without a measurement are scaled by the median ratio of those that have both.
    """
    ratios = [seconds[c.name] / c.seconds for c in costs if c.name in seconds and c.seconds > 0]
    scale = float(np.median(ratios)) if ratios else 1.0
    return [replace(c, seconds=seconds.get(c.name, c.seconds * scale)) for c in costs]


def _size(about: Mapping[str, Any], model: ModelConfig) -> DatasetSize:  # JSON
    n_genes = int(about["n_genes"])
    return DatasetSize(
        key="|".join(str(about[label]) for label in model.share_by) or "all",
        n_genes=n_genes,
        n_entries=int(about["n_pair_entries"]),
        n_profile=int(about["profile_columns"]),
        n_related=n_genes if model.has_maps else 0,
    )
