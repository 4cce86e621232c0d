r"""Who owns which dataset: what each costs, and a plan that spreads the cost evenly.

A dataset's seconds per round are predicted by

.. math:: s = a\,E\,d\,H + b\,N\,F\,d + c\,O + e

with E entries of its graph, d dimensions, H heads, N genes, F input features, O floating-point operations of its
decoder, and a constant e for what every dataset costs. Measured seconds replace the prediction as soon as there are
some.

Legend: T datasets, P actors.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from musegnn.errors import RunError
from musegnn.model.decoder import make_decoder
from musegnn.training.memory import BASE, DatasetSize, estimate_memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from musegnn.config import AtlasConfig, ModelConfig, TrainingConfig
    from musegnn.data_store import Store

NEAR = 1.03
WORTH = 1.10
MOST_WORDS = 40_000
HEADS = 4


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Seconds per unit of work: per entry, dimension and head; per gene, feature and dimension; per operation; once.

    The defaults were fitted by ``python -m benchmarks cluster`` on the two-core machine of its rows. Only their ratios
    decide a plan.
    """

    entry: float = 1.4e-9
    feature: float = 1.0e-9
    operation: float = 1.0e-11
    once: float = 8.0e-3

    def seconds(self, work: Work) -> float:
        """Predict the seconds per round of one dataset."""
        parts = (self.entry * work.entries, self.feature * work.features, self.operation * work.operations, self.once)
        return sum(parts)


@dataclass(frozen=True, slots=True)
class Work:
    """What a dataset's time depends on: E d H, N F d and the decoder's operations per round."""

    entries: float
    features: float
    operations: float


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
        Memory beside what every process takes.
    """

    name: str
    group: str
    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Who owns which dataset.

    Attributes
    ----------
    owner
        Rank of each dataset's owner, shape (T,).
    loads
        Predicted seconds per round of each actor, shape (P,).
    """

    owner: tuple[int, ...]
    loads: tuple[float, ...]

    @property
    def imbalance(self) -> float:
        """Largest over mean load: rounds take so much longer than they could."""
        mean = sum(self.loads) / len(self.loads)
        return max(self.loads) / mean if mean > 0 else 1.0

    @property
    def sha256(self) -> str:
        """Digest of the owners."""
        return hashlib.sha256(json.dumps(self.owner).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Give owners, loads and digest."""
        return {"owner": list(self.owner), "loads": list(self.loads), "sha256": self.sha256}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Make it from :meth:`to_json`."""
        return cls(tuple(map(int, data["owner"])), tuple(map(float, data["loads"])))


def dataset_costs(store: Store, config: AtlasConfig, coefficients: Coefficients | None = None) -> list[DatasetCost]:
    """Predict what every dataset of an atlas takes, from the heads of the store.

    Parameters
    ----------
    store
        Holds the graphs; their arrays are not read.
    config
        The configuration.
    coefficients
        Seconds per unit of work; ``None``: the defaults.
    """
    known, model, training = coefficients or Coefficients(), config.model, config.training
    sizes = [_size(store.info(dataset.name), model) for dataset in config.datasets]
    n_words = min(sum(size.n_genes for size in sizes), MOST_WORDS)
    costs = []
    for dataset, size in zip(config.datasets, sizes, strict=True):
        memory = estimate_memory([size], model, training, n_words=n_words, data_bytes=32 * size.n_entries)
        seconds = known.seconds(work_of(size, model, training))
        costs.append(DatasetCost(dataset.name, size.key, seconds, memory.total - BASE))
    return costs


def work_of(size: DatasetSize, model: ModelConfig, training: TrainingConfig) -> Work:
    """Count the work of one round of one dataset."""
    heads = model.heads_dataset + 2 * model.heads_shared + 1
    with torch.device("meta"):
        decoder = make_decoder(model.decoder, size.n_genes, dim=model.dim, width=model.decoder_width)
    rows = size.n_genes if training.row_block is None else min(training.row_block, size.n_genes)
    operations = float(decoder.cost(rows, model.dim))
    if training.pairs is not None:
        operations *= min(1.0, 4.0 * training.pairs / max(1, size.n_genes**2))
    width = size.n_fixed + (model.relational_dim if size.n_related else 0)
    related = size.n_related * model.relational_dim * size.n_genes
    return Work(size.n_entries * model.dim * heads, size.n_genes * width * model.dim * HEADS + related, operations)


def fit(work: Sequence[Work], seconds: Sequence[float]) -> Coefficients:
    """Fit coefficients to measured seconds per round by non-negative least squares on relative errors.

    Parameters
    ----------
    work, seconds
        Of the same datasets; at least one.
    """
    from scipy.optimize import nnls

    rows = np.array([[w.entries, w.features, w.operations, 1.0] for w in work])
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


def make_plan(
    costs: Sequence[DatasetCost], n_actors: int, *, memory: int | None = None, held: Mapping[int, int] | None = None
) -> Plan:
    """Give every dataset to an actor, the longest first, each to the one with the least to do.

    Among actors within 3 % of the best, one that holds the dataset already is preferred, then one that owns others of
    its group, whose layers need not travel. Equal inputs give equal plans.

    Parameters
    ----------
    costs
        Of the datasets.
    n_actors
        P; at most T.
    memory
        Bytes that each actor may take; ``None``: no bound.
    held
        Rank of the actor that has a dataset in memory, by dataset index.

    Returns
    -------
    Plan
        When memory does not bind, no load is more than 1.03 times the mean load plus the longest dataset.

    Raises
    ------
    ValueError
        When there are more actors than datasets.
    RunError
        E411 when the datasets do not fit.

    References
    ----------
    Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 17, 1969.
    """
    if not 1 <= n_actors <= len(costs):
        msg = f"{n_actors} actors for {len(costs)} datasets"
        raise ValueError(msg)
    held = held or {}
    loads, room = [0.0] * n_actors, [math.inf if memory is None else memory - BASE] * n_actors
    groups: list[set[str]] = [set() for _ in range(n_actors)]
    owner = [-1] * len(costs)
    left = len(costs)
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i].seconds, i)):
        cost, idle = costs[i], [rank for rank in range(n_actors) if not groups[rank]]
        able = [rank for rank in (idle if len(idle) >= left else range(n_actors)) if room[rank] >= cost.bytes]
        if not able:
            raise _too_large(costs, cost, n_actors, memory or 0)
        best = min(loads[rank] + cost.seconds for rank in able)
        near = [rank for rank in able if loads[rank] + cost.seconds <= NEAR * best]
        chosen = min(near, key=lambda r: (held.get(i) != r, cost.group not in groups[r], loads[r], r))
        owner[i], left = chosen, left - 1
        loads[chosen] += cost.seconds
        room[chosen] -= cost.bytes
        groups[chosen].add(cost.group)
    return Plan(tuple(owner), tuple(loads))


def place(costs: Sequence[DatasetCost], owner: Sequence[int]) -> Plan:
    """Make a plan of owners that somebody chose."""
    loads = [0.0] * (max(owner) + 1)
    for rank, cost in zip(owner, costs, strict=True):
        loads[rank] += cost.seconds
    return Plan(tuple(owner), tuple(loads))


def gain(plan: Plan, costs: Sequence[DatasetCost], *, memory: int | None = None) -> float:
    """Give the seconds per round that a new plan would save, given what is known now; 0 unless it saves a tenth."""
    loads = place(costs, plan.owner).loads
    better = make_plan(costs, len(loads), memory=memory, held=dict(enumerate(plan.owner)))
    saved = max(loads) - max(better.loads)
    return saved if max(loads) > WORTH * max(better.loads) else 0.0


def _size(about: Mapping[str, Any], model: ModelConfig) -> DatasetSize:  # JSON
    n_genes = int(about["n_genes"])
    fixed = {"relational": 0, "aligned": model.dim}.get(model.features, int(about["profile_columns"]))
    return DatasetSize(
        key="|".join(str(about[label]) for label in model.share_by) or "all",
        n_genes=n_genes,
        n_entries=int(about["n_pair_entries"]),
        n_fixed=fixed,
        n_related=0 if model.features == "profile" else n_genes,
    )


def _too_large(costs: Sequence[DatasetCost], cost: DatasetCost, n_actors: int, memory: int) -> RunError:
    largest = max(costs, key=lambda c: c.bytes)
    if BASE + largest.bytes > memory:
        msg = f"{largest.name} alone needs about {(BASE + largest.bytes) / 1e9:.1f} GB, got {memory / 1e9:.1f} GB"
        fix = "give more --memory, or `row_block`, `pairs` or another decoder (training memory in the documentation)"
    else:
        needed = math.ceil(sum(c.bytes for c in costs) / (memory - BASE))
        msg = f"{cost.name} fits into none of {n_actors} actors with {memory / 1e9:.1f} GB each"
        fix = f"use {max(needed, n_actors + 1)} actors or more, or give more --memory"
    return RunError(msg, code="E411", where="memory", fix=fix)
