"""Runs as users have them: killed controllers, lost nodes, and what can be seen meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from benchmarks.faults import Fault, Faults
from musegnn.api import MuSeGNN
from musegnn.cluster.options import ClusterOptions
from musegnn.run_folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.ray]
ROOT = Path(__file__).parents[2]

CHILD = """
import importlib.util, os, sys
os.environ["RAY_worker_niceness"] = "0"
from pathlib import Path
from musegnn.run_folder import RunFolder
from musegnn.data_store import Store
from musegnn import pipeline

folder = RunFolder.open(sys.argv[1])
store = Store.open(folder.store_path())
from musegnn.cluster.options import ClusterOptions
from musegnn.cluster.train import train_on_cluster
options = ClusterOptions(actors=2, metrics_port=int(sys.argv[2]) or None)
train_on_cluster(folder, store, options, resume=True)
"""


def start(folder, port=0):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", CHILD, str(folder.path), str(port)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_a_controller_killed_during_a_checkpoint_leaves_nothing_and_goes_on(helpers, tmp_path):
    store, config = helpers.make_run(tmp_path, n=4, rounds=200, checkpoint_every=2)
    MuSeGNN(store, config).train(tmp_path / "alone")
    folder = RunFolder.create(tmp_path / "run", config, store=store.path)
    shards = folder.path / "checkpoints" / "shards"
    before = set(Path("/dev/shm").iterdir())
    child = start(folder)
    helpers.wait_for((shards.parent / "round-000004.json").is_file)
    helpers.wait_for(lambda: list(shards.glob("*.partial")), every=0.0005)
    family = helpers.descendants(child.pid)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert len(family) > 4
    helpers.wait_for(lambda: not any(alive(pid) for pid in family), 30)
    assert not [p for p in set(Path("/dev/shm").iterdir()) - before if "plasma" in p.name]

    again = start(folder)
    _, errors = again.communicate(timeout=180)
    assert again.returncode == 0, errors
    assert helpers.units(folder.path) == helpers.units(tmp_path / "alone")
    helpers.wait_for(lambda: not helpers.descendants(again.pid), 10)


def test_a_run_can_be_watched(helpers, tmp_path):
    """`musegnn status` and the metrics port, while a run goes on, and nothing listens beyond the loopback interface."""
    store, config = helpers.make_run(tmp_path, n=4, rounds=400, checkpoint_every=50)
    folder = RunFolder.create(tmp_path / "run", config, store=store.path)
    port = free_port()
    child = start(folder, port)
    try:
        path = folder.path / "status.json"
        helpers.wait_for(lambda: path.is_file() and json.loads(path.read_text())["rounds"] >= 5)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "musegnn", "status", str(folder.path)]
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert "training: round" in shown
        assert shown.count("rank ") == 2
        told = json.loads(
            subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=True).stdout
        )
        assert {a["rank"] for a in told["actors"]} == {0, 1}
        assert all(a["peak_bytes"] > 1e8 and a["sent_bytes"] > 0 for a in told["actors"])
        assert sorted(name for a in told["actors"] for name in a["datasets"]) == ["d00", "d01", "d02", "d03"]

        def metrics():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
            return text if "ray_musegnn_rounds" in text else None

        text = helpers.wait_for(metrics, 60)
        for name in ("round_seconds", "imbalance", "phase_seconds", "sent_bytes", "peak_bytes", "datasets_per_second"):
            assert f"ray_musegnn_{name}" in text
        assert 'phase="exchange"' in text
        listeners = listening(helpers.descendants(child.pid))
        assert listeners
        assert not [address for address in listeners if not address.startswith(("127.", "::ffff:127.", "::1"))]
    finally:
        child.terminate()
        child.communicate(timeout=60)
    assert json.loads(path.read_text())["state"] in {"stopped", "training"}


def listening(pids):
    """Return the addresses at which processes listen."""
    import ipaddress

    inodes = {}
    for table, size in (("tcp", 8), ("tcp6", 32)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                raw = bytes.fromhex(fields[1][:size])
                packed = b"".join(raw[k : k + 4][::-1] for k in range(0, len(raw), 4))
                address = ipaddress.ip_address(packed)
                mapped = getattr(address, "ipv4_mapped", None)
                inodes[fields[9]] = str(mapped or address)
    found = []
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:[") and target[8:-1] in inodes:
                found.append(inodes[target[8:-1]])
    return found


def test_a_stalled_run_says_who_where_and_since_when(helpers, ray_cluster, tmp_path, monkeypatch, caplog):
    from musegnn.cluster import run_monitor
    from musegnn.cluster.options import Timeouts
    from musegnn.cluster.train import train_on_cluster

    monkeypatch.setattr(run_monitor, "STALL_SECONDS", 2.0)
    store, config = helpers.make_run(tmp_path, n=4, rounds=10)
    folder = RunFolder.create(tmp_path / "run", config, store=store.path)
    seen = []
    stop = threading.Event()

    def look():
        path = folder.path / "status.json"
        while not stop.wait(0.2):
            if path.is_file():
                seen.extend(json.loads(path.read_text())["stalled"])

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        faults = Faults([[Fault(rank=1, phase="backward", round=6, how="stop")]], tmp_path / "faults")
        options = ClusterOptions(actors=2)
        train_on_cluster(folder, store, options, on_phase=faults, timeouts=Timeouts(silent=8.0))
    finally:
        stop.set()
        watcher.join()
    found = [re.search(r"rank 1: in phase \w+ .*of round (\d+) for \d+ s, silent for \d+ s", line) for line in seen]
    rounds = {int(match[1]) for match in found if match}
    assert rounds  # of the last heartbeat, which is up to a quarter of a second old
    assert max(rounds) <= 6
    assert any("rank 1" in record.getMessage() and "stacks" in record.getMessage() for record in caplog.records)
    MuSeGNN(store, config).train(tmp_path / "alone")
    assert helpers.units(folder.path) == helpers.units(tmp_path / "alone")
