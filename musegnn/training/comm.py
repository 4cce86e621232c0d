"""How the processes of a training run talk to one another.

Every process runs the same engine on the datasets it owns and meets the others only here. The schedule is a pure
function, so all processes know who needs what; messages carry tensors and nothing about them.

Legend: T datasets, N genes of a dataset, d dimensions of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from musegnn.training.fixed_point import add_rounded, scale_for, to_float

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Vectors = dict[int, torch.Tensor]
    Contributions = Mapping[str, Mapping[int, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Reduction:
    """The outcome of a round, before any process steps.

    ``sums`` are flat gradients by shared unit of this process over all datasets; empty when there are objections.
    ``objections`` are datasets of any process whose numbers are not finite, ascending: without any, the step is taken.
    """

    sums: Mapping[str, torch.Tensor]
    objections: Sequence[int]


class Comm(Protocol):
    """Communication of a group of processes; every method is called by all together, in the same order.

    ``rank`` and ``size`` are the number of this process and of all, ``sent`` the bytes sent to others so far.
    """

    rank: int
    size: int
    sent: int

    def exchange(self, z: Mapping[int, torch.Tensor], partner: Mapping[int, int]) -> Callable[[], Vectors]:
        """Begin to give each dataset the vectors of its partner.

        `z` are detached vectors (N, d) of the datasets of this process that take part in the round, `partner` is -1 for
        none. The result waits, and returns the vectors by partner; they may share memory with `z` and are read-only.
        """

    def return_gradients(
        self, gradients: Mapping[int, torch.Tensor], partner: Mapping[int, int]
    ) -> Callable[[], Vectors]:
        """Begin to return gradients to the owners of the vectors they belong to.

        `gradients` (N, d) are by the partner's vectors, by dataset of this process, without those of no comparison. The
        result waits, and returns gradients by vectors of this process, by the dataset whose loss they come from.
        """

    def reduce(
        self, contributions: Contributions, members: Mapping[str, Sequence[int]], objections: Iterable[int]
    ) -> Reduction:
        """Return the sums of gradients of shared modules over datasets, unless a process objects to the step.

        Parameters
        ----------
        contributions
            Flat gradients per shared unit and dataset of this process.
        members
            Datasets that share each unit, for all units of the atlas.
        objections
            Datasets of this process whose numbers are not finite.
        """

    def add_up(self, total: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes of an int64 tensor, of one shape in all; `total` may be overwritten."""

    def gather(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Gather JSON records of all processes in order of rank; every process gets all."""


class LocalComm:
    """A group of one process, whose sums are in fixed point so that several processes give the same bits."""

    rank = 0
    size = 1
    sent = 0

    def exchange(self, z: Mapping[int, torch.Tensor], partner: Mapping[int, int]) -> Callable[[], Vectors]:
        """Return the vectors of partners as they are."""
        found = {partner[i]: z[partner[i]] for i in sorted(z) if partner[i] >= 0}
        return lambda: found

    def return_gradients(
        self, gradients: Mapping[int, torch.Tensor], partner: Mapping[int, int]
    ) -> Callable[[], Vectors]:
        """Return the gradients as they are."""
        found = dict(gradients)
        return lambda: found

    def reduce(
        self, contributions: Contributions, members: Mapping[str, Sequence[int]], objections: Iterable[int]
    ) -> Reduction:
        """Add up the gradients of this process."""
        found = sorted(objections)
        if found:
            return Reduction({}, found)
        bounds = read_numbers([largest(parts.values()) for parts in contributions.values()])
        sums = {
            unit: _fixed_sum(parts, bound, len(members[unit]))
            for (unit, parts), bound in zip(contributions.items(), bounds, strict=True)
        }
        return Reduction(sums, [])

    def add_up(self, total: torch.Tensor) -> torch.Tensor:
        """Return the tensor of this process."""
        return total

    def gather(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the records."""
        return list(rows)


def add_ascending(parts: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """Return the sum of tensors of one shape, at least one, in ascending order of their keys."""
    first, *others = sorted(parts)
    total = parts[first].clone()
    for key in others:
        total += parts[key]
    return total


def read_numbers(numbers: Sequence[torch.Tensor]) -> list[float]:
    """Return numbers of one device and type, in one read, as a GPU has to finish all its work for each."""
    found: list[float] = torch.stack([number.reshape(()) for number in numbers]).tolist() if numbers else []
    return found


def largest(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the largest magnitude in some tensors, at least one, as a number on their device; 0 for empty ones."""
    return torch.stack([part.abs().amax() if part.numel() else part.new_zeros(()) for part in parts]).amax()


def _fixed_sum(parts: Mapping[int, torch.Tensor], bound: float, n_members: int) -> torch.Tensor:
    some = next(iter(parts.values()))
    scale = scale_for(bound, n_members)
    total = torch.zeros(some.shape, dtype=torch.int64, device=some.device)
    add_rounded(parts.values(), scale, total)
    return to_float(total, scale, some.dtype)
