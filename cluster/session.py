"""A connection to Ray: to the cluster that runs, or to one of our own on this machine."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from musegnn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECT_STORE_BYTES = 256 * 2**20
SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A frozen or lost node is noticed in seconds; Ray's own default is more than a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}


@contextmanager
def ray_session(address: str | None, *, cpus: int, metrics_port: int | None = None) -> Iterator[Any]:
    """Connect to Ray, and stop what was started for it.

    Parameters
    ----------
    address
        ``auto`` or ``host:port`` of a cluster that runs; ``None``: the one that ``RAY_ADDRESS`` names, else a cluster
        of our own on this machine, which listens on the loopback interface only and has no dashboard.
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
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        msg = f"Ray cannot be used ({error})"
        raise ConfigError(msg, code="E303", where="scheduler", fix="pip install ray pyarrow") from None
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}  # of ray.init
    if address is None:
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        options |= {"_node_ip_address": "127.0.0.1", "_metrics_export_port": metrics_port}
    try:
        ray.init(address=address, **options)
    except ConnectionError as error:
        msg = f"no Ray cluster answers at {address} ({error})"
        raise ConfigError(msg, code="E303", where="address", fix="start one with `ray start --head`") from None
    try:
        yield ray
    finally:
        ray.shutdown()
