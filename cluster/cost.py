r"""What a dataset costs its owner: seconds per round and memory, from sizes alone.

Seconds per round are predicted by

.. math:: s = a\,E\,d\,H + b\,M + c\,O + e\,S + f

with E entries of its graph, d dimensions, H heads of all convolutions, M multiply-adds of the maps of node features, O
those of its decoder, S scores of the losses between two datasets, and a constant f for what every dataset costs.
Measured seconds replace the prediction as soon as there are some.

Legend: T datasets, N genes, d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from musegnn.model.decoder import make_decoder
from musegnn.training.memory import (
    DatasetSize,
    dataset_memory,
    group_bytes,
    overlap_bytes,
    projection_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from musegnn.config import AtlasConfig, ModelConfig, TrainingConfig
    from musegnn.data_store import Store

MOST_WORDS = 40_000
MAPS_PER_CONVOLUTION = 4  # queries, keys, values, the node itself
EDGE = 20  # bytes of an entry of the training graph, which every process keeps of every dataset
RECORD_ENTRY = 12 + EDGE  # of a stored pair and of the whole graph's edge, which only owners keep
SHARED = 12  # times the bytes of a shared module: weights, moments, a checkpoint's copies of both, integers of its sum
SHARED_AT_REST = 2  # without rounds: weights and a checkpoint's copy
ROW = 8  # bytes per gene of the atlas that tell in which row of a dataset it is


@dataclass(frozen=True, slots=True)
class Work:
    """What a dataset's seconds depend on.

    Attributes
    ----------
    entries
        E d H.
    maps
        Multiply-adds of all maps of node features.
    decoder
        Multiply-adds of the logits that are decoded in a round.
    scores
        Numbers of the score matrices of contrast and alignment, as if the partner had all genes.
    """

    entries: float
    maps: float
    decoder: float
    scores: float


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Seconds per unit of each part of the work, forward and backward together, and once per dataset."""

    entry: float
    map: float
    decoder: float
    score: float
    once: float

    def seconds(self, work: Work) -> float:
        """Predict the seconds per round of one dataset."""
        parts = (self.entry * work.entries, self.map * work.maps, self.decoder * work.decoder, self.score * work.scores)
        return sum(parts) + self.once


DEFAULTS = {
    "mlp": Coefficients(entry=4.6e-10, map=2.4e-11, decoder=3.6e-11, score=5.9e-9, once=1.3e-2),
    "inner": Coefficients(entry=4.1e-10, map=2.1e-11, decoder=4.1e-10, score=0.0, once=1.2e-2),
    "signed": Coefficients(entry=2.7e-10, map=1.6e-11, decoder=4.9e-10, score=0.0, once=1.2e-2),
    "pairwise": Coefficients(entry=8.2e-10, map=1.2e-11, decoder=1.4e-10, score=5.5e-9, once=2.3e-2),
}
"""By decoder; fitted by ``python -m benchmarks dataset_cost`` on the machine of its rows. Only ratios decide a plan.

A zero says that the shapes measured do not tell the part from another: scores of alignment grow as the decoder does.
"""


@dataclass(frozen=True, slots=True)
class DatasetCost:
    """What a dataset takes.

    Attributes
    ----------
    name, group
        The dataset, and whom it shares layers with.
    seconds
        Per round, predicted or measured.
    bytes
        Memory of its owner as long as it owns it.
    step
        Memory of its owner while it is computed. Datasets are computed one by one: the largest step counts.
    shared
        Memory of the group's layers, once per process that owns one of the group.
    everywhere
        Memory in every process, whoever owns the dataset: its graph, and its part in what all processes hold.
    """

    name: str
    group: str
    seconds: float
    bytes: int
    step: int = 0
    shared: int = 0
    everywhere: int = 0


def dataset_costs(store: Store, config: AtlasConfig, coefficients: Coefficients | None = None) -> list[DatasetCost]:
    """Predict what every dataset of an atlas takes, from the heads of the store.

    The store knows how many pairs it keeps, not how many the edge rule will accept, so times and bytes are those of a
    rule that accepts all.

    Parameters
    ----------
    store
        Holds the graphs; their arrays are not read.
    config
        The configuration.
    coefficients
        Seconds per unit of work; ``None``: the defaults of the decoder.
    """
    model, training = config.model, config.training
    known = coefficients or DEFAULTS[model.decoder]
    heads = [store.info(dataset.name) for dataset in config.datasets]
    sizes = [_size(about, model) for about in heads]
    genes = sum(size.n_genes for size in sizes)
    n_words = min(genes // min(len(sizes), 2), MOST_WORDS)  # genes of two datasets, unless there is one
    common = overlap_bytes([size.n_genes for size in sizes])
    times = SHARED if training.rounds > 0 else SHARED_AT_REST
    common += times * projection_bytes(model, n_words)
    layers = times * group_bytes(model)
    costs = []
    for dataset, about, size in zip(config.datasets, heads, sizes, strict=True):
        memory = dataset_memory(size, model, training, n_anchors=n_words)
        record = RECORD_ENTRY * size.n_entries + 4 * size.n_genes * int(about["profile_columns"])
        costs.append(
            DatasetCost(
                name=dataset.name,
                group=size.key,
                seconds=known.seconds(work_of(size, model, training)),
                bytes=memory.kept + record + (0 if training.recompute else memory.encoder),
                step=memory.step + (memory.encoder if training.recompute else 0),
                shared=layers,
                everywhere=EDGE * size.n_entries + memory.compared + ROW * n_words + common * size.n_genes // genes,
            )
        )
    return costs


def work_of(size: DatasetSize, model: ModelConfig, training: TrainingConfig) -> Work:
    """Count the work of one round of one dataset."""
    n, d, loss = size.n_genes, model.dim, training.loss
    first, second = model.head_width * model.heads_dataset, model.head_width * model.heads_shared
    width = model.dim if model.has_maps else size.n_profile
    columns, attended = width * first + first * second + second * d + first * d, first + second + 2 * d
    if model.encoder == "none":
        columns = attended = 0
    own = (2 * size.n_related + model.shared_width) * model.projected_width + size.n_profile * model.own_width
    with torch.device("meta"):
        decoder = make_decoder(model.decoder, n, dim=d)
    rows = n if training.row_block is None else min(training.row_block, n)
    multiply_adds = float(decoder.cost(rows, d))
    if training.pairs is not None:
        multiply_adds *= min(2 * training.pairs, n * (n - 1) // 2) / n**2
    drawn = 4 * min(loss.n_contrast, n) if loss.contrast > 0.0 else 0
    shared = 0 if loss.alignment == 0.0 else n
    return Work(
        entries=float(size.n_entries) * attended,
        maps=float(n) * (MAPS_PER_CONVOLUTION * columns + own),
        decoder=multiply_adds,
        scores=float(drawn**2 + shared**2),
    )


def fit(work: Sequence[Work], seconds: Sequence[float]) -> Coefficients:
    """Fit coefficients to measured seconds per round by non-negative least squares on relative errors.

    Parameters
    ----------
    work, seconds
        Of the same datasets; at least one, and positive.
    """
    from scipy.optimize import nnls

    rows = np.array([[*(getattr(w, field.name) for field in fields(Work)), 1.0] for w in work])
    relative = rows / np.asarray(seconds)[:, None]
    scale = np.where(relative.max(axis=0) > 0, relative.max(axis=0), 1.0)
    found, _ = nnls(relative / scale, np.ones(len(seconds)))
    return Coefficients(*(found / scale).tolist())


def measured(costs: Sequence[DatasetCost], seconds: Mapping[str, float]) -> list[DatasetCost]:
    """Replace predictions by measured seconds per round, by dataset name.

    Predictions of datasets without a measurement are scaled by the median ratio of those that have both.
    """
    ratios = [seconds[c.name] / c.seconds for c in costs if c.name in seconds and c.seconds > 0]
    scale = float(np.median(ratios)) if ratios else 1.0
    return [replace(c, seconds=seconds.get(c.name, c.seconds * scale)) for c in costs]


def _size(about: Mapping[str, Any], model: ModelConfig) -> DatasetSize:  # JSON
    n_genes, columns = int(about["n_genes"]), int(about["profile_columns"])
    return DatasetSize(
        key="|".join(str(about[label]) for label in model.share_by) or "all",
        n_genes=n_genes,
        n_entries=int(about["n_pair_entries"]),
        n_profile=columns,
        n_related=n_genes if model.has_maps else 0,
    )
