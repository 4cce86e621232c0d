"""Kernel bandwidths and one-dimensional smoothing, as the R functions of the same names define them.

Legend: M points, Q places asked for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

EPSILON = float(np.finfo(np.float64).eps)
MAX_ROOT_STEPS = 1000
MAX_WIDENINGS = 99
SMOOTH_SIGMA = 0.3706506
SMOOTH_CUTOFF = 4.0
LARGEST_EXPONENT = 1000.0


def brent_root(function: Callable[[float], float], low: float, high: float, *, tolerance: float) -> float:
    """Find a root of a continuous function inside a bracket, at whose ends it differs in sign, by Brent's method.

    The stopping rule is part of the result: it ends as soon as the bracket around the best point is narrower than
    `tolerance` plus rounding, so a large tolerance gives a particular, reproducible approximation.

    References
    ----------
    Brent, R. P. (1973), Algorithms for Minimization without Derivatives, chapter 4, algorithm `zero`.

    Examples
    --------
    >>> round(brent_root(lambda x: x * x - 2.0, 0.0, 2.0, tolerance=1e-12), 9)
    1.414213562
    """
    before, best = low, high
    f_before, f_best = function(before), function(best)
    if f_before == 0.0:
        return before
    if f_best == 0.0:
        return best
    if f_before * f_best > 0.0:
        msg = f"expected values of opposite sign at {low} and {high}, got {f_before} and {f_best}"
        raise ValueError(msg)
    other, f_other = before, f_before
    for _ in range(MAX_ROOT_STEPS):
        last_step = best - before
        if abs(f_other) < abs(f_best):
            before, best, other = best, other, best
            f_before, f_best, f_other = f_best, f_other, f_best
        slack = 2.0 * EPSILON * abs(best) + tolerance / 2.0
        step = (other - best) / 2.0
        if abs(step) <= slack or f_best == 0.0:
            return best
        if abs(last_step) >= slack and abs(f_before) > abs(f_best):
            proposal = _interpolate(before, best, other, f_before, f_best, f_other)
            inside = abs(proposal) < 0.75 * abs(other - best) - slack / 2.0 and proposal * step > 0.0
            if inside and abs(proposal) < abs(last_step / 2.0):
                step = proposal
        if abs(step) < slack:
            step = math.copysign(slack, step)
        before, f_before = best, f_best
        best += step
        f_best = function(best)
        if (f_best > 0.0) == (f_other > 0.0):
            other, f_other = before, f_before
    return best


def _interpolate(a: float, b: float, c: float, fa: float, fb: float, fc: float) -> float:
    """Return the step from b to the root of the secant (a is c) or of the inverse parabola."""
    s = fb / fa
    if a == c:
        return (c - b) * s / (s - 1.0)
    q, t = fa / fc, fb / fc
    numerator = s * ((c - b) * q * (q - t) - (b - a) * (t - 1.0))
    return -numerator / ((q - 1.0) * (t - 1.0) * (s - 1.0))


def bandwidth_sj(x: NDArray[np.float64], *, bins: int = 1000) -> float:
    """Select a Gaussian bandwidth for a sample, shape (M,), by the solve-the-equation rule of Sheather and Jones.

    Distances are counted in `bins` of width ``1.01 range / bins``, and the equation is solved to a tolerance of a
    hundredth of the normal-scale upper bound, as R's ``bw.SJ`` does; with an exact root the dispersions of sctransform
    change by 3e-4.

    Raises
    ------
    ValueError
        When the sample is too small or too concentrated for the rule.

    References
    ----------
    Sheather, S. J. and Jones, M. C. (1991), J. R. Stat. Soc. B 53, 683-690, section 3.
    """
    n = len(x)
    scale = _spread(x, 1.349) if n > 1 else 0.0
    if not (np.isfinite(scale) and scale > 0.0):
        msg = f"expected a sample with a positive spread, got {n} values with spread {scale}"
        raise ValueError(msg)
    width, pairs = _distance_counts(x, bins)
    first = 1.0 / (2.0 * math.sqrt(math.pi) * n)
    curvature = -_phi6(pairs, 1.23 * scale * n ** (-1.0 / 9.0), n, width)
    if not (np.isfinite(curvature) and curvature > 0.0):
        msg = "the sample is too sparse for its bandwidth to be estimated"
        raise ValueError(msg)
    pilot = 1.357 * (_phi4(pairs, 1.24 * scale * n ** (-1.0 / 7.0), n, width) / curvature) ** (1.0 / 7.0)

    def equation(h: float) -> float:
        return float((first / _phi4(pairs, pilot * h ** (5.0 / 7.0), n, width)) ** 0.2) - h

    high = 1.144 * scale * n ** (-0.2)
    low = 0.1 * high
    tolerance = 0.1 * low
    for attempt in range(MAX_WIDENINGS):
        if equation(low) * equation(high) <= 0.0:
            return brent_root(equation, low, high, tolerance=tolerance)
        if attempt % 2 == 0:
            high *= 1.2
        else:
            low /= 1.2
    msg = "no solution of the bandwidth equation was found"
    raise ValueError(msg)


def bandwidth_nrd(x: NDArray[np.float64]) -> float:
    """Select a Gaussian bandwidth by Scott's normal reference rule, ``1.06 min(sd, IQR/1.34) M^-1/5``.

    References
    ----------
    Scott, D. W. (1992), Multivariate Density Estimation, Wiley, page 131.
    """
    return float(1.06 * _spread(x, 1.34) * np.float64(len(x)) ** -0.2)


def kernel_density(x: NDArray[np.float64], bandwidth: float, *, grid: int = 512) -> NDArray[np.float64]:
    """Estimate the density of a sample at its own points, shape (M,), with a Gaussian kernel.

    The estimate is evaluated on a regular grid of `grid` points that reaches three bandwidths beyond the sample, and
    interpolated linearly.
    """
    places = np.linspace(x.min() - 3.0 * bandwidth, x.max() + 3.0 * bandwidth, grid)
    kernel = np.exp(-0.5 * ((places[:, None] - x) / bandwidth) ** 2)
    density = kernel.sum(axis=1) / (len(x) * bandwidth * math.sqrt(2.0 * math.pi))
    at_points: NDArray[np.float64] = np.interp(x, places, density)
    return at_points


def smooth_normal(
    x: NDArray[np.float64], y: NDArray[np.float64], places: NDArray[np.float64], bandwidth: float
) -> NDArray[np.float64]:
    """Smooth y over x by a normal kernel with quartiles at plus and minus a quarter of the bandwidth, at Q places.

    The standard deviation is 0.3706506 times the bandwidth; points beyond four of them have no weight. Where no
    point has weight, the smooth is the nearest point's value.

    References
    ----------
    Nadaraya, E. A. (1964), Theory Probab. Appl. 9, 141-142; Watson, G. S. (1964), Sankhya A 26, 359-372.
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    sigma = SMOOTH_SIGMA * bandwidth
    first = np.searchsorted(x, places - SMOOTH_CUTOFF * sigma, side="left")
    last = np.searchsorted(x, places + SMOOTH_CUTOFF * sigma, side="right")
    result = np.empty(len(places))
    for q, place in enumerate(places):
        near = slice(first[q], last[q])
        weight = np.exp(-0.5 * ((x[near] - place) / sigma) ** 2)
        total = weight.sum()
        result[q] = weight @ y[near] / total if total > 0.0 else y[np.argmin(np.abs(x - place))]
    return result


def _spread(x: NDArray[np.float64], normal_iqr: float) -> float:
    """Return the smaller of the standard deviation and the scaled interquartile range."""
    low, high = np.quantile(x, [0.25, 0.75])
    return float(min(np.std(x, ddof=1), (high - low) / normal_iqr))


def _distance_counts(x: NDArray[np.float64], bins: int) -> tuple[float, NDArray[np.float64]]:
    """Count unordered pairs of points by their distance in bins."""
    width = float(np.ptp(x)) * 1.01 / bins
    place = np.trunc(x / width).astype(np.int64)
    histogram = np.bincount(place - place.min(), minlength=bins).astype(np.float64)
    size = len(histogram)
    pairs = np.correlate(histogram, histogram, mode="full")[size - 1 :]
    pairs[0] = (histogram * (histogram - 1.0)).sum() / 2.0
    return width, pairs


def _phi4(pairs: NDArray[np.float64], h: float, n: int, width: float) -> float:
    """Estimate the integral of f times the fourth derivative of its kernel estimate."""
    u = _squares(pairs, h, width)
    total = 2.0 * float((np.exp(-u / 2.0) * (u * u - 6.0 * u + 3.0)) @ pairs[: len(u)]) + 3.0 * n
    return total / (n * (n - 1.0) * h**5 * math.sqrt(2.0 * math.pi))


def _phi6(pairs: NDArray[np.float64], h: float, n: int, width: float) -> float:
    """Estimate the integral of f times the sixth derivative of its kernel estimate."""
    u = _squares(pairs, h, width)
    total = 2.0 * float((np.exp(-u / 2.0) * (u**3 - 15.0 * u * u + 45.0 * u - 15.0)) @ pairs[: len(u)]) - 15.0 * n
    return total / (n * (n - 1.0) * h**7 * math.sqrt(2.0 * math.pi))


def _squares(pairs: NDArray[np.float64], h: float, width: float) -> NDArray[np.float64]:
    """Return the squared scaled distances of the bins that contribute."""
    u = np.square(np.arange(len(pairs), dtype=np.float64) * (width / h))
    squares: NDArray[np.float64] = u[u < LARGEST_EXPONENT]
    return squares
