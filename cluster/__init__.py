"""Engines: dask for graphs, Ray actors for training."""

import os

# Ray reads these once, when it is first imported.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A frozen or lost node is noticed in seconds; Ray's own default is more than a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}.items():
    os.environ.setdefault(_name, _value)
