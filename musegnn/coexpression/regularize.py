"""Regularised negative binomial parameters: smooth functions of a gene's geometric mean.

Legend: G genes, M step-1 genes (those with parameters of their own).

References
----------
Choudhary, S. and Satija, R. (2022), Genome Biol. 23, 27 (sctransform v2). Hafemeister, C. and Satija, R. (2019),
Genome Biol. 20, 296.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musegnn.coexpression.bandwidth import bandwidth_sj, smooth_normal

if TYPE_CHECKING:
    from numpy.typing import NDArray

BANDWIDTH_FACTOR = 3.0
OUTLIER_SCORE = 10.0
MAD_TO_SD = 1.4826
POISSON_MEAN = 1e-3
MIN_TREND_GENES = 10
EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOne:
    """Parameters of the genes that were fitted one by one, at ascending positions `genes` among all, shape (M,).

    They are the negative binomial size `theta`, ``inf`` where the counts are not over-dispersed, and the `intercept`,
    the natural logarithm of the expected count per unit of depth.
    """

    genes: NDArray[np.int64]
    theta: NDArray[np.float64]
    intercept: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularized:
    """Parameters of all genes after smoothing, shapes (G,).

    `poisson` genes are not over-dispersed or too rare; `outlier` marks the step-1 genes left out of the smoothing,
    shape (M,); `bandwidth` is on the scale of log10 geometric means, NaN where no trend was fitted.
    """

    theta: NDArray[np.float64]
    intercept: NDArray[np.float64]
    poisson: NDArray[np.bool_]
    outlier: NDArray[np.bool_]
    bandwidth: float

    @property
    def has_trend(self) -> bool:
        """Whether there were enough over-dispersed genes to smooth over."""
        return bool(np.isfinite(self.bandwidth))


def regularize(
    step_one: StepOne,
    *,
    geometric_mean: NDArray[np.float64],
    mean: NDArray[np.float64],
    variance: NDArray[np.float64],
    mean_filtered_depth: float,
) -> Regularized:
    """Replace noisy parameters of single genes by a smooth function of their abundance.

    The dispersion ``log10(1 + gmean / theta)`` and the intercept of step-1 genes are smoothed over log10 gmean by a
    normal kernel, three times the Sheather-Jones bandwidth wide. Outliers and Poisson genes (variance at most the
    mean, or mean below 1e-3) take no part. Poisson genes get ``theta = inf`` and
    ``intercept = log(mean / mean_filtered_depth)``.

    With fewer than ten genes to smooth over, or no bandwidth, there is no trend: over-dispersed step-1 genes keep
    their own parameters and all others get the Poisson ones.

    Parameters
    ----------
    step_one
        Parameters of M genes.
    geometric_mean, mean, variance
        Moments of the counts of all genes (``exp(mean log(x + 1)) - 1``, positive; variance with ddof 1), shapes (G,).
    mean_filtered_depth
        Mean over cells of the summed counts of the G genes.
    """
    poisson = (variance <= mean) | (mean < POISSON_MEAN)
    theta = np.full(len(mean), np.inf)
    intercept = np.log(mean) - np.log(mean_filtered_depth)
    log_mean = np.log10(geometric_mean)
    x = log_mean[step_one.genes]
    dispersion = np.log10(1.0 + geometric_mean[step_one.genes] / step_one.theta)
    bandwidth = np.nan
    outlier = np.isinf(step_one.theta)
    if len(x) >= MIN_TREND_GENES:
        outlier = outlier | flag_outliers(dispersion, x) | flag_outliers(step_one.intercept, x)
    used = ~outlier & ~poisson[step_one.genes]
    if used.sum() >= MIN_TREND_GENES:
        bandwidth = BANDWIDTH_FACTOR * _bandwidth(x[used])
    if np.isfinite(bandwidth):
        free = ~poisson
        places = np.clip(log_mean[free], x[used].min(), x[used].max())
        smooth = smooth_normal(x[used], dispersion[used], places, bandwidth)
        theta[free] = geometric_mean[free] / (10.0**smooth - 1.0)
        intercept[free] = smooth_normal(x[used], step_one.intercept[used], places, bandwidth)
    else:
        own = ~np.isinf(step_one.theta) & ~poisson[step_one.genes]
        theta[step_one.genes[own]] = step_one.theta[own]
        intercept[step_one.genes[own]] = step_one.intercept[own]
    return Regularized(theta=theta, intercept=intercept, poisson=poisson, outlier=outlier, bandwidth=float(bandwidth))


def flag_outliers(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Flag values y far from the median of those at similar x, shape (M,).

    Scores ``(y - median) / (1.4826 MAD)`` are taken within bins of x, twice, with bins shifted by half a width; a
    value is an outlier where both scores exceed 10 in size. There is none where x is too concentrated for a bandwidth.
    """
    bandwidth = _bandwidth(x)
    if not np.isfinite(bandwidth):
        return np.zeros(len(y), np.bool_)
    width = np.ptp(x) * bandwidth / 2.0
    start = x.min() - 10.0 * EPSILON
    scores = [_binned_scores(y, x, begin, width) for begin in (start, start - width / 2.0)]
    flags: NDArray[np.bool_] = np.minimum(*scores) > OUTLIER_SCORE
    return flags


def _bandwidth(x: NDArray[np.float64]) -> float:
    """Return the Sheather-Jones bandwidth, or NaN where the sample does not determine one."""
    try:
        return bandwidth_sj(x)
    except ValueError:
        return float("nan")


def _binned_scores(y: NDArray[np.float64], x: NDArray[np.float64], start: float, width: float) -> NDArray[np.float64]:
    """Return absolute robust scores within bins open on the left, closed on the right."""
    breaks = start + width * np.arange(int((x.max() + width - start) / width) + 2)
    bins = np.searchsorted(breaks, x, side="left")
    scores = np.empty(len(y))
    for b in np.unique(bins):
        inside = bins == b
        deviation = y[inside] - np.median(y[inside])
        scores[inside] = np.abs(deviation) / (MAD_TO_SD * np.median(np.abs(deviation)) + EPSILON)
    return scores
