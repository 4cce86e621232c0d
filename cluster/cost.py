r"""Cost of a dataset for its owner: predicted seconds per round, and memory.

.. math:: s = c_0 + c_1 E w + c_2 M + c_3 S

with E entries of the graph (each edge twice), w columns of all attention heads, M multiply-adds of feature maps and
decoder, and S scores: pairs of genes that are decoded, or compared between two datasets. Only ratios decide a
placement, and measured seconds replace the prediction once there are some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from musegnn.cluster.placement import DatasetCost
from musegnn.model.decoder import make_decoder
from musegnn.training import memory
from musegnn.training.memory import DatasetSize

if TYPE_CHECKING:
    from musegnn.config import AtlasConfig, ModelConfig, TrainingConfig
    from musegnn.data_store import Store

ROUND_SECONDS, ENTRY_SECONDS, PRODUCT_SECONDS, SCORE_SECONDS = 1.0e-2, 6.4e-10, 3.4e-11, 5.2e-9
"""Seconds c_0 to c_3 on one core, forward and backward; fitted to ``benchmarks/results/dataset_cost.csv``."""
MOST_ANCHORS = 40_000
SUM_COPIES = 5  # of shared weights, as integers of exact sums


def dataset_costs(store: Store, config: AtlasConfig) -> list[DatasetCost]:
    """Return the costs of an atlas from the metadata in the store, as if the edge rule accepted all stored pairs."""
    model, training = config.model, config.training
    sizes = []
    for dataset in config.datasets:
        about = store.info(dataset.name)
        n, pairs, columns = (int(about[key]) for key in ("n_genes", "n_pair_entries", "profile_columns"))
        key, related = "|".join(str(about[label]) for label in model.share_by) or "all", n if model.has_maps else 0
        size = DatasetSize(key=key, n_genes=n, n_pairs=pairs, n_edges=pairs, n_profile=columns, n_related=related)
        sizes.append(size)
    n_genes = sum(size.n_genes for size in sizes)
    n_anchors = min(n_genes // min(len(sizes), 2), MOST_ANCHORS)  # genes of two datasets, unless there is one
    copies = memory.COPIES + SUM_COPIES if training.rounds > 0 else memory.COPIES_AT_REST
    common = memory.overlap_bytes(sizes) + copies * memory.shared_bytes(sizes, model, n_anchors)
    costs = []
    for dataset, size in zip(config.datasets, sizes, strict=True):
        found = memory.dataset_memory(size, model, training, n_anchors=n_anchors)
        everywhere = found.everywhere + common * size.n_genes // n_genes
        seconds = predict_seconds(size, model, training)
        costs.append(DatasetCost(dataset.name, seconds, found.held, found.step, everywhere))
    return costs


def predict_seconds(size: DatasetSize, model: ModelConfig, training: TrainingConfig) -> float:
    """Predict the seconds per round of one dataset."""
    n, loss, columns = size.n_genes, training.loss, 0
    products = n * (memory.weight_bytes(size, model)[0] + memory.shared_bytes([size], model, size.n_related)) / 4
    if model.encoder != "none":
        columns = model.head_width * (model.heads_dataset + model.heads_shared) + 2 * model.dim
    with torch.device("meta"):
        decoder = make_decoder(model.decoder, n, dim=model.dim)
    decoded = n**2 if training.pairs is None else min(2 * training.pairs, n**2)
    rows = min(training.row_block or n, n)
    products += decoder.cost(rows, model.dim) * decoded / n**2
    drawn = 4 * min(loss.n_contrast, n) if loss.contrast > 0.0 else 0
    scores = decoded * rows / n + drawn**2 + (n**2 if loss.alignment > 0.0 else 0)
    seconds = ROUND_SECONDS + ENTRY_SECONDS * size.n_edges * columns
    return seconds + PRODUCT_SECONDS * products + SCORE_SECONDS * scores
