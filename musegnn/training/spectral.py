"""Leading eigenvectors of matrices that are sums over datasets, of which no process has all.

Every process adds the terms of its datasets one by one, in fixed point, so that the result does not depend on who owns
what (:mod:`musegnn.training.fixed_point`), and goes on from the same sum with the same operations. Only tables as wide
as the wanted subspace travel; profiles, relations and matrices of genes by genes stay with their owners.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import eigh

from musegnn.training.fixed_point import add_rounded_rows, scale_for, to_float
from musegnn.training.phases import Phases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from musegnn.training.comm import Comm

    Floats = NDArray[np.float64]
    Rows = NDArray[np.int64] | slice


class DatasetSums:
    """Sums of arrays over datasets, whoever owns them; they travel on `device`."""

    def __init__(
        self,
        comm: Comm,
        owned: Sequence[int],
        n_datasets: int,
        *,
        device: torch.device | str = "cpu",
        phases: Phases | None = None,
    ) -> None:
        self.owned = owned
        self.phases = Phases() if phases is None else phases
        self._comm, self._n_datasets, self._device = comm, n_datasets, device

    def total(self, parts: Iterable[Floats], shape: tuple[int, ...], *, bound: float) -> Floats:
        """Return the sum of one array of `shape` of each dataset; all processes call this together.

        Parameters
        ----------
        parts
            Arrays of the datasets of this process, made when they are added; datasets may be missing.
        bound
            Largest magnitude of any number in any array of any dataset, but for rounding.
        """
        return self.total_rows(((slice(None), part.reshape(shape)) for part in parts), shape, bound=bound)

    def total_rows(self, parts: Iterable[tuple[Rows, Floats]], shape: tuple[int, ...], *, bound: float) -> Floats:
        """Return :meth:`total` of tables that are 0 but for some rows: each part is these rows, once each, and values.

        What a dataset adds takes time and memory for its own rows alone.
        """
        total = np.zeros(shape, dtype=np.int64)
        scale = scale_for(bound, self._n_datasets)
        width = math.prod(shape[1:])
        table = total.reshape(shape[0], width)
        for rows, values in parts:
            places = np.arange(shape[0])[rows]
            add_rounded_rows(np.ascontiguousarray(values).reshape(len(places), width), scale, places, table)
        found = self._add_up(torch.from_numpy(total))
        result: Floats = to_float(found, scale, torch.float64).numpy()
        return result

    def largest(self, values: Iterable[float]) -> float:
        """Return the largest of some numbers that are not negative, of all datasets; 0 without any."""
        self.phases.enter("reduce", 0)
        rows = self._comm.gather([{"largest": max(values, default=0.0)}])
        self.phases.enter("load", 0)
        return max(float(row["largest"]) for row in rows)

    def of_first(self, result: Floats) -> Floats:
        """Return, to all processes, the bits of the process that owns the first dataset."""
        bits = torch.from_numpy(result.copy()).view(torch.int64)
        found: Floats = self._add_up(bits if 0 in self.owned else torch.zeros_like(bits)).view(torch.float64).numpy()
        return found

    def _add_up(self, total: torch.Tensor) -> torch.Tensor:
        self.phases.enter("reduce", 0)
        found = self._comm.add_up(total.to(self._device)).cpu()
        self.phases.enter("load", 0)
        return found


def leading_subspace(multiply: Callable[[Floats], Floats], start: Floats, *, rounds: int) -> Floats:
    """Return orthonormal columns that span about the leading eigenvectors of a positive semidefinite matrix.

    `multiply` multiplies the matrix by columns, (n, q) to (n, q), `rounds` times from `start` (n, q), of full rank.

    References
    ----------
    Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53 (2011), algorithm 4.4.
    """
    basis: Floats = np.linalg.qr(start)[0]
    for _ in range(rounds):
        basis = np.linalg.qr(multiply(basis))[0]
    return basis


def symmetric_power(matrix: Floats, exponent: float) -> Floats:
    """Return a power of a symmetric positive definite matrix."""
    values, vectors = eigh(matrix)
    result: Floats = (vectors * values**exponent) @ vectors.T
    return result
