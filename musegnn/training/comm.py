"""How the processes of a training run talk to one another.

Every process runs the same engine on the datasets it owns and meets the others only here. The schedule is a pure
function, so all processes know who needs what; messages carry tensors and nothing about them.

Legend: T datasets, N genes of a dataset, d dimensions of the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import torch


class Comm(Protocol):
    """What the engine needs of a group of processes.

    Attributes
    ----------
    rank, size
        Number of this process and of all. Every method is called by all processes together.
    """

    rank: int
    size: int

    def exchange(self, z: Mapping[int, torch.Tensor], partner: Sequence[int]) -> dict[int, torch.Tensor]:
        """Give each dataset the vectors of its partner.

        Parameters
        ----------
        z
            Detached vectors (N, d) of the datasets owned here.
        partner
            Partner of each dataset of the atlas, -1 for none; shape (T,).

        Returns
        -------
        dict
            For each owned dataset with a partner, the partner's vectors as a tensor of its own.
        """

    def give_back(self, gradients: Mapping[int, torch.Tensor], partner: Sequence[int]) -> dict[int, torch.Tensor]:
        """Return gradients to the owners of the vectors they belong to.

        Parameters
        ----------
        gradients
            For owned datasets with a partner, the gradient (N, d) by the partner's vectors. A dataset without a
            comparison in this round is missing.
        partner
            As in :meth:`exchange`.

        Returns
        -------
        dict
            Gradients by vectors owned here, by the dataset (of any process) whose loss they come from.
        """

    def sum_shared(
        self, contributions: Mapping[str, Mapping[int, torch.Tensor]], members: Mapping[str, Sequence[int]]
    ) -> dict[str, torch.Tensor]:
        """Add up the gradients of shared modules over datasets, in ascending dataset index.

        Parameters
        ----------
        contributions
            Per unit owned here and dataset owned here, the flat gradient.
        members
            Datasets that share each unit, owned here or not.

        Returns
        -------
        dict
            Flat sum per unit owned here, the same bits whichever processes the datasets are on.
        """

    def vote(self, objections: Iterable[int]) -> list[int]:
        """Gather objections to a step.

        Parameters
        ----------
        objections
            Owned datasets whose numbers are not finite.

        Returns
        -------
        list of int
            Those of all processes, ascending. The step is taken only when it is empty.
        """

    def gather(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Gather records of all processes in order of rank; every process gets all."""


class LocalComm:
    """A group of one process."""

    rank = 0
    size = 1

    def exchange(self, z: Mapping[int, torch.Tensor], partner: Sequence[int]) -> dict[int, torch.Tensor]:
        """Give each dataset a copy of the vectors of its partner."""
        return {i: z[int(partner[i])].clone() for i in sorted(z) if partner[i] >= 0}

    def give_back(
        self,
        gradients: Mapping[int, torch.Tensor],
        partner: Sequence[int],
    ) -> dict[int, torch.Tensor]:
        """Give the gradients back as they are."""
        return dict(gradients)

    def sum_shared(
        self,
        contributions: Mapping[str, Mapping[int, torch.Tensor]],
        members: Mapping[str, Sequence[int]],
    ) -> dict[str, torch.Tensor]:
        """Add up gradients in ascending dataset index."""
        return {unit: add_ascending(parts) for unit, parts in contributions.items()}

    def vote(self, objections: Iterable[int]) -> list[int]:
        """Give the objections, ascending."""
        return sorted(objections)

    def gather(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give the records."""
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
