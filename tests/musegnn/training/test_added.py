"""A dataset added to a run: it lands beside the copies of its genes, and nothing of the run changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from musegnn.atlas_file import validate_atlas
from musegnn.data_store.records import DatasetRecord, GeneTable, PairTable
from musegnn.errors import ConfigError, InputError
from musegnn.evaluation.drift import drift_report, drift_text
from musegnn.training.added import Fixed, ridge_map, targets
from musegnn.training.diagnostics import problems
from musegnn.training.extend import TrainedRun, extend, outline, write_extended
from musegnn.training.prepare import prepare
from musegnn.training.trainer import Trainer

N_CELLS, N_GENES, LATENT, POOL = 150, 150, 10, 200
NAMES = ("one", "two", "three")


def simulate(name, seed, *, shuffled=False, prefix="G"):
    """Simulate residuals of genes with loadings that all datasets share; `shuffled` names tell nothing of them."""
    random = np.random.default_rng([7, seed])
    loadings = np.random.default_rng(0).normal(size=(POOL, LATENT))
    chosen = np.sort(random.choice(POOL, N_GENES, replace=False))
    residuals = loadings[chosen] @ random.normal(size=(LATENT, N_CELLS)) + random.normal(size=(N_GENES, N_CELLS))
    residuals -= residuals.mean(axis=1, keepdims=True)
    correlation = np.corrcoef(residuals)
    z = np.sqrt(N_CELLS) * correlation
    np.fill_diagonal(z, 0.0)
    rows, columns = np.nonzero(np.abs(z) >= 1.96)
    upper = np.abs(z[np.triu_indices(N_GENES, 1)])
    pairs = PairTable(
        indptr=np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=N_GENES))]),
        indices=columns.astype(np.int32),
        z=z[rows, columns].astype(np.float32),
        estimate=correlation[rows, columns].astype(np.float32),
        n_tests=len(upper),
        z_store=1.96,
        histogram=np.bincount(np.minimum((upper / 0.05).astype(np.int64), 800), minlength=801).astype(np.int64),
    )
    names = np.array([f"{prefix}{k}" for k in (random.permutation(chosen) if shuffled else chosen)])
    about = dict.fromkeys(("mean", "variance", "mu", "sigma", "score"), np.ones(N_GENES))
    genes = GeneTable(gene=names, gene_id=names, n_cells=np.full(N_GENES, N_CELLS, dtype=np.int64), **about)
    labels = {"modality": "scrna", "tissue": "lung", "species": "human", "condition": None, "n_cells": N_CELLS}
    return DatasetRecord(name=name, **labels, genes=genes, pairs=pairs, profile=residuals.astype(np.float32))


def configure(*names, added=(), **sections):
    labels = {"modality": "scrna", "tissue": "lung", "species": "human"}
    datasets = [{"name": name, "path": f"{name}.h5ad", **labels, "added": name in added} for name in (*names, *added)]
    settings = {"model": {"dim": 16}, "training": {"threads": 1}} | sections
    return validate_atlas({"datasets": datasets} | settings, where="test")


@pytest.fixture(scope="module")
def records():
    found = {name: simulate(name, seed) for seed, name in enumerate((*NAMES, "new", "newer"))}
    return found | {"null": simulate("null", 3, shuffled=True), "other": simulate("other", 3, prefix="X")}


@pytest.fixture
def store(synthetic, records, tmp_path):
    return synthetic.FakeStore(tmp_path, records)


def train(store, config):
    trainer = Trainer(prepare(store, config), config)
    trainer.run()
    return trainer


def as_trained(trainer, config):
    graphs = [outline(d, g.keys, g.trainable) for d, g in zip(config.datasets, trainer.model.graphs, strict=True)]
    return TrainedRun(
        graphs=graphs,
        vectors=trainer.vectors(),
        units=trainer.state(),
        fingerprint=trainer.fingerprint,
        rounds=trainer.rounds,
    )


@pytest.fixture
def run(store):
    return as_trained(train(store, config := configure(*NAMES)), config)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_an_added_dataset_lands_beside_the_copies_of_its_genes(run, store):
    """Held-out genes are found about as well as between datasets of the run; with shuffled names, by chance."""
    _, rows = extend(run, store, configure(*NAMES, added=("new",)))
    fits = drift_report(rows, "new")
    assert fits["run_held_out"] > 8.0
    assert fits["held_out"] > 0.6 * fits["run_held_out"]
    assert [problem.code for problem in problems(rows, dim=16)] == []
    _, rows = extend(run, store, configure(*NAMES, added=("null",)))
    null = drift_report(rows, "null")
    assert null["held_out"] < 3.0
    assert "W504" in [problem.code for problem in problems(rows, dim=16)]
    assert [each["dataset"] for each in null["partners"]] == list(NAMES)
    assert all(any(line.startswith(name) for line in drift_text(null)) for name in (*NAMES, "mean", "within the run"))


def test_nothing_of_the_run_changes(run, store, tmp_path):
    extended, _ = extend(run, store, configure(*NAMES, added=("new", "newer")))
    assert all(extended.vectors[name].tobytes() == z.tobytes() for name, z in run.vectors.items())
    assert all(same(extended.units[unit], state) for unit, state in run.units.items())
    new = {f"dataset/{name}/{part}" for name in ("new", "newer") for part in ("layer", "decoder")}
    assert extended.units.keys() - run.units.keys() == new
    assert extended.fingerprint != run.fingerprint
    config = configure(*NAMES, added=("new", "newer"))
    write_extended(extended, tmp_path)
    restored = Trainer(prepare(store, config), config)
    assert restored.restore(tmp_path)
    assert all(z.tobytes() == extended.vectors[name].tobytes() for name, z in restored.vectors().items())


@pytest.mark.parametrize("rounds", [0, 2])
def test_training_the_same_configuration_gives_the_same_bits(store, rounds):
    sections = {"training": {"threads": 1, "rounds": rounds}}
    known = configure(*NAMES, **sections)
    config = configure(*NAMES, added=("new",), **sections)
    extended, _ = extend(as_trained(train(store, known), known), store, config)
    trained = train(store, config)
    assert trained.fingerprint == extended.fingerprint
    assert all(z.tobytes() == extended.vectors[name].tobytes() for name, z in trained.vectors().items())


def test_held_out_genes_are_no_targets(run, store):
    new = prepare(store, configure("new")).graphs[0]
    before = Fixed(graphs=run.graphs, vectors=list(run.vectors.values()), align=np.zeros((16, 8)))
    genes, target = targets(new, before)
    assert new.trainable[genes].all()
    pairs = list(zip(run.graphs, before.vectors, strict=True))
    hidden = [np.where(graph.trainable[:, None], z, np.nan) for graph, z in pairs]
    again, same_target = targets(new, replace(before, vectors=hidden))
    np.testing.assert_array_equal(genes, again)
    np.testing.assert_array_equal(target, same_target)
    for gene, mean in zip(genes[:5], target, strict=False):
        copies = [z[graph.keys == new.keys[gene]] for graph, z in pairs]
        np.testing.assert_allclose(mean, np.concatenate(copies).astype(np.float64).mean(axis=0), rtol=1e-12)


def test_the_ridge_regression_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    x, target, genes = random.normal(size=(30, 50)), random.normal(size=(12, 4)), np.arange(5, 17)
    alpha = 0.3 * (x[genes] ** 2).sum() / 12
    want = Ridge(alpha=alpha, fit_intercept=False).fit(x[genes], target - target.mean(axis=0)).coef_.T
    np.testing.assert_allclose(ridge_map(x, genes, target, 0.3), want, rtol=1e-9, atol=1e-12)


def test_a_dataset_without_genes_of_the_run_is_refused(run, store):
    with pytest.raises(InputError, match=r"E258.* other: shares 0 genes"):
        extend(run, store, configure(*NAMES, added=("other",)))


@pytest.mark.parametrize("sections", [{"model": {"encoder": "transformer"}}, {"model": {"decoder": "pairwise"}}])
def test_added_datasets_need_closed_forms(sections):
    with pytest.raises(ConfigError, match="`added` needs"):
        configure("one", added=("new",), training={"rounds": 1}, **sections)


def test_added_datasets_come_last():
    with pytest.raises(ConfigError, match="`added` needs"):
        configure(added=("new",))
