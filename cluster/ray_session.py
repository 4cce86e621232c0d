"""Connection to a running Ray cluster, or to a local one on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musegnn.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECT_STORE_BYTES = 256 * 2**20


@contextmanager
def ray_session(address: str | None, *, cpus: int, metrics_port: int | None = None) -> Iterator[Any]:
    """Connect to Ray, yield its module, and stop what was started for it.

    Parameters
    ----------
    address
        ``auto`` or ``host:port`` of a running cluster; ``None``: the one that ``RAY_ADDRESS`` names, else a local
        cluster, which has no dashboard and listens on the loopback interface only (unless the program has imported
        Ray before).
    cpus, metrics_port
        CPUs of a local cluster, and port of its Prometheus metrics; ``None``: Ray chooses.

    Raises
    ------
    ConfigError
        E305 when no cluster answers.
    MissingDependencyError
        E430 when Ray is missing.
    """
    address = address or os.environ.get("RAY_ADDRESS")
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
    try:
        ray.init(address=address, **options)
    except ConnectionError as error:
        msg = f"no Ray cluster answers at {address} ({error})"
        raise ConfigError(msg, code="E305", where="address", fix="start one with `ray start --head`") from None
    try:
        # Ray writes its messages to standard output, which is for results.
        with redirect_stdout(sys.stderr), _survivors_ended() if address is None else nullcontext():
            yield ray
    finally:
        ray.shutdown()


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
