r"""Cost of a dataset for its owner: predicted seconds per round, and memory.

.. math:: s = c_0 + c_1 E w + c_2 M + c_3 S

with E entries of the graph (each edge twice), w columns of all attention heads, M multiply-adds of feature maps and
decoder, and S scores: pairs of genes that are decoded, or compared between two datasets. Only ratios decide a
placement, and measured seconds replace the prediction once there are some.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from musegnn.model.decoder import make_decoder
from musegnn.training import memory
from musegnn.training.memory import DatasetSize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from musegnn.config import AtlasConfig, ModelConfig, TrainingConfig
    from musegnn.data_store import Store

ONCE, ENTRY, PRODUCT, SCORE = 1.0e-2, 6.4e-10, 3.4e-11, 5.2e-9
"""Seconds c_0 to c_3 on one core, forward and backward; fitted to ``benchmarks/results/dataset_cost.csv``."""
MOST_ANCHORS = 40_000
EDGE, RECORD_ENTRY, ROW = 20, 32, 8  # bytes: edge of a training graph; stored pair and whole edge; anchor gene
COPIES, COPIES_AT_REST = 12, 2  # of shared weights: moments, a checkpoint's copies, integers of sums; without rounds


@dataclass(frozen=True, slots=True)
class DatasetCost:
    """Seconds per round of a dataset, predicted or measured, and its memory in bytes.

    Its owner holds ``bytes``, and ``step`` while it is computed, one dataset at a time; every actor ``everywhere``.
    """

    name: str
    seconds: float
    bytes: int
    step: int = 0
    everywhere: int = 0


def dataset_costs(store: Store, config: AtlasConfig) -> list[DatasetCost]:
    """Return the costs of an atlas from the metadata in the store, as if the edge rule accepted all stored pairs."""
    model, training = config.model, config.training
    sizes = []
    for dataset in config.datasets:
        about = store.info(dataset.name)
        n, entries, columns = (int(about[key]) for key in ("n_genes", "n_pair_entries", "profile_columns"))
        key = "|".join(str(about[label]) for label in model.share_by) or "all"
        related = n if model.has_maps else 0
        sizes.append(DatasetSize(key=key, n_genes=n, n_entries=entries, n_profile=columns, n_related=related))
    n_genes = sum(size.n_genes for size in sizes)
    n_anchors = min(n_genes // min(len(sizes), 2), MOST_ANCHORS)  # genes of two datasets, unless there is one
    shared = len({size.key for size in sizes}) * memory.group_bytes(model)
    shared += memory.projection_bytes(model, n_anchors)
    common = memory.overlap_bytes([size.n_genes for size in sizes])
    common += COPIES * shared + memory.OPTIMIZER if training.rounds > 0 else COPIES_AT_REST * shared
    costs = []
    for dataset, size in zip(config.datasets, sizes, strict=True):
        found = memory.dataset_memory(size, model, training, n_anchors=n_anchors)
        held = found.kept + RECORD_ENTRY * size.n_entries + 4 * size.n_genes * size.n_profile
        everywhere = EDGE * size.n_entries + found.compared + ROW * n_anchors + common * size.n_genes // n_genes
        again = found.encoder if training.recompute else 0
        seconds = predict_seconds(size, model, training)
        costs.append(DatasetCost(dataset.name, seconds, held + found.encoder - again, found.step + again, everywhere))
    return costs


def predict_seconds(size: DatasetSize, model: ModelConfig, training: TrainingConfig) -> float:
    """Predict the seconds per round of one dataset."""
    n, loss = size.n_genes, training.loss
    maps = 2 * size.n_related * model.projected_width + size.n_profile * model.own_width
    products, columns = float(n) * maps, 0
    if model.encoder != "none":
        heads = [model.head_width * model.heads_dataset, model.head_width * model.heads_shared]
        widths = [model.dim if model.has_maps else size.n_profile, *heads, model.dim]
        products += 4.0 * n * (sum(a * b for a, b in pairwise(widths)) + heads[0] * model.dim)  # four maps each
        columns = sum(heads) + 2 * model.dim
    with torch.device("meta"):
        decoder = make_decoder(model.decoder, n, dim=model.dim)
    decoded = n**2 if training.pairs is None else min(2 * training.pairs, n**2)
    rows = min(training.row_block or n, n)
    products += decoder.cost(rows, model.dim) * decoded / n**2
    drawn = 4 * min(loss.n_contrast, n) if loss.contrast > 0.0 else 0
    compared = n if loss.alignment > 0.0 else 0
    scores = decoded * rows / n + drawn**2 + compared**2
    return ONCE + ENTRY * size.n_entries * columns + PRODUCT * products + SCORE * scores


def measured(costs: Sequence[DatasetCost], seconds: Mapping[str, float]) -> list[DatasetCost]:
    """Replace predictions by measured seconds by dataset name; scale the others by the median ratio of the two."""
    ratios = [seconds[c.name] / c.seconds for c in costs if c.name in seconds and c.seconds > 0]
    scale = float(np.median(ratios)) if ratios else 1.0
    return [replace(c, seconds=seconds.get(c.name, c.seconds * scale)) for c in costs]
