"""Safeguarded Newton iterations per gene, compiled; derivation in the README of this kernel.

Legend: E non-zeros, G genes, R distinct (gene, count) pairs, U distinct depths.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.kernels.nb_intercept.api import Problem
    from musegnn.kernels.validation import Floats, Ints

    Tails = tuple[Ints, Ints, Floats]

LOG_D_MIN = math.log(1e-16)
LOG_D_MAX = math.log(1e16)
D_PROBE = 1e-8
NEWTON_STEPS = 100
SERIES_BELOW = 1e-2
SMOOTH_FROM = 64
SHORT_RUN = 32


@numba.njit(nogil=True, cache=True)
def _entries(problem: Problem, j: int) -> tuple[NDArray[np.number], Floats]:
    """Return the counts of gene j above zero, and the depths of their cells."""
    part = slice(problem.indptr[j], problem.indptr[j + 1])
    return problem.data[part], problem.depth[part]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _intercept_score(b: float, d: float, problem: Problem, j: int) -> tuple[float, float]:
    """Return the score and the expected decrease of the score per unit of intercept."""
    data, depth = _entries(problem, j)
    levels, cells = problem.levels, problem.cells
    rate = math.exp(b)
    score = 0.0
    slope = 0.0
    for u in range(levels.shape[0]):
        mu = rate * levels[u]
        scale = 1.0 / (1.0 + mu * d)
        score -= cells[u] * (mu * scale)
        slope += cells[u] * (mu * scale * scale)
    for e in range(data.shape[0]):
        mu = rate * depth[e]
        scale = 1.0 / (1.0 + mu * d)
        score += data[e] * scale
        slope += data[e] * d * mu * scale * scale
    return score, slope


@numba.njit(nogil=True, cache=True, error_model="numpy")
def fit_intercept(problem: Problem, dispersion: Floats, start: Floats) -> Floats:
    """Find the root of the score of each gene."""
    result = np.empty(start.shape[0])
    for j in range(start.shape[0]):
        b = start[j]
        settled = False
        for _ in range(NEWTON_STEPS):
            score, slope = _intercept_score(b, dispersion[j], problem, j)
            step = score / slope
            b += step
            if abs(step) < 1e-8:
                settled = True
                break
        if not settled:
            low = -30.0
            high = 30.0
            for _ in range(64):
                b = 0.5 * (low + high)
                if _intercept_score(b, dispersion[j], problem, j)[0] > 0.0:
                    low = b
                else:
                    high = b
        result[j] = b
    return result


@numba.njit(nogil=True, cache=True, error_model="numpy")
def log_ratio(t: float) -> tuple[float, float]:
    """Return ``(t/(1+t) - log(1+t)) / t^2`` and its derivative, by series for small t."""
    if t < SERIES_BELOW:
        value = 0.0
        slope = 0.0
        power = 1.0
        sign = -1.0
        for m in range(9):
            value += sign * (m + 1.0) / (m + 2.0) * power
            slope -= sign * (m + 1.0) * (m + 2.0) / (m + 3.0) * power
            power *= t
            sign = -sign
        return value, slope
    value = (t / (1.0 + t) - math.log1p(t)) / (t * t)
    return value, -1.0 / (t * (1.0 + t) * (1.0 + t)) - 2.0 * value / t


@numba.njit(nogil=True, cache=True, error_model="numpy")
def sum_run(begin: float, end: float, d: float) -> tuple[float, float]:
    """Return the sums of ``k / (1 + k d)`` and of its square over begin <= k < end, where begin is at least 64.

    Euler and Maclaurin's formula, README equations (7) to (9).
    """
    length = end - begin
    low = 1.0 / (1.0 + begin * d)
    high = 1.0 / (1.0 + end * d)
    v = length * d * low
    value, slope = log_ratio(v)
    inner = 1.0 / (1.0 + v)
    first = length * low * (begin * (inner - v * value) + length * (inner + value))
    second = (
        length
        * low
        * low
        * (begin * begin * inner - 2.0 * begin * length * value + length * length * (inner * inner - slope))
    )
    at_low = begin * low
    at_high = end * high
    first -= 0.5 * (at_high - at_low)
    second -= 0.5 * (at_high * at_high - at_low * at_low)
    low2, high2, d2 = low * low, high * high, d * d
    first += (high2 - low2) / 12.0
    second += (at_high * high2 - at_low * low2) / 6.0
    first -= d2 * (high2 * high2 - low2 * low2) / 120.0
    first += d2 * d2 * (high2 * high2 * high2 - low2 * low2 * low2) / 252.0
    second += d * (high2 * high2 * (2.0 * high - 1.0) - low2 * low2 * (2.0 * low - 1.0)) / 60.0
    return first, second


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _dispersion_score(
    d: float, problem: Problem, tails: Tails, j: int, rate: float, cox_reid: float
) -> tuple[float, float]:
    """Return the first and second derivative in d of the adjusted profile likelihood."""
    data, depth = _entries(problem, j)
    levels, cells = problem.levels, problem.cells
    part = slice(tails[0][j - 1] if j > 0 else 0, tails[0][j])
    values, tail = tails[1][part], tails[2][part]
    first = 0.0
    second = 0.0
    k = 1
    for r in range(values.shape[0]):
        end = values[r]
        smooth = max(k, SMOOTH_FROM)
        for each in range(k, smooth if end - smooth > SHORT_RUN else end):
            ratio = each / (1.0 + each * d)
            first += tail[r] * ratio
            second -= tail[r] * (ratio * ratio)
        if end - smooth > SHORT_RUN:
            sums = sum_run(float(smooth), float(end), d)
            first += tail[r] * sums[0]
            second -= tail[r] * sums[1]
        k = max(k, end)
    w = 0.0
    w_first = 0.0
    w_second = 0.0
    for u in range(levels.shape[0]):
        mu = rate * levels[u]
        value, slope = log_ratio(mu * d)
        first -= cells[u] * (mu * mu * value)
        second -= cells[u] * (mu * mu * mu * slope)
        ratio = mu / (1.0 + mu * d)
        w += cells[u] * ratio
        w_first -= cells[u] * (ratio * ratio)
        w_second += cells[u] * (2.0 * ratio * ratio * ratio)
    for e in range(data.shape[0]):
        mu = rate * depth[e]
        ratio = mu / (1.0 + mu * d)
        first -= data[e] * ratio
        second += data[e] * (ratio * ratio)
    first -= 0.5 * cox_reid * w_first / w
    second -= 0.5 * cox_reid * (w_second / w - (w_first / w) ** 2)
    return first, second


@numba.njit(nogil=True, cache=True, error_model="numpy")
def fit_dispersion(problem: Problem, tails: Tails, rate: Floats, start: Floats, cox_reid: float) -> Floats:
    """Find the maximum uphill of the start of each gene."""
    result = np.empty(start.shape[0])
    for j in range(start.shape[0]):
        if _dispersion_score(D_PROBE, problem, tails, j, rate[j], cox_reid)[0] < 0.0:
            result[j] = 0.0
        else:
            result[j] = math.exp(_climb(math.log(start[j]), problem, tails, j, rate[j], cox_reid))
    return result


@numba.njit(nogil=True, cache=True)
def tail_counts(indptr: NDArray[np.integer], data: NDArray[np.number]) -> Tails:
    """Count for each distinct count of each gene the entries at or above it; ends (G,), counts (R,), tails (R,)."""
    n_genes = indptr.shape[0] - 1
    ends = np.empty(n_genes, dtype=np.int64)
    values = np.empty(data.shape[0], dtype=np.int64)
    tails = np.empty(data.shape[0])
    total = 0
    for j in range(n_genes):
        x = np.sort(data[indptr[j] : indptr[j + 1]])
        for e in range(x.shape[0]):
            if e == 0 or x[e] != x[e - 1]:
                values[total] = int(x[e])
                tails[total] = x.shape[0] - e
                total += 1
        ends[j] = total
    return ends, values[:total].copy(), tails[:total].copy()


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _climb(log_d: float, problem: Problem, tails: Tails, j: int, rate: float, cox_reid: float) -> float:
    """Bracket the maximum by doubling steps uphill, then Newton in log d kept inside the bracket."""
    log_d = min(max(log_d, LOG_D_MIN), LOG_D_MAX)
    first, second = _dispersion_score(math.exp(log_d), problem, tails, j, rate, cox_reid)
    uphill = 1.0 if first > 0.0 else -1.0
    near = log_d
    far = log_d
    step = 1.0
    while uphill * first > 0.0:
        if far == (LOG_D_MAX if uphill > 0.0 else LOG_D_MIN):
            return far
        near = far
        far = min(max(far + uphill * step, LOG_D_MIN), LOG_D_MAX)
        step *= 2.0
        first, second = _dispersion_score(math.exp(far), problem, tails, j, rate, cox_reid)
    low = min(near, far)
    high = max(near, far)
    log_d = far
    for _ in range(NEWTON_STEPS):
        d = math.exp(log_d)
        curvature = first + d * second
        proposal = log_d - first / curvature
        if not (curvature < 0.0 and low < proposal < high):
            proposal = 0.5 * (low + high)
        if abs(proposal - log_d) < 1e-11:
            return proposal
        log_d = proposal
        first, second = _dispersion_score(math.exp(log_d), problem, tails, j, rate, cox_reid)
        if first > 0.0:
            low = log_d
        else:
            high = log_d
    return log_d
