"""Modules that datasets share, under any sharing key.

A *role* (``layers``, ``projection``) says what a module does; its key says for whom. All datasets with one key use
one module, whose gradient is the sum over those datasets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import nn

    from musegnn.graph import GraphData


def sharing_key(graph: GraphData, share_by: Iterable[str]) -> str:
    """Return the key of a dataset: its labels, or ``all`` when nothing has to agree.

    Parameters
    ----------
    graph
        The dataset.
    share_by
        What datasets must agree in to share: ``modality``, ``tissue``, ``species``.
    """
    return "|".join(graph.label(attribute) for attribute in share_by) or "all"


class SharedModules:
    """The shared modules that a process needs for the datasets it owns.

    Attributes
    ----------
    modules
        By unit name ``shared/role/key``, in the order of first use.
    members
        Datasets that share each module, ascending, owned here or not.
    """

    def __init__(self) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.members: dict[str, list[int]] = {}
        self._units: dict[int, dict[str, str]] = {}

    def add(
        self,
        role: str,
        graphs: Sequence[GraphData],
        share_by: Iterable[str],
        make: Callable[[str], nn.Module],
        *,
        owned: Iterable[int],
    ) -> None:
        """Add the modules of one role.

        Parameters
        ----------
        role
            Name of the role.
        graphs
            All datasets.
        share_by
            What datasets must agree in to share a module of this role.
        make
            Makes the module of a unit from the unit's name, with weights drawn.
        owned
            Datasets of this process; only their modules are made.
        """
        share_by = tuple(share_by)
        here = set(owned)
        for i, graph in enumerate(graphs):
            unit = f"shared/{role}/{sharing_key(graph, share_by)}"
            self.members.setdefault(unit, []).append(i)
            self._units.setdefault(i, {})[role] = unit
            if i in here and unit not in self.modules:
                self.modules[unit] = make(unit)

    def units(self, i: int) -> list[str]:
        """Name the shared units that dataset `i` uses."""
        return list(self._units.get(i, {}).values())

    def get(self, role: str, i: int) -> nn.Module | None:
        """Return the module of a role that dataset `i` uses, or ``None`` when nothing has that role."""
        unit = self._units.get(i, {}).get(role)
        return None if unit is None else self.modules[unit]
