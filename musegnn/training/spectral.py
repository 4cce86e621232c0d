"""Leading eigenvectors of matrices that are sums over datasets, of which no process has all.

Every process adds the terms of its datasets, in fixed point, so that the result does not depend on who owns what
(:mod:`musegnn.training.fixed_point`), and goes on from the same sum with the same operations. Only tables as wide as
the wanted subspace travel; profiles, relations and matrices of genes by genes stay with the owners of their datasets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from musegnn.training.phases import Phases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.training.comm import Comm

    Floats = NDArray[np.float64]

UNIT = "closed form"


class DatasetSums:
    """Sums of arrays over datasets, whoever owns them.

    Parameters
    ----------
    comm
        The group of processes.
    owned
        Indices of the datasets of this process.
    n_datasets
        Number of datasets of the atlas.
    dtype, device
        Of the arrays as they travel.
    phases
        Told when this process waits for others; ``None``: nobody is.
    """

    def __init__(
        self,
        comm: Comm,
        owned: Sequence[int],
        n_datasets: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        phases: Phases | None = None,
    ) -> None:
        self.owned = owned
        self.phases = Phases() if phases is None else phases
        self._comm, self._members = comm, {UNIT: range(n_datasets)}
        self._dtype, self._device = dtype, device

    def total(self, parts: Mapping[int, Floats], shape: tuple[int, ...]) -> Floats:
        """Return the sum of one array of each dataset; all processes call this together.

        Parameters
        ----------
        parts
            By dataset of this process, an array of `shape`; datasets without a term are missing.
        shape
            Of the arrays and of the result.
        """
        mine = {i: torch.from_numpy(part.reshape(-1)).to(self._device, self._dtype) for i, part in parts.items()}
        self.phases.enter("reduce", 0)
        found = self._comm.reduce({UNIT: mine} if mine else {}, self._members, ()).sums.get(UNIT)
        self.phases.enter("load", 0)
        return np.zeros(shape) if found is None else found.cpu().double().numpy().reshape(shape)

    def of_first(self, result: Floats) -> Floats:
        """Return what the process that owns the first dataset has, to all processes."""
        return self.total({0: result} if 0 in self.owned else {}, result.shape)


def leading_subspace(multiply: Callable[[Floats], Floats], start: Floats, *, rounds: int) -> Floats:
    """Compute orthonormal columns that span about the leading eigenvectors of a positive semidefinite matrix.

    Parameters
    ----------
    multiply
        Multiplies the matrix by columns, shape (n, q) to (n, q).
    start
        First guess, shape (n, q), of full column rank.
    rounds
        Number of multiplications.

    Returns
    -------
    numpy.ndarray
        Shape (n, q), float64.

    References
    ----------
    Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53 (2011), algorithm 4.4.
    """
    basis: Floats = np.linalg.qr(start)[0]
    for _ in range(rounds):
        basis = np.linalg.qr(multiply(basis))[0]
    return basis
