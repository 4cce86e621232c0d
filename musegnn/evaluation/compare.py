"""Paired test over held-out genes of two models' retrieval.

Legend: Q held-out genes, P pairs of datasets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.evaluation.retrieval import PairRetrieval

    Floats = NDArray[np.float64]

RESAMPLES = 9999
BLOCK = 500
LEVEL = 0.05

Verdict = Literal["better", "tied", "worse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Difference in held-out MRR between a model and a baseline.

    Attributes
    ----------
    difference
        Overall MRR of the model minus that of the baseline, exactly as the summary reports them.
    low, high
        95 % bootstrap interval over genes.
    p_value
        Two-sided, from flipping the sign of whole genes.
    verdict
        ``tied`` unless `p_value` is below 0.05.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n_genes: int
    verdict: Verdict


def compare_retrieval(
    model: Sequence[PairRetrieval], baseline: Sequence[PairRetrieval], *, seed: int = 0
) -> Comparison | None:
    """Compare two models on the same held-out genes of the same pairs of datasets; None without held-out queries.

    The difference of the two overall MRRs is a sum of one term per gene, over all pairs of datasets in which the gene
    is a query. The gene is the unit of the test, since its terms in different pairs depend on each other. The result
    holds for other genes and these trained vectors, not for other training seeds.
    """
    scored = [(a.held_out, b.held_out) for a, b in zip(model, baseline, strict=True) if len(a.held_out.key)]
    if not scored:
        return None
    weight = np.concatenate([np.full(len(a.key), 1 / (len(scored) * len(a.key))) for a, _ in scored])
    differences = np.concatenate([a.reciprocal_rank - b.reciprocal_rank for a, b in scored])
    genes, code = np.unique(np.concatenate([a.key for a, _ in scored]), return_inverse=True)
    term = np.bincount(code, weights=weight * differences).astype(np.float64)
    mass = np.bincount(code, weights=weight).astype(np.float64)
    difference = float(term.sum())
    p_value = _sign_flip(term, seed)
    low, high = _bootstrap(term, mass, seed)
    verdict: Verdict = "tied" if p_value >= LEVEL else ("better" if difference > 0 else "worse")
    return Comparison(difference=difference, low=low, high=high, p_value=p_value, n_genes=len(genes), verdict=verdict)


def _sign_flip(term: Floats, seed: int) -> float:
    """Estimate how often random signs give a sum at least as far from 0; the observed one counts."""
    random = stream(seed, "sign_flip")
    observed = abs(term.sum()) * (1 - 1e-12)
    extreme = 1
    for start in range(0, RESAMPLES, BLOCK):
        rows = min(BLOCK, RESAMPLES - start)
        signs = random.integers(0, 2, (rows, len(term))) * 2 - 1
        extreme += int(np.count_nonzero(np.abs(signs @ term) >= observed))
    return extreme / (RESAMPLES + 1)


def _bootstrap(term: Floats, mass: Floats, seed: int) -> tuple[float, float]:
    """Compute the 95 % interval over genes drawn with replacement, each draw divided by its share of the weights."""
    random = stream(seed, "bootstrap")
    values = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, BLOCK):
        rows = min(BLOCK, RESAMPLES - start)
        drawn = random.integers(0, len(term), (rows, len(term)))
        values[start : start + rows] = term[drawn].sum(axis=1) / mass[drawn].sum(axis=1)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
