r"""Maps of a dataset that is added to a trained run, in closed form; nothing of the run changes.

The vectors of the datasets before it are given, and with them a target for each of its genes that one of these has and
that is not held out: the mean of the gene's vectors. The halves of the target are fitted by ridge regressions, as

.. math:: W = X_a^\top \left(X_a X_a^\top + r \frac{\mathrm{tr} X_a X_a^\top}{C} I\right)^{-1} T

with :math:`X_a` the features of these C genes and T their targets, both centred. Of the half that comes from profiles:

1. from 128 and from 256 components of the profile, as in :mod:`musegnn.training.canonical`;
2. from profiles as unit vectors.

Of the half that comes from relations:

3. from the output of the shared map, as a correction of what follows it in the other datasets on average;
4. from unit profiles and test statistics of co-expression with all C genes, of which the shared map knows those alone
   that two datasets of the run have.

A regression shrinks directions that it is not sure of, by which genes would lie apart from those of others. So each
result gets the mean covariance of the datasets before (CORAL, as in :mod:`musegnn.training.initialize`); results of one
half are added up with equal variance, and the sum gets that covariance again.

Legend: N genes, R profile columns, C genes with a target, d columns of a half, F extra features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from musegnn.errors import InputError
from musegnn.model.features import GAIN
from musegnn.random import stream
from musegnn.training.canonical import COMPONENTS, MIN_ANCHORS, ProfileView, principal_axes
from musegnn.training.decoder_fit import fit_decoder
from musegnn.training.initialize import centred_profile, copy_to
from musegnn.training.spectral import symmetric_power
from musegnn.vectors import unit_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.graph import ComparedGraph
    from musegnn.model.model import AtlasModel

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

SHRINKAGE = 0.3
PROFILE_RIDGE, UNIT_RIDGE, EXTRA_RIDGE, SHARED_RIDGE = 3.0, 3.0, 0.1, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """What a dataset is fitted to.

    Attributes
    ----------
    graphs, vectors
        Datasets before it: keys of genes and which are not held out; vectors, each (N, 2d).
    align
        Mean over the trained datasets of what follows the shared map, (n_projected, d).
    """

    graphs: Sequence[ComparedGraph]
    vectors: Sequence[NDArray[np.floating]]
    align: Floats


def fit_added(model: AtlasModel, i: int, fixed: Fixed, *, seed: int) -> None:
    """Set maps and decoder of the added dataset `i` to their closed forms, in place.

    `seed` is that of the first guess of the profile's axes.

    Raises
    ------
    InputError
        E258 when it shares fewer than three genes, which are not held out, with the datasets before it.
    """
    graph, width = model.graph(i), model.config.own_width
    genes, target = targets(graph, fixed)
    if len(genes) < MIN_ANCHORS:
        msg = f"shares {len(genes)} genes with the datasets of the run, which nothing can be fitted to"
        fix = "check names of genes and species, or set `orthologs` in the run"
        raise InputError(msg, code="E258", where=graph.name, fix=fix)
    with threadpool_limits(1, "blas"):  # the bits must not depend on the machine's number of cores
        halves = slice(0, width), slice(width, None)
        own, shared = (np.mean([_covariance(z[:, half]) for z in fixed.vectors], axis=0) for half in halves)
        copy_to(model.maps(i).own, _own_map(model, i, genes, target[:, :width], own, seed) / GAIN)
        align, more = _shared_maps(model, i, genes, target[:, width:], shared, fixed.align)
        copy_to(model.maps(i).align, align)
        copy_to(model.maps(i).get_parameter("more"), more)
        with torch.no_grad():
            z = model.encode(i).double().cpu().numpy()
        fit_decoder(model.decoder(i), z, graph)


def mean_align(aligns: Sequence[torch.Tensor]) -> Floats:
    """Return the mean of what follows the shared map in each dataset, (n_projected, d)."""
    mean: Floats = np.mean([align.detach().double().cpu().numpy() for align in aligns], axis=0)
    return mean


def targets(graph: ComparedGraph, fixed: Fixed) -> tuple[Ints, Floats]:
    """Return the genes (C,) of a dataset that have a target, ascending, and their targets (C, 2d)."""
    place = {key: k for k, key in enumerate(graph.keys.tolist()) if graph.trainable[k]}
    total, counts = np.zeros((graph.n_genes, fixed.vectors[0].shape[1])), np.zeros(graph.n_genes)
    for other, z in zip(fixed.graphs, fixed.vectors, strict=True):
        found = np.array([place.get(key, -1) for key in other.keys.tolist()], dtype=np.int64)
        rows = np.flatnonzero((found >= 0) & other.trainable)
        total[found[rows]] += z[rows]
        counts[found[rows]] += 1
    genes = np.flatnonzero(counts)
    return genes, total[genes] / counts[genes, None]


def _own_map(model: AtlasModel, i: int, genes: Ints, target: Floats, covariance: Floats, seed: int) -> Floats:
    """Return the map of the profile, (R, d)."""
    profile = centred_profile(model, i)
    axes = principal_axes(profile, max(COMPONENTS), stream(seed, "profile_axes", model.graphs[i].name))
    places, found = np.arange(len(genes)), []
    for k in COMPONENTS:
        view = ProfileView(profile, axes[:, :k], genes, places, ridge=PROFILE_RIDGE)
        found.append(view.axes @ view.regress(target))
    unit = unit_rows(profile)
    found.append(ridge_map(unit - unit.mean(axis=0), genes, target, UNIT_RIDGE))
    parts = [_coloured(profile, weights, covariance) for weights in found]
    components = _scaled(profile, parts[0] + parts[1])
    return _coloured(profile, components + parts[2], covariance)


def _shared_maps(
    model: AtlasModel, i: int, genes: Ints, target: Floats, covariance: Floats, align: Floats
) -> tuple[Floats, Floats]:
    """Return what follows the shared map, (n_projected, d), and the map of the extra features, (F, d)."""
    features, projection = model.features(i), model.shared.get("projection", i)
    assert projection is not None
    assert features.extra is not None
    with torch.no_grad():
        projected = features.project(projection).double().cpu().numpy()
    projected -= projected.mean(axis=0)
    extra = features.extra.double().cpu().numpy()
    align = _scaled(projected, align)
    rest = target - target.mean(axis=0) - _centred(projected[genes] @ align)
    align = _coloured(projected, align + _regression(projected[genes], rest, SHARED_RIDGE), covariance)
    more = _coloured(extra, ridge_map(extra, genes, target, EXTRA_RIDGE), covariance)
    both = np.concatenate([projected, extra], axis=1)
    whole = _coloured(both, np.concatenate([align, more]), covariance)
    return whole[: len(align)], whole[len(align) :]


def ridge_map(x: Floats, genes: Ints, target: Floats, ridge: float) -> Floats:
    """Return the map (F, d) of the module's formula, of features (N, F), centred over all genes, and targets (C, d)."""
    rows = x[genes]
    gram = rows @ rows.T
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights: Floats = rows.T @ cho_solve(cho_factor(gram), _centred(target))
    return weights


def _regression(x: Floats, target: Floats, ridge: float) -> Floats:
    """Return :func:`ridge_map` where features are fewer than genes, with the ridge relative to their mean variance."""
    centred = _centred(x)
    gram = centred.T @ centred
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights: Floats = cho_solve(cho_factor(gram), centred.T @ target)
    return weights


def _coloured(x: Floats, weights: Floats, covariance: Floats) -> Floats:
    """Return a map that gives the coordinates of centred features (N, F) a covariance, up to shrinkage, and size 1."""
    own = _covariance(x @ weights)
    if not np.trace(own) > 0.0:
        return weights
    size = np.trace(covariance)
    ridge = SHRINKAGE * size / len(covariance) * np.eye(len(covariance))
    turn = symmetric_power(own * size / np.trace(own) + ridge, -0.5) @ symmetric_power(covariance + ridge, 0.5)
    return _scaled(x, weights @ turn)


def _scaled(x: Floats, weights: Floats) -> Floats:
    """Return a map scaled such that the coordinates of features (N, F) have a mean square length of 1."""
    size = float(np.sqrt(((x @ weights) ** 2).sum() / max(len(x), 1)))
    return weights / size if size > 0.0 else weights


def _centred(x: Floats) -> Floats:
    centred: Floats = x - x.mean(axis=0)
    return centred


def _covariance(x: NDArray[np.floating]) -> Floats:
    values = x.astype(np.float64)
    found: Floats = values.T @ values / max(len(values), 1)
    return found
