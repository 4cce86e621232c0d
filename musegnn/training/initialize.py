r"""The maps in closed form: the vectors of a model before the first round, and without rounds.

1. The map of each dataset, :mod:`musegnn.training.canonical`.
2. The map that all share, :mod:`musegnn.training.discriminant`.
3. Alignment of covariances, for both. Maps that agree on anchor genes still give each dataset variances of its own, by
   which its genes lie apart from those of others. With :math:`\Sigma_t` the covariance of dataset t's coordinates over
   all its genes, :math:`\bar\Sigma` its mean over datasets and :math:`\rho = .1\,\mathrm{tr}\bar\Sigma / d`,

   .. math:: R_t = (\Sigma_t + \rho I)^{-1/2} (\bar\Sigma + \rho I)^{1/2}

   follows the map of dataset t (CORAL). It knows no gene by name.
4. Averaging over regularisations instead of choosing one: either map is computed twice, from 128 and from 256
   components of the profile and with ridges of .3 and 3, and aligned. Both side by side, scaled to equal variance, are
   reduced to their common principal axes, those of the mean covariance over datasets.
5. Decoders of few parameters, by logistic regression of the training graph on them.

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
from scipy.linalg import block_diag, eigh
from threadpoolctl import threadpool_limits

from musegnn.model.features import GAIN
from musegnn.random import stream
from musegnn.training.canonical import COMPONENTS, ProfileView, own_maps, principal_axes
from musegnn.training.decoder_fit import fit_decoder
from musegnn.training.discriminant import CentredRelations, shared_maps
from musegnn.training.spectral import DatasetSums, symmetric_power

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from musegnn.model.model import AtlasModel
    from musegnn.training.comm import Comm
    from musegnn.training.phases import Phases

    Floats = NDArray[np.float64]

SHRINKAGE = 0.1


def initialize(model: AtlasModel, comm: Comm, *, seed: int, phases: Phases | None = None) -> None:
    """Set the maps and simple decoders of a model to their closed forms, in place; all processes call this together.

    Added datasets take no part (:mod:`musegnn.training.added`).
    `seed` is that of the first guesses of eigenvectors, `phases` the observer of the phases ``load`` and ``reduce``.
    """
    if not model.config.has_maps:
        return
    trained = [i for i, graph in enumerate(model.graphs) if not graph.added]
    owned = [i for i in trained if i in model.owned]
    sums = DatasetSums(comm, owned, len(trained), device=model.device, phases=phases)
    with threadpool_limits(1, "blas"):  # the bits must not depend on the machine's number of cores
        _set_own_maps(model, sums, seed)
        _set_shared_map(model, sums, seed)
        for i in owned:
            sums.phases.enter("load", 0)
            with torch.no_grad():
                z = model.encode(i).double().cpu().numpy()
            fit_decoder(model.decoder(i), z, model.graph(i))


def align_covariances(coordinates: Mapping[int, Floats], sums: DatasetSums, dim: int) -> dict[int, Floats]:
    """Return a matrix (d, d) per dataset that gives its coordinates the mean covariance of all datasets.

    `coordinates` are those of the datasets of this process, centred, shape (N, d); all processes call this together.
    """
    own = {i: y.T @ y / max(len(y), 1) for i, y in coordinates.items()}
    mean = _mean_covariance(own, sums, dim)
    ridge = SHRINKAGE * np.trace(mean) / dim * np.eye(dim)
    if not np.trace(mean) > 0.0:
        return {i: np.eye(dim) for i in own}
    colour = sums.of_first(symmetric_power(mean + ridge, 0.5))
    return {i: symmetric_power(c + ridge, -0.5) @ colour for i, c in own.items()}


def common_axes(coordinates: Mapping[int, Floats], sums: DatasetSums, *, n_blocks: int, dim: int) -> Floats:
    """Return principal axes that all datasets share of blocks side by side, scales and axes in one, (n_blocks * d, d).

    `coordinates` are those of the datasets of this process, centred, shape (N, n_blocks * d): blocks of d = `dim`
    columns, each of which is scaled to a total variance of one. All processes call this together.
    """
    own = {i: y.T @ y / max(len(y), 1) for i, y in coordinates.items()}
    mean = _mean_covariance(own, sums, n_blocks * dim)
    variances = np.trace(mean.reshape(n_blocks, dim, n_blocks, dim), axis1=1, axis2=3).diagonal()
    scale = np.repeat(1.0 / np.sqrt(np.where(variances > 0.0, variances, 1.0)), dim)
    leading = eigh(mean * scale[:, None] * scale)[1][:, ::-1][:, :dim]
    return sums.of_first(scale[:, None] * leading)


def _mean_covariance(own: Mapping[int, Floats], sums: DatasetSums, dim: int) -> Floats:
    """Return the mean over all datasets with any variance, shape (dim, dim), of covariances by dataset."""
    counted = (np.append(c.ravel(), float(np.trace(c) > 0.0)) for c in own.values())
    bound = sums.largest(max(1.0, float(np.abs(c).max())) for c in own.values())
    total = sums.total(counted, (dim * dim + 1,), bound=bound)
    mean: Floats = total[:-1].reshape(dim, dim) / max(total[-1], 1.0)
    return mean


def _set_own_maps(model: AtlasModel, sums: DatasetSums, seed: int) -> None:
    n_anchors, dim = model.n_anchors, model.config.own_width
    axes: dict[int, Floats] = {}
    aligned: dict[int, list[Floats]] = {}
    for i in sums.owned:
        sums.phases.enter("load", 0)
        random = stream(seed, "profile_axes", model.graphs[i].name)
        axes[i], aligned[i] = principal_axes(centred_profile(model, i), max(COMPONENTS), random), []
    for k in COMPONENTS:
        views = {i: _profile_view(model, i, axes[i][:, :k]) for i in sums.owned}
        maps = own_maps(views, sums, n_anchors=n_anchors, dim=dim, random=stream(seed, "consensus"))
        turns = align_covariances({i: centred_profile(model, i) @ maps[i] for i in sums.owned}, sums, dim)
        for i in sums.owned:
            aligned[i].append(maps[i] @ turns[i])
    blocks = {i: np.concatenate(parts, axis=1) for i, parts in aligned.items()}
    coordinates = {i: centred_profile(model, i) @ block for i, block in blocks.items()}
    common = common_axes(coordinates, sums, n_blocks=len(COMPONENTS), dim=dim)
    for i, block in blocks.items():
        copy_to(model.maps(i).own, rescaled(block @ common))


def _profile_view(model: AtlasModel, i: int, axes: Floats) -> ProfileView:
    features = model.features(i)
    assert features.columns is not None
    assert features.genes is not None
    places = features.columns[: len(features.genes)].cpu().numpy()
    return ProfileView(centred_profile(model, i), axes, features.genes, places)


def centred_profile(model: AtlasModel, i: int) -> Floats:
    """Return the centred profile of a dataset, (N, R), in float64."""
    profile = model.features(i).profile.double().cpu().numpy()
    centred: Floats = profile - profile.mean(axis=0)
    return centred


def _set_shared_map(model: AtlasModel, sums: DatasetSums, seed: int) -> None:
    n_anchors, dim = model.n_anchors, model.config.shared_width
    relations = {i: CentredRelations(model.features(i)) for i in sums.owned}
    random = stream(seed, "principal_axes")
    found = shared_maps(relations, sums, n_anchors=n_anchors, dim=dim, random=random)
    weights = np.concatenate([rescaled(sums.of_first(one)) for one in found], axis=1)
    coordinates = {i: x.project(weights) for i, x in relations.items()}
    turns: list[dict[int, Floats]] = []
    for start in range(0, weights.shape[1], dim):
        block = {i: y[:, start : start + dim] for i, y in coordinates.items()}
        turns.append(align_covariances(block, sums, dim))
    aligned = {i: block_diag(*(turn[i] for turn in turns)) for i in relations}
    common = common_axes({i: y @ aligned[i] for i, y in coordinates.items()}, sums, n_blocks=len(found), dim=dim)
    projection = model.shared.get("projection", sums.owned[0]) if sums.owned else None
    if projection is not None:
        copy_to(projection.get_parameter("weight"), weights)
    for i in relations:
        copy_to(model.maps(i).align, aligned[i] @ common)


def rescaled(weights: Floats) -> Floats:
    """Scale weights to the length that random ones have; rows of unit length are made of the result in any case."""
    size = float(np.sqrt(np.mean(weights**2))) if weights.size else 0.0
    return weights / (size * GAIN) if size > 0.0 else weights


def copy_to(parameter: torch.nn.Parameter, values: Floats) -> None:
    """Set a parameter to values, in place."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))
