r"""The maps in closed form: the vectors of a model before the first round, and without rounds.

1. The maps of each dataset's own, :mod:`musegnn.training.canonical`.
2. The map that all share, :mod:`musegnn.training.discriminant`.
3. Alignment of covariances, for both. Maps that agree on anchor genes still give each dataset variances of its own, by
   which its genes lie apart from those of others. With :math:`\Sigma_t` the covariance of dataset t's coordinates over
   all its genes, :math:`\bar\Sigma` its mean over datasets and :math:`\rho = .1\,\mathrm{tr}\bar\Sigma / d`,

   .. math:: R_t = (\Sigma_t + \rho I)^{-1/2} (\bar\Sigma + \rho I)^{1/2}

   follows the map of dataset t (CORAL). It knows no gene by name.
4. Decoders of few parameters, by logistic regression of the training graph on them.

Sums over datasets are in fixed point (:mod:`musegnn.training.spectral`), so any number of processes gives the same
bits.

References
----------
Sun, Feng and Saenko, "Return of frustratingly easy domain adaptation", AAAI 2016 (CORAL).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from musegnn.model.features import GAIN
from musegnn.random import stream
from musegnn.training.canonical import ProfileView, own_maps
from musegnn.training.decoder_fit import fit_decoder
from musegnn.training.discriminant import CentredRelations, shared_map
from musegnn.training.spectral import DatasetSums

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from musegnn.model.model import AtlasModel
    from musegnn.training.comm import Comm
    from musegnn.training.phases import Phases

    Floats = NDArray[np.float64]

SHRINKAGE = 0.1


def initialize(model: AtlasModel, comm: Comm, *, seed: int, phases: Phases | None = None) -> None:
    """Set the maps and simple decoders of a model to their closed forms; all processes call this together.

    Parameters
    ----------
    model
        Model of the datasets of this process; changed in place where its vectors are made of maps.
    comm
        The group of processes.
    seed
        Seed of the first guesses of eigenvectors.
    phases
        Observer of the phases ``load`` and ``reduce``, or ``None``.
    """
    if not model.config.has_maps:
        return
    sums = DatasetSums(comm, model.owned, len(model.graphs), device=model.device, phases=phases)
    with threadpool_limits(1, "blas"):  # the bits must not depend on the machine's number of cores
        _set_own_maps(model, sums, seed)
        _set_shared_map(model, sums, seed)
        for i in model.owned:
            sums.phases.enter("load", 0)
            with torch.no_grad():
                z = model.encode(i).double().cpu().numpy()
            fit_decoder(model.decoder(i), z, model.graphs[i])


def align_covariances(coordinates: Mapping[int, Floats], sums: DatasetSums, dim: int) -> dict[int, Floats]:
    """Return a matrix (d, d) per dataset that gives its coordinates the mean covariance of all datasets.

    `coordinates` are those of the datasets of this process, centred, shape (N, d); all processes call this together.
    """
    own = {i: y.T @ y / max(len(y), 1) for i, y in coordinates.items()}
    with_trace = (np.append(c.ravel(), float(np.trace(c) > 0.0)) for c in own.values())
    bound = sums.largest(max(1.0, float(np.abs(c).max())) for c in own.values())
    total = sums.total(with_trace, (dim * dim + 1,), bound=bound)
    mean = total[:-1].reshape(dim, dim) / max(total[-1], 1.0)
    ridge = SHRINKAGE * np.trace(mean) / dim * np.eye(dim)
    if not np.trace(mean) > 0.0:
        return {i: np.eye(dim) for i in own}
    colour = sums.of_first(_power(mean + ridge, 0.5))
    return {i: _power(c + ridge, -0.5) @ colour for i, c in own.items()}


def _set_own_maps(model: AtlasModel, sums: DatasetSums, seed: int) -> None:
    n_anchors, dim = model.n_anchors, model.config.own_width
    views = {}
    for i in model.owned:
        sums.phases.enter("load", 0)
        features = model.features(i)
        assert features.columns is not None
        assert features.genes is not None
        places = features.columns[: len(features.genes)].cpu().numpy()
        random = stream(seed, "profile_axes", model.graphs[i].name)
        views[i] = ProfileView(_profile(model, i), features.genes, places, random=random)
    maps = own_maps(views, sums, n_anchors=n_anchors, dim=dim, random=stream(seed, "consensus"))
    turns = align_covariances({i: _profile(model, i) @ maps[i] for i in views}, sums, dim)
    for i in views:
        _copy(model.maps(i).own, _rescaled(maps[i] @ turns[i]))


def _profile(model: AtlasModel, i: int) -> Floats:
    """Return the centred profile of a dataset, (N, R), in float64."""
    profile = model.features(i).profile.double().cpu().numpy()
    centred: Floats = profile - profile.mean(axis=0)
    return centred


def _set_shared_map(model: AtlasModel, sums: DatasetSums, seed: int) -> None:
    n_anchors, dim = model.n_anchors, model.config.shared_width
    relations = {i: CentredRelations(model.features(i)) for i in model.owned}
    random = stream(seed, "principal_axes")
    found = shared_map(relations, sums, n_anchors=n_anchors, dim=dim, random=random)
    weights = _rescaled(sums.of_first(found))
    turns = align_covariances({i: x.project(weights) for i, x in relations.items()}, sums, dim)
    projection = model.shared.get("projection", model.owned[0]) if model.owned else None
    if projection is not None:
        _copy(projection.get_parameter("weight"), weights)
    for i in relations:
        _copy(model.maps(i).align, turns[i])


def _rescaled(weights: Floats) -> Floats:
    """Scale weights to the length that random ones have; rows of unit length are made of the result in any case."""
    size = float(np.sqrt(np.mean(weights**2))) if weights.size else 0.0
    return weights / (size * GAIN) if size > 0.0 else weights


def _power(matrix: Floats, exponent: float) -> Floats:
    """Return a power of a symmetric positive definite matrix."""
    values, vectors = eigh(matrix)
    result: Floats = (vectors * values**exponent) @ vectors.T
    return result


def _copy(parameter: torch.nn.Parameter, values: Floats) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))
