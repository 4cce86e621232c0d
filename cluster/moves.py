"""From the owners that there are to better ones, with few bytes moved.

Legend: T datasets, P actors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.cluster.cost import DatasetCost
    from musegnn.cluster.room import Room

MOST_EXCHANGED = 32


def rename(
    costs: Sequence[DatasetCost], owner: NDArray[np.int64], held: Mapping[int, int], n_actors: int
) -> NDArray[np.int64]:
    """Return new numbers to the actors of a plan, such that as many bytes as possible stay where they are.

    Parameters
    ----------
    costs
        Of the datasets.
    owner
        The plan, shape (T,).
    held
        Rank of the actor that has a dataset in memory, by dataset index.
    n_actors
        P.
    """
    from scipy.optimize import linear_sum_assignment

    stays = np.zeros((n_actors, n_actors))
    for i, rank in held.items():
        stays[owner[i], rank] += costs[i].bytes
    _, names = linear_sum_assignment(stays, maximize=True)
    renamed: NDArray[np.int64] = names[owner]
    return renamed


def keep_in_place(
    costs: Sequence[DatasetCost], held: Mapping[int, int], n_actors: int, room: Room, *, longest: float
) -> NDArray[np.int64] | None:
    """Leave datasets where they are, give out the others, and mend loads that are too long.

    As long as the longest load is too long, one of its datasets is moved to another actor, or exchanged for a shorter
    one, such that the load falls most per byte.

    Parameters
    ----------
    costs, held, n_actors
        As for :func:`rename`.
    room
        Memory of each actor.
    longest
        The longest load allowed, in seconds per round.

    Returns
    -------
    numpy.ndarray or None
        Owners, shape (T,); ``None`` when it does not come to loads that are allowed.
    """
    mender = _Mender(costs, held, n_actors, room, longest)
    return mender.owner if mender.give_out_rest() and mender.mend() and mender.leave_nobody_idle() else None


class _Mender:
    def __init__(
        self, costs: Sequence[DatasetCost], held: Mapping[int, int], n_actors: int, room: Room, longest: float
    ) -> None:
        self._seconds = np.array([cost.seconds for cost in costs])
        self._bytes = np.array([cost.bytes for cost in costs], dtype=np.float64)
        self._room, self._longest = room, longest
        self._home = np.array([held.get(i, -1) for i in range(len(costs))])
        self.owner = self._home.copy()
        here = self.owner >= 0
        self._loads = np.bincount(self.owner[here], weights=self._seconds[here], minlength=n_actors)

    def give_out_rest(self) -> bool:
        if not all(self._room.holds(self._of(rank)) for rank in range(len(self._loads))):
            return False
        rest = np.flatnonzero(self.owner < 0)
        for i in rest[np.argsort(-self._seconds[rest], kind="stable")].tolist():
            able = (r for r in np.argsort(self._loads, kind="stable").tolist() if self._room.holds([*self._of(r), i]))
            rank = next(able, None)
            if rank is None:
                return False
            self._move(i, rank)
        return True

    def mend(self) -> bool:
        """Move and exchange until the longest load is allowed; every step makes it, or the number of such, smaller."""
        for _ in range(4 * len(self.owner)):
            if self._loads.max() <= self._longest:
                return True
            step = next((s for s in self._steps(int(self._loads.argmax())) if self._is_possible(*s)), None)
            if step is None:
                return False
            i, rank, back = step
            source = int(self.owner[i])
            self._move(i, rank)
            if back >= 0:
                self._move(back, source)
        return False

    def leave_nobody_idle(self) -> bool:
        """Return actors without a dataset one of those that have several, the fewest bytes first."""
        counts = np.bincount(self.owner, minlength=len(self._loads))
        for rank in np.flatnonzero(counts == 0).tolist():
            able = np.flatnonzero(counts[self.owner] > 1)
            i = int(able[np.lexsort((able, self._bytes[able]))[0]])
            counts[self.owner[i]] -= 1
            counts[rank] += 1
            if not self._room.holds([i]):
                return False
            self._move(i, rank)
        return True

    def _steps(self, source: int) -> Iterator[tuple[int, int, int]]:
        """Return steps that shorten the longest load: a dataset, its new owner, who comes in return (-1)."""
        own = np.flatnonzero(self.owner == source)
        own = own[np.argsort(-self._seconds[own], kind="stable")]
        now = self._loads[source]
        target = int(np.argsort(self._loads, kind="stable")[0])
        pairs = [(own, np.full(len(own), target), np.full(len(own), -1))] if len(own) > 1 else []
        others = np.flatnonzero(self.owner != source)
        pairs += [(np.full(len(others), i), self.owner[others], others) for i in own[:MOST_EXCHANGED].tolist()]
        if not pairs:
            return
        given, ranks, back = (np.concatenate(part) for part in zip(*pairs, strict=True))
        less = self._seconds[given] - np.where(back >= 0, self._seconds[back], 0.0)
        peak = np.maximum(now - less, self._loads[ranks] + less)
        moved = self._bytes[given] * (self._home[given] == source)
        moved += np.where(back >= 0, self._bytes[back] * (self._home[back] == ranks), 0.0)
        useful = np.flatnonzero(peak < now * (1 - 1e-9))
        worth = (now - np.maximum(peak, self._longest))[useful] / (1.0 + moved[useful])
        for k in useful[np.argsort(-worth, kind="stable")].tolist():
            yield int(given[k]), int(ranks[k]), int(back[k])

    def _is_possible(self, i: int, rank: int, back: int) -> bool:
        if self._room.memory is None:
            return True
        source = int(self.owner[i])
        there = [j for j in self._of(rank) if j != back]
        here = [j for j in self._of(source) if j != i]
        return self._room.holds([*there, i]) and (back < 0 or self._room.holds([*here, back]))

    def _move(self, i: int, rank: int) -> None:
        if self.owner[i] >= 0:
            self._loads[self.owner[i]] -= self._seconds[i]
        self.owner[i] = rank
        self._loads[rank] += self._seconds[i]

    def _of(self, rank: int) -> list[int]:
        found: list[int] = np.flatnonzero(self.owner == rank).tolist()
        return found
