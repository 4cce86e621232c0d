r"""Where the shared projection starts: in closed form, from sums over datasets that no process has alone.

With :math:`X_t` the relations of dataset t, centred, the leading principal axes Q of all of them come from block power
iteration, :math:`Q \leftarrow \mathrm{orth}(\sum_t X_t^\top X_t Q)`. ``spectral`` keeps the first d of them.

``discriminant`` looks within them, :math:`y = Q^\top x`, for the directions in which genes differ most from one another
relative to how much one gene differs from dataset to dataset. With :math:`y_{gt}` gene g in dataset t, of :math:`n_g`
that have it, and :math:`m_g` the mean over these,

.. math:: S_w = \frac{\sum_{gt} (y_{gt} - m_g)(y_{gt} - m_g)^\top}{\sum_g (n_g - 1)}, \qquad
    S_b = \frac{1}{G} \sum_g n_g m_g m_g^\top, \qquad
    S_b v = \mu \left(S_w + r \frac{\mathrm{tr} S_w}{q} I\right) v.

Only the genes of the vocabulary, none of which is held out, enter these. This is Fisher's discriminant with genes as
classes, regularised as in Friedman (1989) with the ridge r.

Every process adds its datasets' terms to sums that do not depend on who owns what, and the process that owns the first
dataset hands its result to all.

Legend: N genes, V genes of the vocabulary, F = 2V relations, q axes, d dimensions.

References
----------
Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7 (1936). Friedman, "Regularized
discriminant analysis", JASA 84 (1989). Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53
(2011), algorithm 4.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from musegnn.model.features import GAIN
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from musegnn.model.features import NodeFeatures
    from musegnn.model.model import AtlasModel
    from musegnn.training.comm import Comm

    Floats = NDArray[np.float64]

UNIT = "shared/projection/all"
AXES = 512
POWER_ROUNDS = 4
RIDGE = 10.0
TINY = np.finfo(np.float64).tiny


def start_projection(model: AtlasModel, comm: Comm, *, seed: int) -> None:
    """Set the weights of the shared projection to what ``config.start`` names. All processes call this together.

    Parameters
    ----------
    model
        Of the datasets owned here; its projection is changed in place, where ``start`` is not ``random``.
    comm
        The group of processes.
    seed
        Of the first guess of the principal axes.
    """
    kind, dim = model.config.start, model.config.projected
    if kind == "random" or UNIT not in model.shared.members:
        return
    sums = _Sums(model, comm)
    with threadpool_limits(1, "blas"):  # the bits must not depend on the machine's number of cores
        relations = {i: _Centred(model.features(i)) for i in model.owned}
        axes = _principal_axes(relations, sums, (model.n_relations, min(AXES, model.n_relations)), seed)
        moments = _moments(relations, sums, axes)
        directions = (moments.principal if kind == "spectral" else moments.discriminant)(dim)
        # Rows of the projection have d as their mean squared length, as random weights would give them.
        length = np.einsum("qd,qp,pd->", directions, moments.all_genes, directions) / moments.n_genes
        weights = np.zeros((model.n_relations, dim))
        weights[:, : directions.shape[1]] = axes @ directions * (np.sqrt(dim / max(length, TINY)) / GAIN)
        agreed = sums.of_first(weights)
    module = model.shared.get("projection", model.owned[0]) if model.owned else None
    if module is not None:
        with torch.no_grad():
            module.get_parameter("weight").copy_(torch.from_numpy(agreed))


class _Centred:
    """The relations of one dataset without their mean, (N, 2C), where they belong, and the genes that are words."""

    def __init__(self, features: NodeFeatures) -> None:
        assert features.values is not None
        assert features.columns is not None
        assert features.genes is not None
        values = features.values.double().cpu().numpy()
        self.values: Floats = values - values.mean(axis=0)
        self.columns = features.columns.cpu().numpy()
        self.genes = features.genes

    def project(self, axes: Floats) -> Floats:
        """Give the coordinates (N, q) on `axes` (F, q)."""
        y: Floats = self.values @ axes[self.columns]
        return y

    def add_back(self, y: Floats, shape: tuple[int, int]) -> Floats:
        """Give ``X' y``, (F, q), for coordinates (N, q)."""
        result = np.zeros(shape)
        result[self.columns] = self.values.T @ y
        return result


class _Sums:
    """Adds up arrays over datasets, whoever owns them; every process that owns a dataset gets the result."""

    def __init__(self, model: AtlasModel, comm: Comm) -> None:
        self._members, self._owned = {UNIT: model.shared.members[UNIT]}, model.owned
        self._comm, self._dtype, self._device = comm, model.dtype, model.device

    def over_datasets(self, parts: Mapping[int, Floats], shape: tuple[int, ...]) -> Floats:
        """Add up one array (`shape`) of each dataset."""
        mine = {i: torch.from_numpy(part.reshape(-1)).to(self._device, self._dtype) for i, part in parts.items()}
        total = self._comm.reduce({UNIT: mine} if mine else {}, self._members, ()).sums.get(UNIT)
        return np.zeros(shape) if total is None else total.cpu().double().numpy().reshape(shape)

    def of_first(self, result: Floats) -> Floats:
        """Give what the process that owns the first dataset has."""
        first = self._members[UNIT][0]
        return self.over_datasets({first: result} if first in self._owned else {}, result.shape)


def _principal_axes(relations: Mapping[int, _Centred], sums: _Sums, shape: tuple[int, int], seed: int) -> Floats:
    """Give orthonormal columns (F, q) that span the leading principal axes of all relations, roughly."""
    axes: Floats = np.linalg.qr(stream(seed, "principal_axes").normal(size=shape))[0]
    for _ in range(POWER_ROUNDS):
        parts = {i: x.add_back(x.project(axes), shape) for i, x in relations.items()}
        axes = np.linalg.qr(sums.over_datasets(parts, shape))[0]
    return axes


@dataclass(frozen=True, slots=True)
class _Moments:
    """Sums over datasets of coordinates y on q axes.

    Attributes
    ----------
    n_genes
        Rows of all datasets.
    all_genes, words
        Sum of y y' over all rows, and over rows of genes of the vocabulary, (q, q).
    totals, counts
        Sum of y and number of datasets of each gene of the vocabulary, (V, q) and (V,).
    """

    n_genes: int
    all_genes: Floats
    words: Floats
    totals: Floats
    counts: Floats

    def principal(self, dim: int) -> Floats:
        """Give the leading principal axes, (q, d), d at most q."""
        directions: Floats = eigh(self.all_genes)[1][:, ::-1][:, :dim]
        return directions

    def discriminant(self, dim: int) -> Floats:
        """Give the leading discriminant directions, (q, d); the principal axes when no gene is in two datasets."""
        several = self.counts > 1
        if not several.any():
            return self.principal(dim)
        means = self.totals[several] / self.counts[several, None]
        weighted = means * np.sqrt(self.counts[several])[:, None]
        between = weighted.T @ weighted
        within = (self.words - between) / (self.counts[several] - 1).sum()
        within += RIDGE * np.trace(within) / len(within) * np.eye(len(within))
        directions: Floats = eigh(between / several.sum(), within)[1][:, ::-1][:, :dim]
        return directions


def _moments(relations: Mapping[int, _Centred], sums: _Sums, axes: Floats) -> _Moments:
    q, n_words = axes.shape[1], len(axes) // 2
    parts = {}
    for i, x in relations.items():
        y = x.project(axes)
        named = y[x.genes]
        table = np.zeros((n_words, q + 1))
        table[x.columns[: len(x.genes)]] = np.column_stack([named, np.ones(len(named))])
        sizes = np.array([len(y)])
        parts[i] = np.concatenate([part.ravel() for part in (sizes, y.T @ y, named.T @ named, table)])
    total = sums.over_datasets(parts, (1 + 2 * q * q + n_words * (q + 1),))
    sizes, all_genes, words, table = np.split(total, np.cumsum([1, q * q, q * q]))
    table = table.reshape(n_words, q + 1)
    return _Moments(
        n_genes=max(1, round(sizes[0])),
        all_genes=all_genes.reshape(q, q),
        words=words.reshape(q, q),
        totals=table[:, :q],
        counts=table[:, q].round(),
    )
