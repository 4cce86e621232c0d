"""Compile what builds use before threads start.

Compilation in several threads at a time repeats work, and CPython 3.11 can fail there (``SystemError: AST constructor
recursion depth mismatch``, as its parser keeps that depth per interpreter rather than per thread).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.sparse import csr_matrix

from musegnn.coexpression.build import build_dataset
from musegnn.config import DatasetConfig, GraphConfig
from musegnn.data_store import ArraySource
from musegnn.random import stream


@cache
def warm_up() -> None:
    """Build the graph of a tiny dataset both ways; done once per process."""
    rng = stream(0, "warm_up")
    counts = csr_matrix(rng.poisson(3.0, (64, 12)).astype(np.int32))
    source = ArraySource(counts, [f"G{j}" for j in range(12)], coords=rng.uniform(size=(64, 2)), name="warm-up")
    for modality in ("scrna", "spatial"):
        dataset = DatasetConfig.model_validate(
            {"name": "warm-up", "path": "warm-up", "modality": modality, "tissue": "none", "species": "none"}
        )
        build_dataset(source, dataset, GraphConfig())
