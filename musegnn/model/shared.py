"""Modules that datasets share: those with one key use one, whose gradient is the sum over these datasets.

A *role* (``layers``, ``projection``) says what a module does; its key says for whom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from musegnn.graph import Labels


def sharing_key(graph: Labels, share_by: Iterable[str]) -> str:
    """Return the labels of a dataset that others must have to share with it, or ``all``."""
    return "|".join(graph.label(attribute) for attribute in share_by) or "all"


class SharedModules(nn.Module):
    """The shared modules that a process needs for the datasets it owns.

    ``by_unit`` holds them by unit name ``shared/role/key`` in the order of first use, ``members`` the datasets of each,
    ascending, owned here or not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_unit: dict[str, nn.Module] = {}
        self.members: dict[str, list[int]] = {}
        self._units: dict[int, dict[str, str]] = {}

    def add(
        self,
        role: str,
        graphs: Sequence[Labels],
        share_by: Iterable[str],
        make: Callable[[str], nn.Module],
        *,
        owned: Iterable[int],
    ) -> None:
        """Add the modules of one role, for the indices `owned` among all datasets `graphs`.

        Datasets share a module when they agree in the labels `share_by`: ``modality``, ``tissue``, ``species``. `make`
        returns the module of a unit's name, with weights drawn.
        """
        share_by = tuple(share_by)
        here = set(owned)
        for i, graph in enumerate(graphs):
            unit = f"shared/{role}/{sharing_key(graph, share_by)}"
            self.members.setdefault(unit, []).append(i)
            self._units.setdefault(i, {})[role] = unit
            if i in here and unit not in self.by_unit:
                self.by_unit[unit] = make(unit)
                self.add_module(unit.replace(".", "%2E"), self.by_unit[unit])

    def units(self, i: int) -> list[str]:
        """Return the names of the shared units that dataset `i` uses."""
        return list(self._units.get(i, {}).values())

    def get(self, role: str, i: int) -> nn.Module | None:
        """Return the module of a role that dataset `i` uses, or ``None`` when nothing has that role."""
        unit = self._units.get(i, {}).get(role)
        return None if unit is None else self.by_unit[unit]
