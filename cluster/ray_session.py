"""Connection to a running Ray cluster, or to a local one on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musegnn.errors import ConfigError, MissingDependencyError, MuseGNNError, RunError
from musegnn.text import one_line, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECT_STORE_BYTES = 256 * 2**20
CONNECT_SECONDS = 5.0


@contextmanager
def ray_session(address: str | None, *, cpus: int, metrics_port: int | None = None) -> Iterator[Any]:
    """Connect to Ray, yield its module, and stop what was started for it.

    Parameters
    ----------
    address
        ``auto`` or ``host:port`` of a running cluster; ``None``: the one that ``RAY_ADDRESS`` names, else, or for
        ``local``, a cluster of this process alone, whatever else runs on this machine. It has no dashboard and listens
        on the loopback interface only (unless the program has imported Ray before).
    cpus, metrics_port
        CPUs of a local cluster, and port of its Prometheus metrics; ``None``: Ray chooses.

    Raises
    ------
    ConfigError
        E305 when no cluster answers, which takes a few seconds at most.
    RunError
        E445 when Ray does not start here.
    MissingDependencyError
        E430 when Ray is missing.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address == "local":
        address = None
    if address is None and "ray" not in sys.modules:
        # Read when Ray is imported; without the second Ray listens on all interfaces, except on other systems.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        msg = f"Ray cannot be used ({error})"
        raise MissingDependencyError(msg, code="E430", fix="pip install ray pyarrow") from None
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "critical"}  # of ray.init
    if address is None:
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        options |= {"_metrics_export_port": metrics_port}
    else:
        _refuse_dead(address)
    try:
        ray.init(address=address or "local", **options)
    except Exception as error:  # Ray raises many types, bare ones among them
        raise _not_started(address, one_line(error, 160)) from error
    try:
        # Ray writes its messages to standard output, which is for results.
        with redirect_stdout(sys.stderr), _survivors_ended() if address is None else nullcontext():
            yield ray
    finally:
        ray.shutdown()


def _refuse_dead(address: str) -> None:
    """Refuse an address at which nothing listens: Ray itself would try for a quarter of an hour."""
    place = address
    if address == "auto":
        known = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")  # noqa: S108  where Ray is
        try:
            place = known.read_text(encoding="utf-8").strip()
        except OSError:
            return  # Ray looks for a cluster on this machine, which is quick
    host, _, port = place.rpartition("://")[2].rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS):
            return
    except (OSError, ValueError) as error:
        raise _not_started(address, f"{shorten(place, 60)}: {one_line(error, 80)}") from None


def _not_started(address: str | None, why: str) -> MuseGNNError:
    if address is None:
        fix = "run it again; where Ray was slow to start, set RAY_raylet_start_wait_time_s=120"
        return RunError(f"Ray did not start on this machine ({why})", code="E445", where="ray", fix=fix)
    fix = "correct the address or RAY_ADDRESS, or leave it out for a cluster of this process alone"
    return ConfigError(
        f"no Ray cluster answers at {shorten(address, 60)} ({why})", code="E305", where="address", fix=fix
    )


@contextmanager
def _survivors_ended() -> Iterator[None]:
    """End Ray's own processes with this one even if it is killed, which some of them notice only after a minute."""
    pids = [str(pid) for pid in _descendants(os.getpid()) if b"ray" in _command(pid)]
    with subprocess.Popen(  # noqa: S603  a fixed script and numbers
        ["/bin/sh", "-c", 'cat; kill -9 "$@" 2>/dev/null', "reaper", *pids],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as reaper:
        try:
            yield
        finally:
            reaper.kill()


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
