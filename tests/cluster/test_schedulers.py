"""How tasks reach a scheduler, and what becomes of them when something fails."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import dask.config
import distributed  # noqa: F401  its settings have to be there before some are set for a while
import numpy as np
import pytest
from dask.threaded import get

from musegnn.cluster import schedulers
from musegnn.coexpression.tasks import Task
from musegnn.errors import ConfigError, GraphError

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
        run = schedulers._dask_runner(note, threading.Event(), remote=False)
        run(tasks_of(tmp_path, values), lambda _: None)
        for path in tmp_path.glob("*.npz"):
            path.rename(path.with_suffix(f".{name}"))
    assert len(keys[0]) == len(keys[1]) >= 7
    assert not keys[0] & keys[1]


def die() -> dict[str, np.ndarray]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@pytest.mark.filterwarnings("default")  # distributed warns about its own sockets when a cluster closes
def test_a_cluster_whose_workers_die_says_so_and_nothing_else(tmp_path, capfd):
    level = logging.getLogger("distributed").level
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        pytest.raises(GraphError, match=r"E276.*workers.*died.*KilledWorker.*--memory") as caught,
        schedulers.open_workers("distributed") as workers,
    ):
        workers.run([Task(tmp_path / "0.npz", die, ())], lambda _: None)
    assert workers.stop.is_set()
    assert caught.value.code == "E276"
    assert logging.getLogger("distributed").level == level
    told = capfd.readouterr()
    assert "INFO" not in told.out + told.err
    assert "WARNING" not in told.out + told.err


def test_a_scheduler_that_does_not_answer():
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(ConfigError, match=r"E305.*no dask scheduler answers at tcp://127\.0\.0\.1:9"),
        schedulers.open_workers("tcp://127.0.0.1:9"),
    ):
        pass


def test_tasks_that_have_not_begun_never_do(tmp_path):
    began: list[int] = []

    def note(k: int) -> dict[str, np.ndarray]:
        began.append(k)
        workers.stop.set()
        return {}

    for scheduler in ("threads", "synchronous"):
        with schedulers.open_workers(scheduler) as workers:
            tasks = [Task(tmp_path / scheduler / f"{k}.npz", note, (k,)) for k in range(50)]
            with pytest.raises(schedulers.StoppedError):
                workers.run(tasks, lambda _: None)
            assert len(began) <= workers.count
        began.clear()
