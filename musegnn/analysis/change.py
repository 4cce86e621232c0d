"""Change of co-expression between two conditions, per gene, against what chance and the background explain.

The statistic z of a pair is, where nothing changes, its correlation times the power of either condition, so that

    t = (P_A z_B - P_B z_A) / sqrt(P_A^2 + P_B^2),    P = sqrt(p_j p_k),    p_j = sqrt(n) f_j

has mean 0 and, for equal powers, is ``(z_B - z_A) / sqrt(2)``. Here f_j is the share of a gene's variance that is not
sampling noise: a gene whose expression doubles gains power, and no t. The change of a gene is the mean of
``log(1 + t^2)`` over its partners; the logarithm keeps a few pairs, such as those of a handful of odd cells, from
deciding. It is judged in two steps: against halves of the cells of one condition, split at random, which say what
chance gives each gene; and against the genes of about the same strength, most of which are taken to change as little as
two samples of the same condition do.

Legend: N genes, S splits, n cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.ndimage import percentile_filter
from scipy.stats import false_discovery_control

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

WINDOW = 0.12
"""Share of the genes that a running median is taken over, and the fewest of them."""
LEAST_WINDOW = 101
PRIOR_FREEDOM = 8.0
"""Degrees of freedom with which the deviation of a gene over splits is drawn to that of all genes."""
LEAST_SIGNAL = 0.01
"""Smallest squared coefficient of variation of the expression behind the counts."""


class Coexpression(NamedTuple):
    """Test statistics of all pairs in some cells, (N, N), NaN on the diagonal, and the power of each gene, (N,)."""

    z: Floats
    power: Floats

    @property
    def strength(self) -> Floats:
        """Mean of z squared over the partners of each gene; 1 for none, shape (N,)."""
        tested = np.isfinite(self.z)
        n = tested.sum(axis=1)
        total = (np.where(tested, self.z, 0.0) ** 2).sum(axis=1)
        result: Floats = np.divide(total, n, out=np.ones(len(n)), where=n > 0)
        return result


def power_of(mu: Floats, sigma: Floats, depth: float, n_cells: int) -> Floats:
    """Return the power of each gene: what z is expected to be for a pair of such genes with correlation 1."""
    variance = np.maximum(sigma, LEAST_SIGNAL * mu**2)
    noise = mu + depth * np.maximum(sigma, 0.0)
    power: Floats = np.sqrt(n_cells) * depth * np.divide(variance, noise, out=np.zeros_like(mu), where=noise > 0)
    return power


def combine(parts: Sequence[Coexpression]) -> Coexpression:
    """Join datasets of one group, each tested by itself, weighted by their powers."""
    if len(parts) == 1:
        return parts[0]
    weights = [np.sqrt(np.outer(part.power, part.power)) for part in parts]
    total = np.sqrt(sum(weight**2 for weight in weights))
    joined = sum(weight * np.nan_to_num(part.z) for weight, part in zip(weights, parts, strict=True))
    z = np.divide(joined, total, out=np.full_like(total, np.nan), where=total > 0)
    np.fill_diagonal(z, np.nan)
    return Coexpression(z, np.sqrt(sum(part.power**2 for part in parts)))


def changes(a: Coexpression, b: Coexpression) -> Floats:
    """Return t of every pair, shape (N, N), positive where b has more than a."""
    p_a, p_b = np.sqrt(np.outer(a.power, a.power)), np.sqrt(np.outer(b.power, b.power))
    size = np.sqrt(p_a**2 + p_b**2)
    result: Floats = np.divide(p_a * b.z - p_b * a.z, size, out=np.full_like(size, np.nan), where=size > 0)
    return result


def log_change(t: Floats) -> Floats:
    """Return the logarithm of the change of each gene, shape (N,), NaN for genes without a tested pair."""
    with np.errstate(invalid="ignore", divide="ignore"):
        tested = np.isfinite(t)
        total = np.log1p(np.where(tested, t, 0.0) ** 2).sum(axis=1)
        result: Floats = np.log(total / tested.sum(axis=1))
    return result


class Draw(NamedTuple):
    """Logarithm of the change of each gene between two conditions or halves, and the lesser of their strengths."""

    change: Floats
    strength: Floats


def draw(a: Coexpression, b: Coexpression) -> Draw:
    """Compare two conditions, or two halves of one."""
    return Draw(log_change(changes(a, b)), np.log(np.minimum(a.strength, b.strength)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How the change of each gene compares, each of shape (N,).

    Attributes
    ----------
    ratio
        Change over that of genes of the same strength and chance.
    p_value
        Share of genes between random halves that stand out as far, after Phipson and Smyth (2010); of genes that change
        less than those like them, only the rank.
    q_value
        False discovery rate by Benjamini and Hochberg.
    background
        Median change over that between halves: 1 where the two conditions differ as halves of one do.
    """

    ratio: Floats
    p_value: Floats
    q_value: Floats
    background: float


def judge(observed: Draw, chance: Sequence[Sequence[Draw]]) -> Judgement:
    """Judge the changes of all genes by draws in which nothing changes.

    Parameters
    ----------
    observed
        Draw of the two conditions.
    chance
        Draws of each source of chance, at least three of each: of halves of one condition, or of groups with their
        labels permuted.
    """
    known = np.isfinite(observed.change)
    groups = [np.stack([np.where(np.isfinite(d.change), d.change, np.nan) for d in group]) for group in chance]
    groups = [np.where(np.isfinite(g), g, np.nanmedian(g, axis=1, keepdims=True)) for g in groups]
    expected = np.mean([group.mean(axis=0) for group in groups], axis=0)
    change = np.where(known, observed.change, expected)
    deviation = _deviation([group - group.mean(axis=0) for group in groups])
    found, typical = _standardised(change, observed.strength, expected, deviation)
    reference = []
    for group, draws in zip(groups, chance, strict=True):
        for k, each in enumerate(draws):
            others = np.delete(group, k, axis=0)
            mean = others.mean(axis=0)
            reference.append(_standardised(group[k], each.strength, mean, _deviation([others - mean]))[0])
    pool = np.sort(np.concatenate(reference))
    above = len(pool) - np.searchsorted(pool, found, side="left")
    p_value = np.where(found > 0, (1 + above) / (1 + len(pool)), 1.0 - np.argsort(np.argsort(found)) / len(found))
    p_value = np.where(known, p_value, 1.0)
    return Judgement(
        ratio=np.exp(change - typical),
        p_value=p_value,
        q_value=false_discovery_control(p_value),
        background=float(np.exp(np.median(change - expected))),
    )


def _deviation(residuals: Sequence[Floats]) -> Floats:
    """Return the deviation of each gene over draws, drawn to that of all (Smyth 2004, SAGMB 3:3)."""
    freedom = sum(len(part) - 1 for part in residuals)
    variance = sum((part**2).sum(axis=0) for part in residuals) / freedom
    typical = max(float(np.median(variance)), 1e-12)
    result: Floats = np.sqrt((PRIOR_FREEDOM * typical + freedom * variance) / (PRIOR_FREEDOM + freedom))
    return result


def _standardised(change: Floats, strength: Floats, expected: Floats, deviation: Floats) -> tuple[Floats, Floats]:
    """Return how far each gene stands above those like it, in units of their spread, and what is typical.

    Changed genes widen the upper spread, so that the lower one counts where it is smaller.
    """
    typical = _running(strength, change, 50)
    beyond = expected - _running(strength, expected, 50)
    typical = typical + _running(beyond, change - typical, 50)
    residual = (change - typical) / deviation
    low, middle, high = (_running(strength, residual, percent) for percent in (25, 50, 75))
    spread = np.minimum(middle - low, high - middle)
    return residual / np.maximum(spread, 1e-12), typical


def _running(x: Floats, y: Floats, percent: int) -> Floats:
    """Return a running percentile of y over genes in the order of x."""
    order = np.argsort(x, kind="stable")
    size = min(max(int(WINDOW * len(x)), LEAST_WINDOW), len(x)) | 1
    result = np.empty(len(x))
    result[order] = percentile_filter(y[order], percent, size=size, mode="mirror")
    return result
