r"""Sums of floating-point tensors that do not depend on the order of the summands.

With M summands, none larger than :math:`2^e` in magnitude, each is rounded to a multiple of
:math:`2^{e + \lceil \log_2 M \rceil - 61}` and added as a 64-bit integer. The sum of integers is exact and cannot
overflow, so any grouping of the summands gives the same bits. The rounding is far below float32: of the largest
summand, 61 - log2 M binary digits are kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

BITS = 61


def scale_for(largest: float, n: int) -> float:
    """Return the power of two by which `n` summands, none above `largest` in magnitude, are multiplied before rounding.

    All who add must use the same values; `largest` is finite.
    """
    if largest == 0.0:
        return 1.0
    _, exponent = math.frexp(largest)
    digits = BITS - exponent - math.ceil(math.log2(n))
    return math.ldexp(1.0, min(digits, 1023))  # sums of tensors below 2^-962 lose digits, not their order


def add_rounded(parts: Iterable[torch.Tensor], scale: float, total: torch.Tensor) -> None:
    """Add tensors, as multiples of ``1 / scale``, to an int64 sum of their shape, in place."""
    for part in parts:
        total += part.to(torch.float64, copy=True).mul_(scale).round_().long()


@njit(nogil=True, cache=True)
def add_rounded_rows(
    part: NDArray[np.float64], scale: float, rows: NDArray[np.int64], total: NDArray[np.int64]
) -> None:
    """Add a matrix (n, d), as multiples of ``1 / scale``, to some rows, once each, of an int64 sum (N, d), in place.

    The numbers are those of :func:`add_rounded`, in one pass without copies.
    """
    for k in range(len(part)):
        own, values = total[rows[k]], part[k]
        for column in range(len(values)):
            own[column] += np.int64(np.rint(values[column] * scale))


def to_float(total: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """Return the value of a sum of rounded multiples, rounded once to float64 and once to `dtype`."""
    return total.double().div_(scale).to(dtype)
