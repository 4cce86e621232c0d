"""The maps in closed form: against dense definitions, on planted structure, and over processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import eigh, subspace_angles

from musegnn.training import canonical, discriminant
from musegnn.training.comm import LocalComm
from musegnn.training.decoder_fit import fit_decoder
from musegnn.training.initialize import SHRINKAGE, align_covariances, common_axes, initialize
from musegnn.training.prepare import make_model, prepare
from musegnn.training.spectral import DatasetSums, leading_subspace
from musegnn.training.torch_comm import TorchComm
from musegnn.vectors import unit_rows

ALONE = DatasetSums(LocalComm(), [0, 1, 2, 3], 4)


def started(atlas, n=4, **settings):
    store, config = atlas(n, model__encoder="none", **settings)
    data = prepare(store, config)
    model = make_model(data, config)
    initialize(model, LocalComm(), seed=0)
    return model, data


def weights(model):
    return {name: [p.detach().clone() for p in unit.parameters()] for name, unit in model.units.items()}


def test_subspace_iteration_finds_leading_eigenvectors():
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(30, 30)))[0]
    matrix = (basis * np.r_[10.0, 8.0, 6.0, np.linspace(1.0, 0.1, 27)]) @ basis.T
    found = leading_subspace(lambda x: matrix @ x, random.normal(size=(30, 3)), rounds=30)
    assert np.degrees(subspace_angles(found, basis[:, :3])).max() < 1e-6


def stacked(model, data):
    """Return the centred relations of all datasets in F columns, and each row's gene key."""
    rows, keys = [], []
    for i, graph in enumerate(data.graphs):
        features = model.features(i)
        full = np.zeros((graph.n_genes, 2 * model.n_anchors))
        values = features.values.double().numpy()
        full[:, features.columns.numpy()] = values - values.mean(axis=0)
        rows.append(full)
        keys.append(graph.keys)
    return np.concatenate(rows), np.concatenate(keys)


def test_the_shared_map_solves_the_generalised_eigenproblem(atlas):
    """With as many axes as relations the search within them is no restriction."""
    model, data = started(atlas)
    relations = {i: discriminant.CentredRelations(model.features(i)) for i in model.owned}
    random = np.random.default_rng(0)
    (found,) = discriminant.shared_maps(
        relations, ALONE, n_anchors=len(data.anchors), dim=4, random=random, ridges=[0.7]
    )
    x, keys = stacked(model, data)
    shared = [k for k in data.anchors if (keys == k).sum() > 1]
    groups = [x[keys == key] for key in shared]
    within = sum((g - g.mean(0)).T @ (g - g.mean(0)) for g in groups) / sum(len(g) - 1 for g in groups)
    between = sum(len(g) * np.outer(g.mean(0), g.mean(0)) for g in groups) / len(groups)
    within += 0.7 * np.trace(within) / len(within) * np.eye(len(within))
    want = eigh(between, within)[1][:, ::-1][:, :4]
    assert np.degrees(subspace_angles(found, want)).max() < 1e-3


def test_own_maps_solve_generalised_canonical_correlation(atlas, monkeypatch):
    monkeypatch.setattr(canonical, "ROUNDS", 300)
    model, data = started(atlas)
    n_anchors, dim, profiles, anchors = len(data.anchors), 3, [], []
    for i in model.owned:
        x = model.features(i).profile.double().numpy()
        profiles.append(x - x.mean(axis=0))
        anchors.append((model.features(i).genes, model.features(i).columns[: len(model.features(i).genes)].numpy()))
    counts = np.bincount(np.concatenate([places for _, places in anchors]), minlength=n_anchors)
    total, fits = np.zeros((n_anchors, n_anchors)), []
    for x, (genes, places) in zip(profiles, anchors, strict=True):
        a = x[genes] - x[genes].mean(axis=0)
        ridge = canonical.RIDGE * np.trace(a.T @ a) / min(x.shape) * np.eye(a.shape[1])
        fit = np.linalg.solve(a.T @ a + ridge, a.T) @ (np.eye(len(a)) - 1 / len(a))
        total[np.ix_(places, places)] += a @ fit
        fits.append((fit, places))
    scale = 1 / np.sqrt(counts)
    values, vectors = eigh(total * scale * scale[:, None])
    consensus = scale[:, None] * vectors[:, :-4:-1] * np.sqrt(values[:-4:-1])
    views = {
        i: canonical.ProfileView(x, canonical.principal_axes(x, 128, np.random.default_rng(i)), *anchors[i])
        for i, x in enumerate(profiles)
    }
    found = canonical.own_maps(views, ALONE, n_anchors=n_anchors, dim=dim, random=np.random.default_rng(9))
    signs = None
    for i, (fit, places) in enumerate(fits):
        want, got = profiles[i] @ fit @ consensus[places], profiles[i] @ found[i]
        signs = np.sign((want * got).sum(axis=0)) if signs is None else signs  # the same for all datasets
        np.testing.assert_allclose(got * signs, want, atol=1e-5 * np.abs(want).max())


def test_aligned_covariances_are_equal_up_to_shrinkage():
    random = np.random.default_rng(0)
    scales = (np.array([3.0, 1.0, 0.5]), np.array([0.4, 1.0, 2.0]))
    points = {i: random.normal(size=(4000, 3)) @ np.linalg.qr(random.normal(size=(3, 3)))[0] * s
              for i, s in enumerate(scales)}  # fmt: skip
    points = {i: y - y.mean(axis=0) for i, y in points.items()}
    turns = align_covariances(points, ALONE, 3)
    mean = sum(np.cov(y.T, bias=True) for y in points.values()) / 2
    ridge = SHRINKAGE * np.trace(mean) / 3 * np.eye(3)
    for i, y in points.items():
        shrunk = turns[i].T @ (np.cov(y.T, bias=True) + ridge) @ turns[i]
        np.testing.assert_allclose(shrunk, mean + ridge, rtol=1e-9, atol=1e-9)
    before, after = (
        np.abs(np.subtract(*(np.cov((y @ t).T) for y, t in zip(points.values(), pair, strict=True)))).max()
        for pair in ([np.eye(3)] * 2, [turns[0], turns[1]])
    )
    assert after < 0.5 * before  # what the ridge leaves where scales differ sevenfold


def test_common_axes_keep_what_equal_blocks_agree_in():
    """Of two noisy copies of coordinates, whatever their scales, the mean is kept."""
    random = np.random.default_rng(0)
    signal = {i: random.normal(size=(2000, 3)) * [3.0, 2.0, 1.0] for i in range(2)}
    noisy = {
        i: np.concatenate([100.0 * (y + 0.3 * random.normal(size=y.shape)), y + 0.3 * random.normal(size=y.shape)], 1)
        for i, y in signal.items()
    }
    axes = common_axes(noisy, ALONE, n_blocks=2, dim=3)
    for i, y in noisy.items():
        found = y @ axes
        fit = found @ np.linalg.lstsq(found, signal[i], rcond=None)[0]
        error = ((fit - signal[i]) ** 2).mean()
        assert error < 0.6 * 0.3**2  # of one copy: 0.3**2


@pytest.mark.parametrize("owner", [(0, 1, 0, 1), (1, 0, 0, 0), (0, 1, 2, 2), (3, 2, 1, 0)])
def test_any_number_of_processes_starts_with_the_same_bits(atlas, in_ranks, owner):
    store, config = atlas(model__encoder="none")
    data = prepare(store, config)
    alone = make_model(data, config)
    initialize(alone, LocalComm(), seed=0)

    def work(rank, group):
        model = make_model(data, config, owned=[i for i, who in enumerate(owner) if who == rank])
        sizes = [graph.n_genes for graph in data.graphs]
        comm = TorchComm(group, owner, sizes, dim=config.model.dim, dtype=torch.float32)
        initialize(model, comm, seed=0)
        return weights(model)

    expected = weights(alone)
    for found in in_ranks(1 + max(owner), work):
        assert all(p.equal(q) for name in found for p, q in zip(found[name], expected[name], strict=True))


def test_genes_lie_beside_themselves_and_names_decide_it(atlas):
    """Where names say nothing, the directions that tell genes apart across datasets cannot be found."""
    model, data = started(atlas, evaluation__holdout_genes=0.3)
    with torch.no_grad():
        z = unit_rows(np.concatenate([model.encode(i).numpy() for i in model.owned]))
    keys = np.concatenate([graph.keys for graph in data.graphs])
    dataset = np.repeat(np.arange(4), [graph.n_genes for graph in data.graphs])
    across, cosine = dataset[:, None] != dataset, z @ z.T
    same = (keys[:, None] == keys) & across
    assert cosine[same].mean() > cosine[across & ~same].mean() + 0.3
    shuffled = np.random.default_rng(0).permutation(keys)
    same = (shuffled[:, None] == shuffled) & across
    assert abs(cosine[same].mean() - cosine[across & ~same].mean()) < 0.1


def test_a_single_dataset_keeps_its_principal_components(atlas):
    model, data = started(atlas, n=1)
    x = model.features(0).profile.double().numpy()
    x -= x.mean(axis=0)
    found = x @ model.maps(0).own.detach().double().numpy()
    want = np.linalg.svd(x[data.graphs[0].trainable], full_matrices=False)[2][:4].T
    assert np.degrees(subspace_angles(found, x @ want)).max() < 25.0
    assert np.isfinite(model.encode(0).detach().numpy()).all()


def test_a_dataset_without_anchor_genes_has_vectors_of_its_own(atlas, tmp_path):
    store, config = atlas(4, model__encoder="none")
    data = prepare(store, config.model_copy(update={"orthologs": None}))  # the mouse shares no gene now
    model = make_model(data, config)
    initialize(model, LocalComm(), seed=0)
    assert len(model.features(3).genes) == 0
    z = model.encode(3).detach().numpy()
    assert np.isfinite(z).all()
    assert np.abs(z).sum(axis=1).min() > 0.0


def test_the_signed_decoder_finds_the_coefficients_that_made_the_edges(atlas):
    model, data = started(atlas)
    graph, decoder = data.graphs[0], model.decoder(0)
    z = np.random.default_rng(0).normal(size=(graph.n_genes, 8))
    fit_decoder(decoder, z, graph)
    rows, columns = np.triu_indices(graph.n_genes, 1)
    hidden = set(zip(*(ends.tolist() for ends in graph.held_out.all), strict=True))
    seen = np.array([(r, c) not in hidden for r, c in zip(rows.tolist(), columns.tolist(), strict=True)])
    rows, columns = rows[seen], columns[seen]
    is_edge = np.zeros((graph.n_genes, graph.n_genes))
    is_edge[graph.edges.rows, graph.edges.indices] = 1.0
    target = torch.from_numpy(is_edge[rows, columns])
    ends = torch.from_numpy(rows), torch.from_numpy(columns)
    logits = decoder.double().pairs(torch.from_numpy(z), *ends)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    gradient = torch.autograd.grad(loss, list(decoder.parameters()))
    assert max(float(g.abs().max()) for g in gradient) < 2e-4  # the optimum, up to the small penalty
