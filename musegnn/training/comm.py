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
    """The outcome of a round, before anybody steps.

    Attributes
    ----------
    sums
        Flat gradient per shared unit owned here, summed over all datasets that contributed; empty when there are
        objections.
    objections
        Datasets of any process whose numbers are not finite, ascending. The step is taken only when it is empty.
    """

    sums: Mapping[str, torch.Tensor]
    objections: Sequence[int]


class Comm(Protocol):
    """What training needs of a group of processes.

    Every method is called by all processes together, in the same order.

    Attributes
    ----------
    rank, size
        Number of this process and of all.
    sent
        Bytes sent to other processes so far.
    """

    rank: int
    size: int
    sent: int

    def exchange(self, z: Mapping[int, torch.Tensor], partner: Mapping[int, int]) -> Callable[[], Vectors]:
        """Begin to give each dataset the vectors of its partner.

        Parameters
        ----------
        z
            Detached vectors (N, d) of the datasets owned here that take part in the round.
        partner
            Partner of each dataset that takes part, -1 for none.

        Returns
        -------
        callable
            Waits, and gives the vectors of the partners of owned datasets, by partner. They may share memory with
            `z` and must not be written to.
        """

    def return_gradients(
        self, gradients: Mapping[int, torch.Tensor], partner: Mapping[int, int]
    ) -> Callable[[], Vectors]:
        """Begin to return gradients to the owners of the vectors they belong to.

        Parameters
        ----------
        gradients
            For owned datasets with a partner, the gradient (N, d) by the partner's vectors. A dataset without a
            comparison in this round is missing.
        partner
            As in :meth:`exchange`.

        Returns
        -------
        callable
            Waits, and gives the gradients by vectors owned here, by the dataset (of any process) whose loss they
            come from.
        """

    def reduce(
        self, contributions: Contributions, members: Mapping[str, Sequence[int]], objections: Iterable[int]
    ) -> Reduction:
        """Add up the gradients of shared modules over datasets, unless somebody objects to the step.

        Parameters
        ----------
        contributions
            Per shared unit and dataset owned here, the flat gradient; a unit or dataset without one is missing.
        members
            Datasets that share each unit, owned here or not, for all units of the atlas.
        objections
            Owned datasets whose numbers are not finite.
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
        """Return the gradients back as they are."""
        found = dict(gradients)
        return lambda: found

    def reduce(
        self, contributions: Contributions, members: Mapping[str, Sequence[int]], objections: Iterable[int]
    ) -> Reduction:
        """Add up the gradients of this process."""
        found = sorted(objections)
        if found:
            return Reduction({}, found)
        return Reduction({unit: _fixed_sum(parts, len(members[unit])) for unit, parts in contributions.items()}, [])

    def add_up(self, total: torch.Tensor) -> torch.Tensor:
        """Return the tensor of this process."""
        return total

    def gather(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the records."""
        return list(rows)


def add_ascending(parts: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """Add tensors in ascending order of their keys, so that equal parts give equal bits.

    Parameters
    ----------
    parts
        At least one tensor; all of one shape.
    """
    first, *others = sorted(parts)
    total = parts[first].clone()
    for key in others:
        total += parts[key]
    return total


def largest(parts: Iterable[torch.Tensor]) -> float:
    """Return the largest magnitude in some tensors; 0 when they are empty."""
    return max((part.abs().amax().item() for part in parts if part.numel()), default=0.0)


def _fixed_sum(parts: Mapping[int, torch.Tensor], n_members: int) -> torch.Tensor:
    some = next(iter(parts.values()))
    scale = scale_for(largest(parts.values()), n_members)
    total = torch.zeros(some.shape, dtype=torch.int64, device=some.device)
    add_rounded(parts.values(), scale, total)
    return to_float(total, scale, some.dtype)
