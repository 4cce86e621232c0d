r"""The map of each dataset: generalised canonical correlation of residual profiles (MAXVAR).

With :math:`P_t` the k leading principal components of dataset t's profile, (N, k), :math:`A_t` their rows of anchor
genes, centred, and :math:`K_t` the places of these among all V,

.. math:: M = D^{-1/2} \Bigl(\sum_t K_t^\top A_t B_t K_t\Bigr) D^{-1/2}, \qquad
    B_t = \left(A_t^\top A_t + r \frac{\mathrm{tr} A_t^\top A_t}{k} I\right)^{-1} A_t^\top,

where D counts the datasets of each anchor gene. Its leading eigenvectors U, scaled by the square roots of their
eigenvalues, which say how well datasets agree, give the consensus :math:`G = D^{-1/2} U \Lambda^{1/2}`; dataset t is
mapped onto it by the ridge regression :math:`P_t B_t K_t G`. M is never formed: a multiplication by it takes one sum
over datasets of a table (V, q).

Held-out genes are no anchor genes; they are mapped by what the anchor genes of their dataset tell.

Legend: N genes, R profile columns, k components, V anchor genes, C of them in this dataset, d columns of the map.

References
----------
Kettenring, "Canonical analysis of several sets of variables", Biometrika 58 (1971). Rastogi, Van Durme and Arora,
"Multiview LSA", NAACL 2015 (missing rows). Fu et al., "Scalable and flexible MAX-VAR", arXiv:1605.09459.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from musegnn.training.spectral import leading_subspace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from musegnn.training.spectral import DatasetSums

    Floats = NDArray[np.float64]

COMPONENTS = (128, 256)
MORE_COMPONENTS, COMPONENT_ROUNDS = 32, 4
ROUNDS = 12
RIDGE = 1.0
MIN_ANCHORS = 3


class ProfileView:
    """The principal components of one dataset's profile, and the ridge regression from them.

    Parameters
    ----------
    profile
        Residual profile, centred over the genes, shape (N, R).
    axes
        Its principal axes, shape (R, k), orthonormal, leading first.
    genes, anchors
        Anchor genes of the dataset and their places among all anchor genes, shapes (C,).
    ridge
        r.
    """

    def __init__(
        self,
        profile: Floats,
        axes: Floats,
        genes: NDArray[np.int64],
        anchors: NDArray[np.int64],
        *,
        ridge: float = RIDGE,
    ) -> None:
        self.anchors, self.axes = anchors, axes
        rows: Floats = profile[genes] @ axes
        self.rows: Floats = rows - rows.mean(axis=0) if len(rows) else rows
        gram = self.rows.T @ self.rows
        self.is_aligned = len(genes) >= MIN_ANCHORS and bool(np.trace(gram) > 0.0)
        if self.is_aligned:
            gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
            self._regression: Floats = cho_solve(cho_factor(gram), self.rows.T)

    def regress(self, consensus: Floats) -> Floats:
        """Return the coefficients (k, q) of the ridge regression of a table of all anchor genes (V, q)."""
        target = consensus[self.anchors]
        result: Floats = self._regression @ (target - target.mean(axis=0))
        return result

    def smooth(self, consensus: Floats) -> Floats:
        """Return the fitted values at the places of the anchor genes, shape (C, q)."""
        fitted: Floats = self.rows @ self.regress(consensus)
        return fitted


def own_maps(
    views: Mapping[int, ProfileView], sums: DatasetSums, *, n_anchors: int, dim: int, random: np.random.Generator
) -> dict[int, Floats]:
    """Return the map (R, d) of each dataset's profile in `views`, float64; all processes call this together.

    A dataset with fewer than three anchor genes is mapped onto its own leading components. `random` draws the first
    guess of the consensus, the same in all processes.
    """
    consensus = _consensus(views, sums, n_anchors, dim, random)
    maps = {}
    for i, view in views.items():
        result = np.zeros((len(view.axes), dim))
        found = view.axes @ view.regress(consensus) if view.is_aligned else view.axes[:, :dim]
        result[:, : found.shape[1]] = found
        maps[i] = result
    return maps


def _consensus(
    views: Mapping[int, ProfileView], sums: DatasetSums, n_anchors: int, dim: int, random: np.random.Generator
) -> Floats:
    """Return G, shape (V, d or less)."""
    q = min(2 * dim, n_anchors)
    present = (np.bincount(view.anchors, minlength=n_anchors).astype(np.float64) for view in views.values())
    counts = sums.total(present, (n_anchors,), bound=1.0)
    scale = 1.0 / np.sqrt(np.maximum(counts, 1.0))[:, None]

    def multiply(table: Floats) -> Floats:
        """Multiply M by orthonormal columns, of which no regression makes numbers above 1."""
        scaled = scale * table
        fitted = ((view.anchors, view.smooth(scaled)) for view in views.values() if view.is_aligned)
        return scale * sums.total_rows(fitted, table.shape, bound=1.0)

    start = random.normal(size=(n_anchors, q))
    if q == 0:
        return start
    basis = leading_subspace(multiply, start, rounds=ROUNDS)
    within = basis.T @ multiply(basis)
    values, turn = eigh((within + within.T) / 2)
    best = slice(None, -1 - min(dim, q), -1)
    return sums.of_first(scale * (basis @ turn[:, best]) * np.sqrt(np.maximum(values[best], 0.0)))


def principal_axes(x: Floats, n: int, random: np.random.Generator) -> Floats:
    """Compute the `n` leading principal axes, shape (R, n or less), of centred rows, shape (N, R)."""
    q = min(n + MORE_COMPONENTS, *x.shape)
    start = random.normal(size=(x.shape[1], q))
    basis = leading_subspace(lambda axes: x.T @ (x @ axes), start, rounds=COMPONENT_ROUNDS)
    y = x @ basis
    turn = eigh(y.T @ y)[1][:, ::-1][:, :n]
    axes: Floats = basis @ turn
    return axes
