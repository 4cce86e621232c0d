"""A connection to Ray: to the cluster that runs, or to one of our own on this machine."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from musegnn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECT_STORE_BYTES = 256 * 2**20


@contextmanager
def ray_session(address: str | None, *, cpus: int, metrics_port: int | None = None) -> Iterator[Any]:
    """Connect to Ray, and stop what was started for it.

    Parameters
    ----------
    address
        ``auto`` or ``host:port`` of a cluster that runs; ``None``: the one that ``RAY_ADDRESS`` names, else a cluster
        of our own on this machine, which has no dashboard and listens on the loopback interface only (unless the
        program has imported Ray before).
    cpus
        CPUs that a cluster of our own offers.
    metrics_port
        Port at which a cluster of our own offers its metrics to Prometheus; ``None``: Ray chooses.

    Yields
    ------
    module
        ``ray``, connected.

    Raises
    ------
    ConfigError
        E303 when Ray is missing, or no cluster answers.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        # Read when Ray is imported; without it Ray listens on all interfaces, except on other systems than Linux.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        msg = f"Ray cannot be used ({error})"
        raise ConfigError(msg, code="E303", where="scheduler", fix="pip install ray pyarrow") from None
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
        raise ConfigError(msg, code="E303", where="address", fix="start one with `ray start --head`") from None
    try:
        with redirect_stdout(sys.stderr):  # where Ray writes its messages, standard output is for results
            yield ray
    finally:
        ray.shutdown()
