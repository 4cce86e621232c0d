"""Who owns which dataset: a plan that spreads the cost evenly, fits into memory and moves little.

Legend: T datasets, P actors.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from musegnn.cluster.moves import keep_in_place, rename
from musegnn.cluster.room import Room
from musegnn.errors import RunError
from musegnn.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.cluster.cost import DatasetCost

NEAR = 1.03
WORTH = 1.10


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
        """Return owners, loads and digest."""
        return {"owner": list(self.owner), "loads": list(self.loads), "sha256": self.sha256}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Make it from :meth:`to_json`."""
        return cls(tuple(map(int, data["owner"])), tuple(map(float, data["loads"])))


def make_plan(
    costs: Sequence[DatasetCost], n_actors: int, *, memory: int | None = None, held: Mapping[int, int] | None = None
) -> Plan:
    """Return every dataset to an actor, the longest first, each to the one with the least to do.

    Among actors within 3 % of the best, one that owns others of the dataset's group is preferred, so that their layers
    need not travel. Where memory is too small for that order, datasets are given out by their bytes instead. When some
    are held already, the plan that moves the fewest bytes is taken among two whose longest load is at most 3 % longer:
    the new one with its actors renamed, and the old one mended by single moves and exchanges. Equal inputs give equal
    plans.

    Parameters
    ----------
    costs
        Of the datasets.
    n_actors
        P; at most T, because an actor without a dataset would only wait.
    memory
        Bytes that each actor may take; ``None``: no bound.
    held
        Rank of the actor that has a dataset in memory, by dataset index.

    Returns
    -------
    Plan
        When memory does not bind and nothing is held, no load is more than 1.03 times the mean load plus the longest
        dataset.

    Raises
    ------
    ValueError
        When there are more actors than datasets.
    RunError
        E411 when no plan that fits was found; it names the dataset that fits nowhere, or a number of actors that
        will do.

    References
    ----------
    Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 17, 1969.
    """
    if not 1 <= n_actors <= len(costs):
        msg = f"{n_actors} actors for {len(costs)} datasets"
        raise ValueError(msg)
    room = Room(costs, memory)
    owner = _spread_within(costs, n_actors, room)
    if owner is None:
        raise _too_large(costs, n_actors, room)
    if held:
        longest = NEAR * max(place(costs, owner.tolist()).loads)
        found = [rename(costs, owner, held, n_actors)]
        mended = keep_in_place(costs, held, n_actors, room, longest=longest)
        if mended is not None:
            found.append(mended)
        owner = min(found, key=lambda after: moved_bytes(costs, held, after.tolist()))
    return place(costs, owner.tolist())


def place(costs: Sequence[DatasetCost], owner: Sequence[int]) -> Plan:
    """Make a plan of owners that somebody chose."""
    loads = np.bincount(owner, weights=[cost.seconds for cost in costs])
    return Plan(tuple(owner), tuple(loads.tolist()))


def gain(plan: Plan, costs: Sequence[DatasetCost], *, memory: int | None = None) -> float:
    """Return the seconds per round that a new plan would save, given what is known now; 0 unless it saves a tenth."""
    loads = place(costs, plan.owner).loads
    better = make_plan(costs, len(loads), memory=memory, held=dict(enumerate(plan.owner)))
    saved = max(loads) - max(better.loads)
    return saved if max(loads) > WORTH * max(better.loads) else 0.0


def moved_bytes(costs: Sequence[DatasetCost], held: Mapping[int, int], owner: Sequence[int]) -> int:
    """Count the bytes of datasets that somebody else holds or nobody does."""
    return sum(costs[i].bytes for i, rank in enumerate(owner) if held.get(i) != rank)


def _spread_within(costs: Sequence[DatasetCost], n_actors: int, room: Room) -> NDArray[np.int64] | None:
    """Spread by seconds or, where that does not fit, by bytes; ``None`` when neither fits."""
    seconds = np.array([cost.seconds for cost in costs])
    owner = _spread(costs, seconds, n_actors, room)
    if owner is None:
        n_bytes = np.array([float(cost.bytes + cost.step) for cost in costs])
        owner = _spread(costs, n_bytes, n_actors, room)
    return owner


def _spread(
    costs: Sequence[DatasetCost], weights: NDArray[np.float64], n_actors: int, room: Room
) -> NDArray[np.int64] | None:
    """Assign datasets, the heaviest first, each to the actor with the least weight that has room for it."""
    filled = room.empty(n_actors)
    loads = np.zeros(n_actors)
    owner = np.full(len(costs), -1)
    for left, i in zip(range(len(costs), 0, -1), np.lexsort((np.arange(len(costs)), -weights)).tolist(), strict=True):
        able = filled.fits(i)
        idle = filled.counts == 0
        if idle.sum() >= left:
            able &= idle
        if not able.any():
            return None
        best = loads[able].min() + weights[i]
        near = np.flatnonzero(able & (loads + weights[i] <= NEAR * best))
        chosen = int(near[np.lexsort((near, loads[near], ~filled.has_group(i)[near]))[0]])
        owner[i] = chosen
        loads[chosen] += weights[i]
        filled.add(i, chosen)
    return owner


def _too_large(costs: Sequence[DatasetCost], n_actors: int, room: Room) -> RunError:
    memory = room.memory or 0
    alone = [room.taken([i]) for i in range(len(costs))]
    largest = int(np.argmax(alone))
    if alone[largest] > memory:
        needed, got = format_bytes(alone[largest]), format_bytes(memory)
        msg = f"an actor with {costs[largest].name} alone needs about {needed}, got {got}"
        if room.everywhere > memory / 2:
            msg += f"; {format_bytes(room.everywhere)} of them are what every actor keeps of all {len(costs)} datasets"
        fix = "give more --memory, or `row_block`, `pairs` or another decoder (training memory in the documentation)"
    else:
        # Plans exist for as many actors as datasets; the search takes for granted that more actors are no harder.
        low, high = n_actors, len(costs)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _spread_within(costs, middle, room) is not None else (middle, high)
        msg = f"the datasets do not fit into {n_actors} actors with {format_bytes(memory)} each"
        fix = f"use {high} actors or more, or give more --memory"
    return RunError(msg, code="E411", where="memory", fix=fix)
