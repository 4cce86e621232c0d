"""Random numbers as a function of what they are for, never of the order of calls.

Every draw comes from a Philox counter stream keyed by ``(seed, purpose, ids...)``. No generator state is
kept between calls, so nothing about randomness has to be checkpointed, and the same draw is made whatever
process, thread or order asks for it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream(seed: int, purpose: str, *ids: int | str) -> np.random.Generator:
    """Make the generator that belongs to one purpose.

    Parameters
    ----------
    seed
        The run's seed, any integer.
    purpose
        What the numbers are for, e.g. ``"partner"`` or ``"holdout_edges"``.
    *ids
        What identifies the draw within the purpose: round, dataset name, ...

    Returns
    -------
    numpy.random.Generator
        A fresh Philox generator. Two calls with equal arguments give equal streams.

    Examples
    --------
    >>> a = stream(0, "partner", 3, "lung").integers(0, 100, 4)
    >>> b = stream(0, "partner", 3, "lung").integers(0, 100, 4)
    >>> bool((a == b).all())
    True
    """
    text = "\x1f".join([str(int(seed)), purpose, *map(str, ids)])
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def torch_generator(seed: int, purpose: str, *ids: int | str) -> torch.Generator:
    """Make a CPU torch generator keyed like :func:`stream`.

    Returns
    -------
    torch.Generator
        Seeded with 63 bits of the same key.
    """
    import torch

    word = int(stream(seed, purpose, *ids).integers(0, 2**63 - 1))
    return torch.Generator().manual_seed(word)
