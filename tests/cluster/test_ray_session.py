"""A cluster of this process alone unless another one is asked for, and an answer in seconds where there is none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from musegnn.cluster.ray_session import ray_session
from musegnn.errors import RunError

OWN = """
from musegnn.cluster.ray_session import ray_session
with ray_session(None, cpus=1) as ray:
    found = len(ray.nodes()), int(ray.cluster_resources()["CPU"])
print(*found)
"""
ASK = """
import sys
from musegnn.cluster.ray_session import ray_session
from musegnn.errors import MuseGNNError
try:
    with ray_session(sys.argv[1] or None, cpus=1):
        print("connected")
except MuseGNNError as error:
    print(error.line())
"""
UNGUARDED = """
from musegnn.cluster.schedulers import open_workers
with open_workers("distributed") as workers:
    print("workers", workers.count)
"""


@pytest.fixture
def place():
    """Make a folder for Ray's files with a path that is short enough for its sockets."""
    with tempfile.TemporaryDirectory(prefix="mg", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def run(script, *arguments, **environment):
    environment = {key: value for key, value in (os.environ | environment).items() if value != ""}
    command = [sys.executable, "-c", script, *arguments]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, time.monotonic() - started


def unused_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def leave_address(place, address):
    (place / "ray").mkdir(exist_ok=True)
    (place / "ray" / "ray_current_cluster").write_text(address)


def test_a_dead_address_is_answered_in_one_line(place):
    dead = f"127.0.0.1:{unused_port()}"
    leave_address(place, dead)
    for address, variable in ((dead, ""), ("", dead), ("auto", ""), (f"ray://{dead}", "")):
        text, seconds = run(ASK, address, RAY_ADDRESS=variable, RAY_TMPDIR=str(place))
        assert text.startswith("error[E305] address: no Ray cluster answers at "), text
        assert text.count("\n") == 1
        assert " Fix: " in text
        assert seconds < 60  # of which Ray's import takes most on a busy machine; the answer comes within 5


def test_a_start_that_fails_is_one_line(monkeypatch):
    import ray

    def slow(**_):
        msg = "The current node timed out during startup.\nThis could happen because ..."
        raise Exception(msg)  # noqa: TRY002  as Ray does

    monkeypatch.setattr(ray, "init", slow)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(RunError, match=r"E445.*Ray did not start on this machine \(The current node") as caught:
        ray_session(None, cpus=1).__enter__()
    assert "\n" not in caught.value.line()


@pytest.mark.slow
def test_an_address_left_by_a_dead_cluster_is_not_used(place):
    leave_address(place, f"127.0.0.1:{unused_port()}")
    proxy = "http://127.0.0.1:9"
    environment = {"http_proxy": proxy, "https_proxy": proxy, "grpc_proxy": proxy}
    assert run(OWN, RAY_ADDRESS="", RAY_TMPDIR=str(place), **environment)[0] == "1 1\n"


@pytest.mark.slow
def test_a_foreign_cluster_that_runs_is_left_alone(place):
    environment = os.environ | {"RAY_TMPDIR": str(place)}
    port = unused_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}", "--num-cpus=3"]
    command += ["--include-dashboard=false", "--block", "--object-store-memory=80000000"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as head:
        try:
            known = place / "ray" / "ray_current_cluster"
            for _ in range(600):
                if known.exists():
                    break
                time.sleep(0.2)
            assert known.exists()
            assert run(OWN, RAY_ADDRESS="", RAY_TMPDIR=str(place))[0] == "1 1\n"
        finally:
            head.terminate()
            head.wait(60)


def test_a_script_without_main_guard_runs_on_a_cluster_of_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"workers {len(os.sched_getaffinity(0))}\n"
    assert done.stderr == ""
