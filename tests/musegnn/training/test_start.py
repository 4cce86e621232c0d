"""The start of the shared projection, against dense definitions, on planted structure, and over processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import eigh, subspace_angles

from musegnn.training import start
from musegnn.training.comm import LocalComm
from musegnn.training.prepare import make_model, prepare
from musegnn.training.start import UNIT, start_projection
from musegnn.training.torch_comm import TorchComm


def started(atlas, kind, **settings):
    store, config = atlas(model__start=kind, **settings)
    data = prepare(store, config)
    model = make_model(data, config)
    before = model.shared.modules[UNIT].weight.detach().clone()
    start_projection(model, LocalComm(), seed=0)
    return model, data, before, model.shared.modules[UNIT].weight.detach()


def stacked(model, data):
    """Give the centred relations of all datasets in F columns, and each row's gene key."""
    rows, keys = [], []
    for i, graph in enumerate(data.graphs):
        features = model.features(i)
        full = np.zeros((graph.n_genes, model.n_relations))
        values = features.values.double().numpy()
        full[:, features.columns.numpy()] = values - values.mean(axis=0)
        rows.append(full)
        keys.append(graph.keys)
    return np.concatenate(rows), np.concatenate(keys)


def test_random_leaves_the_weights(atlas):
    _, _, before, after = started(atlas, "random")
    assert after.equal(before)


def test_spectral_starts_with_the_leading_principal_axes(atlas):
    model, data, _, weight = started(atlas, "spectral", model__dim=4)
    x, _ = stacked(model, data)
    want = eigh(x.T @ x)[1][:, ::-1][:, :4]
    assert np.degrees(subspace_angles(weight.double().numpy(), want)).max() < 1.0
    projected = x @ weight.double().numpy() * start.GAIN
    assert np.mean((projected**2).sum(axis=1)) == pytest.approx(4.0, rel=1e-3)


def test_discriminant_solves_the_generalised_eigenproblem(atlas, monkeypatch):
    """With as many axes as relations the search within them is no restriction."""
    monkeypatch.setattr(start, "AXES", 10_000)
    model, data, _, weight = started(atlas, "discriminant", model__dim=4)
    x, keys = stacked(model, data)
    words = [k for k in data.words if (keys == k).sum() > 1]
    groups = [x[keys == word] for word in words]
    within = sum((g - g.mean(0)).T @ (g - g.mean(0)) for g in groups) / sum(len(g) - 1 for g in groups)
    between = sum(len(g) * np.outer(g.mean(0), g.mean(0)) for g in groups) / len(groups)
    within += start.RIDGE * np.trace(within) / len(within) * np.eye(len(within))
    want = eigh(between, within)[1][:, ::-1][:, :4]
    assert np.degrees(subspace_angles(weight.double().numpy(), want)).max() < 0.1


def test_a_single_dataset_starts_with_its_principal_axes(atlas):
    model, data, _, weight = started(atlas, "discriminant", n=1, model__dim=4)
    x, _ = stacked(model, data)
    want = eigh(x.T @ x)[1][:, ::-1][:, :4]
    assert np.degrees(subspace_angles(weight.double().numpy(), want)).max() < 1.0


@pytest.mark.parametrize("kind", ["spectral", "discriminant"])
@pytest.mark.parametrize("owner", [(0, 1, 0, 1), (1, 0, 0, 0), (0, 1, 2, 2)])
def test_any_number_of_processes_starts_with_the_same_bits(atlas, in_ranks, kind, owner):
    store, config = atlas(model__start=kind)
    data = prepare(store, config)
    alone = make_model(data, config)
    start_projection(alone, LocalComm(), seed=0)

    def work(rank, group):
        model = make_model(data, config, owned=[i for i, who in enumerate(owner) if who == rank])
        sizes = [graph.n_genes for graph in data.graphs]
        comm = TorchComm(group, owner, sizes, dim=config.model.dim, dtype=torch.float32)
        start_projection(model, comm, seed=0)
        return model.shared.modules[UNIT].weight.detach()

    for weight in in_ranks(1 + max(owner), work):
        assert weight.equal(alone.shared.modules[UNIT].weight)


def test_names_decide_the_discriminant_and_nothing_else_does(atlas):
    """Where names say nothing, the direction that tells genes apart across datasets cannot be found."""
    model, data, _, weight = started(atlas, "discriminant", model__dim=4, evaluation__holdout_genes=0.3)
    x, keys = stacked(model, data)
    z = x @ weight.double().numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    known = np.isin(keys, data.words)
    cosine = z @ z.T
    same = (keys[:, None] == keys) & known[:, None] & ~np.eye(len(keys), dtype=bool)
    other = (keys[:, None] != keys) & known[:, None] & known
    assert cosine[same].mean() > cosine[other].mean() + 0.3
    shuffled = np.random.default_rng(0).permutation(keys)
    same = (shuffled[:, None] == shuffled) & ~np.eye(len(keys), dtype=bool)
    assert abs(cosine[same].mean() - cosine[~same].mean()) < 0.1
