"""The command of a run in the laboratory: `command.py RUN ACTORS SPARES` resumes a run, a tenth of a second a round."""

from __future__ import annotations

import sys
import time

import ray

from musegnn.cluster.options import ClusterOptions
from musegnn.cluster.train import train_on_cluster
from musegnn.data_store import Store
from musegnn.errors import MuseGNNError
from musegnn.run_folder import RunFolder

PACE = 0.1


def slow_down(task, now):
    if now.phase == "encode" and task.owner[0] == task.rank:
        time.sleep(PACE)


if __name__ == "__main__":
    ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
    folder = RunFolder.open(sys.argv[1])
    options = ClusterOptions(actors=int(sys.argv[2]), spares=int(sys.argv[3]), address="auto")
    try:
        with folder.logging():
            train_on_cluster(folder, Store.open(folder.store_path()), options, resume=True, on_phase=slow_down)
    except MuseGNNError as error:
        print(error.line())
        sys.exit(2)
