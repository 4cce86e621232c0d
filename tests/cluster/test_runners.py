"""How tasks reach a scheduler, and what becomes of them when something fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from dask.threaded import get

from musegnn.cluster import runners
from musegnn.coexpression.tasks import Task

if TYPE_CHECKING:
    from pathlib import Path


def add(values: np.ndarray, number: np.ndarray) -> dict[str, np.ndarray]:
    return {"sum": values + number}


def tasks_of(folder: Path, values: np.ndarray) -> list[Task]:
    return [Task(folder / f"{k}.npz", add, (values, np.array(k))) for k in range(3)]


def test_two_builds_on_one_scheduler_share_no_key(tmp_path):
    keys: list[set[str]] = []

    def note(dsk: Any, wanted: Any, **options: Any) -> Any:
        keys.append({str(key) for key in dict(dsk.__dask_graph__())})
        return get(dsk, wanted, **options)

    values = np.arange(1000)
    for name in ("first", "second"):
        run = runners._dask_runner(note, remote=False)
        run(tasks_of(tmp_path, values), lambda _: None)
        for path in tmp_path.glob("*.npz"):
            path.rename(path.with_suffix(f".{name}"))
    assert len(keys[0]) == len(keys[1]) >= 7
    assert not keys[0] & keys[1]
