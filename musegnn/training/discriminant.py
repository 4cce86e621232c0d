r"""The map that all datasets share: axes of the relations that tell genes apart and not datasets.

With :math:`X_t` the relations of dataset t, centred, and Q the leading principal axes of all of them,
:math:`y = Q^\top x`. With :math:`y_{gt}` anchor gene g in dataset t, of :math:`n_g` that have it, and :math:`m_g` the
mean over these,

.. math:: S_w = \frac{\sum_{gt} (y_{gt} - m_g)(y_{gt} - m_g)^\top}{\sum_g (n_g - 1)}, \qquad
    S_b = \frac{1}{G} \sum_g n_g m_g m_g^\top, \qquad
    S_b v = \mu \left(S_w + r \frac{\mathrm{tr} S_w}{q} I\right) v.

This is Fisher's discriminant with genes as classes, regularised as by Friedman (1989); the ridge r is relative to the
mean variance, which the data set. Held-out genes are no anchor genes, so nothing of their identity enters.

Legend: N genes, V anchor genes, C of them in this dataset, F = 2V relations, q axes, d columns of the map.

References
----------
Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7 (1936). Friedman, "Regularized
discriminant analysis", JASA 84 (1989).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigh

from musegnn.training.spectral import leading_subspace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.model.features import NodeFeatures
    from musegnn.training.spectral import DatasetSums

    Floats = NDArray[np.float64]

AXES = 512
ROUNDS = 4
RIDGES = (0.3, 3.0)


class CentredRelations:
    """The relations of one dataset without their mean, (N, 2C), and their places among all F."""

    def __init__(self, features: NodeFeatures) -> None:
        assert features.values is not None
        assert features.columns is not None
        assert features.genes is not None
        self._values = features.values
        self.columns = features.columns.cpu().numpy()
        self.genes = features.genes

    @property
    def _own(self) -> NDArray[np.floating]:
        values: NDArray[np.floating] = self._values.cpu().numpy()
        return values

    @cached_property
    def _mean(self) -> Floats:
        mean: Floats = self._own.mean(axis=0, dtype=np.float64)
        return mean

    def size(self) -> float:
        """Return the sum of all squares."""
        values = self._own
        return float((values.astype(np.float64) ** 2).sum() - len(values) * (self._mean**2).sum())

    def project(self, axes: Floats) -> Floats:
        """Return the coordinates (N, q) on `axes` (F, q)."""
        own = axes[self.columns]
        y: Floats = self._own.astype(np.float64) @ own - self._mean @ own
        return y

    def scatter(self, axes: Floats) -> Floats:
        """Return ``X' X axes`` at the places of the relations, shape (2C, q); it is 0 elsewhere.

        Products are of the type of the relations, float32 in training: they search a subspace, whose coordinates
        :meth:`project` computes in float64.
        """
        x, own = self._own, axes[self.columns]
        y = x @ own.astype(x.dtype) - (self._mean @ own).astype(x.dtype)
        result: Floats = (x.T @ y).astype(np.float64)
        result -= self._mean[:, None] * y.sum(axis=0, dtype=np.float64)
        return result


def shared_maps(
    relations: Mapping[int, CentredRelations],
    sums: DatasetSums,
    *,
    n_anchors: int,
    dim: int,
    random: np.random.Generator,
    ridges: Sequence[float] = RIDGES,
) -> list[Floats]:
    """Return the shared map (2V, d) for each ridge r, float64; columns beyond the rank are 0. All processes call this.

    `relations` are of the datasets of this process; `random`, the same in all, draws the first guess of the axes.
    """
    n_relations = 2 * n_anchors
    q = min(AXES, n_relations)

    bound = sums.largest(x.size() for x in relations.values())  # of X'X times columns of norm 1

    def multiply(axes: Floats) -> Floats:
        parts = ((x.columns, x.scatter(axes)) for x in relations.values())
        return sums.total_rows(parts, axes.shape, bound=bound)

    axes = leading_subspace(multiply, random.normal(size=(n_relations, q)), rounds=ROUNDS)
    maps = []
    for directions in _directions(relations, sums, axes, n_anchors, ridges, bound):
        result = np.zeros((n_relations, dim))
        result[:, : min(dim, q)] = axes @ directions[:, :dim]
        maps.append(result)
    return maps


def _directions(
    relations: Mapping[int, CentredRelations],
    sums: DatasetSums,
    axes: Floats,
    n_anchors: int,
    ridges: Sequence[float],
    bound: float,
) -> list[Floats]:
    """Return directions (q, q) among the axes by ridge, best first; principal axes where no gene is in two datasets."""
    q = axes.shape[1]

    def moments(x: CentredRelations) -> Floats:
        y = x.project(axes)
        named = y[x.genes]
        return np.stack([y.T @ y, named.T @ named])

    def of_anchors(x: CentredRelations) -> tuple[NDArray[np.int64], Floats]:
        y = x.project(axes)[x.genes]
        return x.columns[: len(x.genes)], np.column_stack([y, np.ones(len(y))])

    most = max(bound, 1.0)
    everything, anchors = sums.total((moments(x) for x in relations.values()), (2, q, q), bound=most)
    table = sums.total_rows((of_anchors(x) for x in relations.values()), (n_anchors, q + 1), bound=most)
    counts = table[:, q]
    several = counts > 1
    if not several.any():
        principal: Floats = eigh(everything)[1][:, ::-1]
        return [principal for _ in ridges]
    means = table[several, :q] / counts[several, None]
    weighted = means * np.sqrt(counts[several])[:, None]
    between = weighted.T @ weighted
    within = (anchors - between) / (counts[several] - 1).sum()
    unit = np.trace(within) / q * np.eye(q)
    return [eigh(between / several.sum(), within + ridge * unit)[1][:, ::-1] for ridge in ridges]
