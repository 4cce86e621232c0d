"""Builds that are killed with SIGKILL and run again give the bytes of builds that were not.

Ten moments on each scheduler take minutes: ``MUSEGNN_KILLS=10 pytest -m cluster tests/cluster/test_kill_build.py``.
This file is also the program that is killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_matrix

KILLS = int(os.environ.get("MUSEGNN_KILLS", "0"))
TASK = re.compile(r"\d+(-\d+)?\.npz")
PATIENCE = 100.0  # agents of a Ray cluster that died look for it for a minute before they end
RAY = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


def build(atlas_file: str, store_folder: str, scheduler: str, removed_file: str) -> None:
    """Build an atlas, and note which files of tasks there were when their folders were removed."""
    import musegnn.data_store.store as place
    from musegnn.atlas_file import load_atlas
    from musegnn.cluster.build import build_graphs
    from musegnn.data_store import Store

    removed: dict[str, list[int]] = {}
    remove = place._remove_work

    def note_and_remove(folder: Path) -> None:
        removed.update(task_files(folder))
        remove(folder)

    place._remove_work = note_and_remove
    try:
        store = Store.open_or_create(store_folder)
        build_graphs(load_atlas(atlas_file), store, scheduler=scheduler, block_rows=16, device="cpu")
    finally:
        place._remove_work = remove
    Path(removed_file).write_text(json.dumps(removed))


def task_files(folder: Path) -> dict[str, list[int]]:
    """Return inode and time of every finished task below a folder."""
    found = {}
    for place, _, names in os.walk(folder):  # which passes over folders that are removed meanwhile
        for name in filter(TASK.fullmatch, names):
            try:
                stat = Path(place, name).stat()
            except FileNotFoundError:
                continue
            found[str(Path(place, name))] = [stat.st_ino, stat.st_mtime_ns]
    return found


def committed(store: Path) -> dict[str, str]:
    """Digest all that readers of a store see."""
    files = [p for p in store.rglob("*") if p.is_file() and p.relative_to(store).parts[0] not in {"log", "tmp"}]
    return {str(p.relative_to(store)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def running(mark: str) -> list[int]:
    """Find the processes that were started with this mark in their environment, or by one that was."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:  # it ended, or belongs to somebody else
            continue
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return an atlas of a whole and a split dataset, what its build commits, and the number of its tasks."""
    folder = tmp_path_factory.mktemp("kill")
    datasets = []
    for seed, name in enumerate(["whole", "split"]):
        rng = np.random.default_rng(seed)
        level = rng.gamma(3.0, 1 / 3, (400, 80))
        level[:, :30] *= rng.gamma(2.0, 0.5, (400, 1))
        data = ad.AnnData(csr_matrix(rng.poisson(400 * level * rng.dirichlet(np.ones(80) * 3)).astype(np.float32)))
        data.obs["half"] = np.where(rng.random(400) < 0.5, "a", "b")
        data.write_h5ad(folder / f"{name}.h5ad")
        entry = {"name": name, "path": f"{name}.h5ad", "modality": "scrna", "tissue": "lung", "species": "human"}
        datasets.append(entry | ({"by": "half"} if name == "split" else {}))
    atlas = folder / "atlas.yaml"
    atlas.write_text(json.dumps({"datasets": datasets, "graph": {"n_genes": 40}}))
    build(str(atlas), str(folder / "store"), "threads", str(folder / "removed.json"))
    return atlas, committed(folder / "store"), len(json.loads((folder / "removed.json").read_text()))


def start(atlas: Path, store: Path, scheduler: str, removed: Path, environment: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, __file__, str(atlas), str(store), scheduler, str(removed)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_after(process: subprocess.Popen, store: Path, n_tasks: int) -> int:
    """Kill a build once this many tasks have left a file; give how many were seen."""
    seen: set[str] = set()
    deadline = time.monotonic() + PATIENCE
    while len(seen) < n_tasks and process.poll() is None and time.monotonic() < deadline:
        seen.update(task_files(store / "tmp" / "work"))
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return len(seen)


def wait_for_end(mark: str) -> list[int]:
    """Wait until nothing that was started with the mark runs; give what still does."""
    deadline = time.monotonic() + PATIENCE
    while (left := running(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def damage(files: list[str]) -> list[str]:
    """Cut one file short and change a byte in another, of those that resuming has to read."""
    damaged = files[: len(files) // 2 + 1 : max(len(files) // 2, 1)]
    for k, name in enumerate(damaged):
        raw = bytearray(Path(name).read_bytes())
        if k == 0:
            raw = raw[: len(raw) // 2]
        else:
            raw[len(raw) // 2] ^= 0x10
        Path(name).write_bytes(raw)
    return damaged


def check(undisturbed, tmp_path: Path, scheduler: str, part: int, parts: int, resume: str | None) -> None:
    """Kill a build in one of `parts` equal stretches of its tasks, and run it again (``None``: in this process)."""
    atlas, expected, total = undisturbed
    store, removed_file = tmp_path / "store", tmp_path / "removed.json"
    rng = np.random.default_rng([part, len(scheduler)])
    goal = int((part + rng.random()) / parts * 0.95 * total)
    mark = f"MUSEGNN_TEST_MARK={os.getpid()}-{scheduler}-{part}-{time.time_ns()}"
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as short:
        environment = os.environ | RAY | {"RAY_TMPDIR": short} | dict([mark.split("=")])
        try:
            process = start(atlas, store, scheduler, removed_file, environment)
            seen = kill_after(process, store, goal)
            assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
            assert wait_for_end(mark) == []
            survived = task_files(store / "tmp" / "work")
            damaged = damage(sorted(survived)) if part % 2 else []
            if resume is None:
                build(str(atlas), str(store), "threads", str(removed_file))
            else:
                process = start(atlas, store, resume, removed_file, environment)
                _, errors = process.communicate(timeout=2 * PATIENCE)
                assert process.returncode == 0, errors.decode()
            assert wait_for_end(mark) == []
        finally:
            for pid in running(mark):
                os.kill(pid, signal.SIGKILL)
    assert committed(store) == expected
    removed = json.loads(removed_file.read_text())
    assert set(survived) <= set(removed)
    again = {name for name in survived if removed[name] != survived[name]}
    assert again == set(damaged)
    assert [p for p in (store / "tmp").rglob("*") if p.suffix != ".lock" and not p.is_dir()] == []
    print(f"{scheduler}: killed after {seen} of {total} tasks; {len(survived)} on disk, {len(damaged)} damaged")


@pytest.mark.parametrize("part", range(3))
def test_a_killed_build_goes_on(undisturbed, tmp_path, part):
    check(undisturbed, tmp_path, "threads", part, 3, None)


@pytest.mark.filterwarnings("default")  # distributed warns about its own sockets when a cluster closes
def test_a_killed_cluster_leaves_no_process_and_its_work_is_taken_up(undisturbed, tmp_path):
    check(undisturbed, tmp_path, "distributed", 1, 2, None)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.skipif(not KILLS, reason="set MUSEGNN_KILLS to the number of kills per scheduler")
@pytest.mark.parametrize("part", range(KILLS))
@pytest.mark.parametrize("scheduler", ["threads", "distributed", "ray"])
def test_builds_survive_kills_at_any_moment(undisturbed, tmp_path, scheduler, part):
    check(undisturbed, tmp_path, scheduler, part, KILLS, scheduler)


if __name__ == "__main__":
    build(*sys.argv[1:])
