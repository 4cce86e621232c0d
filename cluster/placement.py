"""Placement of datasets on actors: even loads within a bound on memory, and few datasets moved.

Legend: T datasets, P actors.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.errors import RunError
from musegnn.units import ACTOR_PROCESS, format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

NEAR = 1.05
"""Largest load over that of longest-first placement for which datasets stay where they are loaded."""


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


@dataclass(frozen=True, slots=True)
class Placement:
    """Rank of each dataset's owner, (T,), and predicted seconds per round of each actor, the loads, (P,)."""

    owner: tuple[int, ...]
    loads: tuple[float, ...]

    @classmethod
    def of(cls, costs: Sequence[DatasetCost], owner: Sequence[int]) -> Placement:
        """Return the placement with given owners."""
        loads = np.bincount(owner, weights=[cost.seconds for cost in costs])
        return cls(tuple(owner), tuple(loads.tolist()))

    @property
    def imbalance(self) -> float:
        """Largest over mean load."""
        mean = sum(self.loads) / len(self.loads)
        return max(self.loads) / mean if mean > 0 else 1.0

    def to_json(self) -> dict[str, Any]:
        """Return owners, loads and a digest of the owners, as checkpoints record them."""
        sha256 = hashlib.sha256(json.dumps(self.owner).encode()).hexdigest()
        return {"owner": list(self.owner), "loads": list(self.loads), "sha256": sha256}


def place_datasets(
    costs: Sequence[DatasetCost], n_actors: int, *, memory: int | None = None, home: Mapping[int, int] | None = None
) -> Placement:
    """Place datasets longest first, each on the actor with the smallest load that has memory for it.

    Where memory is too small for that order, the largest datasets come first. Datasets that an actor has loaded stay
    there as long as the largest load is at most NEAR times that of longest-first placement and within its bound of
    4/3 of the optimum [1]_. Equal inputs give equal placements.

    Parameters
    ----------
    n_actors
        P; more than T is a ``ValueError``, for every actor owns a dataset.
    memory
        Memory of each actor in bytes; ``None``: unlimited.
    home
        Rank of the actor that has a dataset loaded, by dataset index.

    Raises
    ------
    RunError
        E411 when the datasets do not fit; names the dataset that fits nowhere, or a sufficient number of actors.

    References
    ----------
    .. [1] Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 17, 1969.
    """
    if not 1 <= n_actors <= len(costs):
        msg = f"{n_actors} actors for {len(costs)} datasets"
        raise ValueError(msg)
    owner = _longest_first(costs, n_actors, memory)
    if owner is None:
        raise _too_large(costs, n_actors, memory or 0)
    placement = Placement.of(costs, owner)
    if home:
        allowed = _allowed_load(costs, placement)
        kept = _Actors(costs, n_actors, memory).fill([cost.seconds for cost in costs], home, allowed)
        if kept is not None and max(Placement.of(costs, kept).loads) <= allowed:
            return Placement.of(costs, kept)
    return placement


def measured(costs: Sequence[DatasetCost], seconds: Mapping[str, float]) -> list[DatasetCost]:
    """Replace predictions by measured seconds by dataset name; scale the others by the median ratio of the two."""
    ratios = [seconds[c.name] / c.seconds for c in costs if c.name in seconds and c.seconds > 0]
    scale = float(np.median(ratios)) if ratios else 1.0
    return [replace(c, seconds=seconds.get(c.name, c.seconds * scale)) for c in costs]


def actor_bytes(costs: Sequence[DatasetCost], owned: Sequence[int]) -> int:
    """Return the memory of an actor: what every actor holds, its datasets, and the largest of their steps."""
    own = [costs[i] for i in owned]
    everywhere = ACTOR_PROCESS + sum(cost.everywhere for cost in costs)
    return everywhere + sum(cost.bytes for cost in own) + max((cost.step for cost in own), default=0)


def _longest_first(costs: Sequence[DatasetCost], n_actors: int, memory: int | None) -> list[int] | None:
    by_seconds = _Actors(costs, n_actors, memory).fill([cost.seconds for cost in costs])
    if by_seconds is not None:
        return by_seconds
    return _Actors(costs, n_actors, memory).fill([float(cost.bytes + cost.step) for cost in costs])


def _allowed_load(costs: Sequence[DatasetCost], placement: Placement) -> float:
    """Return the largest load up to which datasets stay where they are loaded.

    No placement has a smaller largest load than the mean load, than the longest dataset, or, where there are more
    datasets than actors, than the P-th and the next longest together.
    """
    largest, n = max(placement.loads), len(placement.loads)
    seconds = sorted((cost.seconds for cost in costs), reverse=True)
    optimum = max(sum(seconds) / n, seconds[0], sum(seconds[n - 1 : n + 1]) if len(seconds) > n else 0.0)
    return max(largest, min(NEAR * largest, (4 / 3 - 1 / (3 * n)) * optimum))


class _Actors:
    """Actors that datasets are placed on one by one."""

    def __init__(self, costs: Sequence[DatasetCost], n_actors: int, memory: int | None) -> None:
        self._bytes, self._step = (np.array([getattr(c, name) for c in costs], float) for name in ("bytes", "step"))
        self._free = math.inf if memory is None else memory - actor_bytes(costs, [])
        self._loads, self._held, self._largest_step = np.zeros((3, n_actors))
        self._counts = np.zeros(n_actors, dtype=np.int64)
        self._owner = np.full(len(costs), -1)

    def fill(
        self, weights: Sequence[float], home: Mapping[int, int] | None = None, longest: float = math.inf
    ) -> list[int] | None:
        """Place all datasets, the heaviest first, those with a home before; return None where one does not fit."""
        order = np.argsort(-np.asarray(weights), kind="stable").tolist()
        for i in order:
            rank = -1 if home is None else home.get(i, -1)
            if rank >= 0 and self._loads[rank] + weights[i] <= longest and self._able(i)[rank]:
                self._put(i, rank, weights[i])
        for i in order:
            if self._owner[i] < 0:
                able = self._able(i)
                if not able.any():
                    return None
                self._put(i, int(np.where(able, self._loads, np.inf).argmin()), weights[i])
        owner: list[int] = self._owner.tolist()
        return owner

    def _able(self, i: int) -> NDArray[np.bool_]:
        """Return which actors have memory for dataset `i`; idle ones alone when only they would be left without."""
        able: NDArray[np.bool_]
        able = self._held + self._bytes[i] + np.maximum(self._largest_step, self._step[i]) <= self._free
        idle = self._counts == 0
        return able & idle if idle.sum() >= (self._owner < 0).sum() else able

    def _put(self, i: int, rank: int, weight: float) -> None:
        self._owner[i] = rank
        self._loads[rank] += weight
        self._held[rank] += self._bytes[i]
        self._largest_step[rank] = max(self._largest_step[rank], self._step[i])
        self._counts[rank] += 1


def _too_large(costs: Sequence[DatasetCost], n_actors: int, memory: int) -> RunError:
    alone = [actor_bytes(costs, [i]) for i in range(len(costs))]
    largest = int(np.argmax(alone))
    if alone[largest] > memory:
        needed, got = format_bytes(alone[largest]), format_bytes(memory)
        msg = f"an actor with {costs[largest].name} alone needs about {needed}, got {got}"
        if (everywhere := actor_bytes(costs, [])) > memory / 2:
            msg += f"; {format_bytes(everywhere)} of them are what every actor keeps of all {len(costs)} datasets"
        fix = "give more --memory, or `row_block`, `pairs` or another decoder (training memory in the documentation)"
    else:
        # As many actors as datasets will do; bisection takes for granted that more actors are no harder.
        low, high = n_actors, len(costs)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _longest_first(costs, middle, memory) is not None else (middle, high)
        msg = f"the datasets do not fit into {n_actors} actors with {format_bytes(memory)} each"
        fix = f"use {high} actors or more, or give more --memory"
    return RunError(msg, code="E411", where="memory", fix=fix)
