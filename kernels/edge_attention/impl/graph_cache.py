"""What an implementation prepares once per graph, kept for as long as the graph's tensors live."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from torch.multiprocessing.reductions import StorageWeakRef

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import torch

Value = TypeVar("Value")


class PerGraph(Generic[Value]):
    """Values that follow from tensors of a graph and options; a tensor changed in place counts as another.

    A value must not hold these tensors, or neither would ever be freed.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[tuple[Any, ...], Hashable], Value] = {}  # Any: weak references and numbers
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of values that are kept, of graphs that are gone, too, until the next one is made."""
        return len(self._kept)

    def get(self, parts: tuple[torch.Tensor, ...], options: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of these tensors and options, made at the first call."""
        storages = tuple(
            StorageWeakRef(part.untyped_storage())  # type: ignore[no-untyped-call]
            for part in parts
        )
        states = tuple((part.storage_offset(), part.numel(), _version(part)) for part in parts)
        key = ((storages, states), options)
        with self._lock:
            if key not in self._kept:
                for other in [other for other in self._kept if any(ref.expired() for ref in other[0][0])]:
                    del self._kept[other]
                self._kept[key] = make()
            return self._kept[key]


def _version(part: torch.Tensor) -> int:
    """Count the changes in place, which torch does not for tensors made in inference mode."""
    return 0 if part.is_inference() else part._version
