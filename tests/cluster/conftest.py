"""An atlas on disk for tests of training on Ray, and one Ray session per module."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

import pytest

os.environ.setdefault("RAY_worker_niceness", "0")

KINDS = ("scrna", "spatial", "scatac")


def load_synthetic():
    """Load the maker of synthetic records that the tests of training use."""
    path = Path(__file__).parents[1] / "musegnn" / "training" / "conftest.py"
    spec = importlib.util.spec_from_file_location("synthetic_records", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["synthetic_records"] = module
    spec.loader.exec_module(module)
    return module


def make_run(folder, *, n=12, **training):
    """Store `n` datasets, of which every third shares no gene with the others, and configure a training on them."""
    from musegnn.atlas_file import validate_atlas
    from musegnn.data_store import Store

    synthetic = load_synthetic()
    store, datasets = Store.create(folder / "store.zarr"), []
    for k in range(n):
        labels = (KINDS[k % 3], f"tissue{k % 4}", "mouse" if k % 3 == 2 else "human")
        record = synthetic.make_record(f"d{k:02d}", *labels, n_genes=24 + 3 * k, seed=k)
        store.commit(record, f"build-{k:02d}")
        names = dict(zip(("modality", "tissue", "species"), labels, strict=True))
        datasets.append({"name": record.name, "path": str(store.path), **names})
    model = {"dim": 8, "encoder": "transformer"}
    settings = {"rounds": 20, "checkpoint_every": 5, "threads": 1} | training
    return store, validate_atlas({"datasets": datasets, "model": model, "training": settings}, where="test")


def units(run):
    """Name the content of every unit in the newest checkpoint: weights, moments and all."""
    from musegnn.training.checkpoint import manifests

    newest = manifests(Path(run) / "checkpoints")[0]
    return newest.round, {name: shard.sha256 for name, shard in newest.units.items()}


def wait_for(condition, seconds=240.0, *, every=0.05):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(every)
    msg = f"{condition} did not come true"
    raise AssertionError(msg)


def descendants(pid):
    """List the processes below one."""
    children = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, waiting = [], [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.append(child)
            waiting.append(child)
    return found


@pytest.fixture(scope="session")
def helpers():
    """Return this module, whose name is not unique among the tests."""
    return sys.modules[__name__]


@pytest.fixture(scope="module")
def ray_cluster():
    """Connect to a local Ray cluster for all tests of a module."""
    from musegnn.cluster.ray_session import ray_session

    with ray_session(None, cpus=10) as ray:
        yield ray


@pytest.fixture
def cluster_run(tmp_path):
    """Return a store of twelve datasets and a configuration."""
    return make_run(tmp_path)
