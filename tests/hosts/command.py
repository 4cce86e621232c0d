"""The command of a run in the laboratory: `command.py RUN ACTORS SPARES` resumes a run, a tenth of a second a round.

`command.py ATLAS STORE SCHEDULER` builds graphs. A file `hang` in the run folder, with a kind and a phase, lets the
actor of rank 1 hang there once.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from functools import partial
from pathlib import Path

import ray

from musegnn.atlas_file import load_atlas
from musegnn.cluster.build import build_graphs
from musegnn.cluster.options import ClusterOptions
from musegnn.cluster.train import train_on_cluster
from musegnn.data_store import Store
from musegnn.errors import MuseGNNError
from musegnn.run_folder import RunFolder

PACE = 0.1
ROWS = 16
"""Cells per task of a build."""


def disturb(mark, task, now):
    """Slow a round down, and hang where it is said so."""
    if now.phase == "encode" and task.owner[0] == task.rank:
        time.sleep(PACE)
    if task.rank == 1 and mark.exists():
        kind, phase = mark.read_text().split()
        if now.phase == phase:
            mark.unlink()
            if kind == "gil":
                ctypes.PyDLL(None).sleep(10**6)
            else:
                os.read(os.pipe()[0], 1)


def train(run, actors, spares):
    ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
    folder = RunFolder.open(run)
    options = ClusterOptions(actors=int(actors), spares=int(spares), address="auto")
    with folder.logging():
        store = Store.open(folder.store_path())
        train_on_cluster(folder, store, options, resume=True, on_phase=partial(disturb, Path(run, "hang")))


def build(atlas, store, scheduler):
    found = load_atlas(atlas)
    build_graphs(found, Store.open_or_create(store), scheduler=scheduler, block_rows=ROWS, device="cpu")


if __name__ == "__main__":
    try:
        (build if sys.argv[1].endswith(".yaml") else train)(*sys.argv[1:])
    except MuseGNNError as error:
        print(error.line())
        sys.exit(2)
