"""A node of a cluster is lost with all its processes."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import threading
from pathlib import Path

import pytest

from musegnn.api import MuSeGNN
from musegnn.run_folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


helpers = load(Path(__file__).with_name("conftest.py"))


@pytest.mark.filterwarnings("ignore")
def test_a_lost_node_leaves_no_trace(tmp_path):
    """Two nodes on this machine; one is killed with all its processes."""
    import ray
    from ray.cluster_utils import Cluster

    from musegnn.cluster.options import ClusterOptions, Timeouts
    from musegnn.cluster.train import train_on_cluster

    store, config = helpers.make_run(tmp_path, n=4, rounds=400, checkpoint_every=20)
    MuSeGNN(store, config).train(tmp_path / "alone")
    folder = RunFolder.create(tmp_path / "run", config, store=store.path)
    small = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **small})
    try:
        other = cluster.add_node(num_cpus=1, **small)
        cluster.wait_for_nodes()
        path = folder.path / "status.json"

        def lose():
            helpers.wait_for(lambda: path.is_file() and json.loads(path.read_text())["rounds"] >= 12)
            raylet = other.all_processes["raylet"][0].process.pid
            for pid in [raylet, *helpers.descendants(raylet)]:
                os.kill(pid, signal.SIGKILL)
            cluster.add_node(num_cpus=1, **small)

        killer = threading.Thread(target=lose)
        killer.start()
        options = ClusterOptions(actors=2, address=cluster.address)
        train_on_cluster(folder, store, options, timeouts=Timeouts(silent=6.0))
        killer.join()
        status = json.loads(path.read_text())
        assert len(status["failures"]) >= 1
        assert helpers.units(folder.path) == helpers.units(tmp_path / "alone")
    finally:
        ray.shutdown()
        cluster.shutdown()
