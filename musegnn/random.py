"""Random numbers as a function of their purpose, never of the order of calls.

Every draw comes from a Philox counter stream keyed by ``(seed, purpose, ids...)``, whatever process, thread or order
asks for it, and no state of a generator has to be checkpointed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream(seed: int, purpose: str, *ids: int | str) -> np.random.Generator:
    """Return the generator of one purpose, such as ``"partner"``, and of `ids` within it, such as round and dataset.

    Examples
    --------
    >>> a, b = (stream(0, "partner", 3, "lung").integers(0, 100, 4) for _ in range(2))
    >>> bool((a == b).all())
    True
    """
    text = "\x1f".join([str(int(seed)), purpose, *map(str, ids)])
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def torch_generator(seed: int, purpose: str, *ids: int | str) -> torch.Generator:
    """Return a CPU torch generator with 63 bits of the key of :func:`stream`."""
    import torch

    word = int(stream(seed, purpose, *ids).integers(0, 2**63 - 1))
    return torch.Generator().manual_seed(word)
