"""Sizes in bytes: what processes hold at least, and how sizes are read and written."""

from __future__ import annotations

import math
import re

from musegnn.errors import ConfigError

BUILD_PROCESS = 250 * 2**20
"""What a process that builds graphs takes before it reads counts."""
TRAINING_PROCESS = 520 * 10**6
"""What libraries take, and some of the freed blocks that the C library keeps; both differ between machines."""
OPTIMIZER = 160 * 10**6
"""What the first optimiser of torch loads, once per process that trains rounds."""
ACTOR_PROCESS = TRAINING_PROCESS + OPTIMIZER + 20 * 10**6
"""What an actor of a cluster takes before it reads data: as any process that trains, and Ray's libraries."""

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_bytes(text: str) -> int:
    """Read a size such as 6GB or 512MiB; anything else is ``ConfigError`` E302."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if match is None or match[2] not in UNITS:
        msg = f"expected a size such as 6GB or 512MiB, got {text!r}"
        raise ConfigError(msg, code="E302", where="--memory", fix="give a number and a unit")
    return int(float(match[1]) * UNITS[match[2]])


def format_bytes(n_bytes: float) -> str:
    """Return a size for reading.

    Examples
    --------
    >>> format_bytes(1_250_000_000), format_bytes(30_000_000)
    ('1.2 GB', '30 MB')
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def megabytes(n_bytes: float) -> str:
    """Return a size as the option ``--memory`` takes it, rounded up."""
    return f"{math.ceil(n_bytes / 10**6)}MB"
