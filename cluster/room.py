"""How much memory actors take for the datasets they own.

Legend: T datasets, P actors, G groups of datasets that share layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.units import ACTOR_PROCESS as BASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from musegnn.cluster.cost import DatasetCost


class Room:
    """A bound on the memory of each actor.

    An actor takes what every process takes, the bytes of its datasets, the layers of each of their groups once, and the
    largest of their steps.

    Parameters
    ----------
    costs
        Of the datasets.
    memory
        Bytes per actor; ``None``: no bound.

    Attributes
    ----------
    everywhere
        Bytes of an actor without a dataset.
    """

    def __init__(self, costs: Sequence[DatasetCost], memory: int | None) -> None:
        self.memory = memory
        self.everywhere = BASE + sum(cost.everywhere for cost in costs)
        names = sorted({cost.group for cost in costs})
        self._group = np.array([names.index(cost.group) for cost in costs])
        self._bytes, self._step, self._shared = (
            np.array([getattr(cost, name) for cost in costs], dtype=np.int64) for name in ("bytes", "step", "shared")
        )

    def taken(self, datasets: Iterable[int]) -> int:
        """Return the bytes of an actor that owns some datasets."""
        own = np.fromiter(datasets, dtype=np.int64)
        if len(own) == 0:
            return self.everywhere
        _, first = np.unique(self._group[own], return_index=True)
        shared = self._shared[own][first].sum()
        return self.everywhere + int(self._bytes[own].sum() + shared + self._step[own].max())

    def holds(self, datasets: Iterable[int]) -> bool:
        """Return whether an actor can own some datasets."""
        return self.memory is None or self.taken(datasets) <= self.memory

    def empty(self, n_actors: int) -> Filled:
        """Return actors that own nothing yet."""
        return Filled(self, n_actors)


class Filled:
    """Actors that are given datasets one by one.

    Attributes
    ----------
    counts
        Datasets of each actor, shape (P,).
    """

    def __init__(self, room: Room, n_actors: int) -> None:
        self._room = room
        self.counts = np.zeros(n_actors, dtype=np.int64)
        self._kept = np.full(n_actors, room.everywhere, dtype=np.int64)
        self._step = np.zeros(n_actors, dtype=np.int64)
        self._groups = np.zeros((n_actors, int(room._group.max()) + 1), dtype=np.bool_)

    def has_group(self, i: int) -> NDArray[np.bool_]:
        """Return which actors own a dataset of the group of dataset `i`, shape (P,)."""
        found: NDArray[np.bool_] = self._groups[:, self._room._group[i]]
        return found

    def fits(self, i: int) -> NDArray[np.bool_]:
        """Return which actors have room for dataset `i`, shape (P,)."""
        room = self._room
        if room.memory is None:
            return np.ones(len(self.counts), dtype=np.bool_)
        shared = np.where(self.has_group(i), 0, room._shared[i])
        taken = self._kept + room._bytes[i] + shared + np.maximum(self._step, room._step[i])
        fits: NDArray[np.bool_] = taken <= room.memory
        return fits

    def add(self, i: int, rank: int) -> None:
        """Return dataset `i` to an actor."""
        room, group = self._room, self._room._group[i]
        self._kept[rank] += room._bytes[i] + (0 if self._groups[rank, group] else room._shared[i])
        self._step[rank] = max(self._step[rank], room._step[i])
        self._groups[rank, group] = True
        self.counts[rank] += 1
