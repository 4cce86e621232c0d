"""Hold-outs: what is hidden, and that it is really hidden."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musegnn.config import EvaluationConfig
from musegnn.graph import EdgeSet
from musegnn.model.relational_features import anchor_genes, relations
from musegnn.training.comm import LocalComm
from musegnn.training.engine import Engine
from musegnn.training.holdout import holdout_edges, trainable_genes
from musegnn.training.initialize import initialize
from musegnn.training.overlap import Overlaps
from musegnn.training.prepare import make_model, prepare
from musegnn.training.schedule import draw_contrast


def graph(n, density, seed):
    random = np.random.default_rng(seed)
    upper = np.triu(random.random((n, n)) < density, 1)
    rows, columns = np.nonzero(upper | upper.T)
    z = np.triu(random.normal(size=(n, n)), 1)
    z = (z + z.T)[rows, columns].astype(np.float32)
    indptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=n), out=indptr[1:])
    features = np.stack([z, z], axis=1)
    return EdgeSet(
        indptr=indptr, indices=columns.astype(np.int32), z=z, estimate=z.clip(-1, 1), features=features, cutoff=0.0
    )


def pairs(rows, columns):
    return set(zip(rows.tolist(), columns.tolist(), strict=True))


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(2, 30),
    density=st.floats(0.0, 1.0),
    share=st.floats(0.0, 0.6),
    seed=st.integers(0, 2**31),
)
def test_split_is_a_partition_with_clean_non_edges(n, density, share, seed):
    edges = graph(n, density, seed)
    seen, split = holdout_edges(edges, share, seed=seed, name="x")
    every = pairs(edges.rows, edges.indices.astype(np.int64))
    train = pairs(seen.rows, seen.indices.astype(np.int64))
    held = pairs(split.rows, split.columns)
    negative = pairs(split.negative_rows, split.negative_columns)
    assert train | held | {(b, a) for a, b in held} == every
    assert not train & held
    assert len(held) == len(split.rows) == len(split.sign)
    assert len(negative) == len(split.negative_rows) <= len(held)
    assert not negative & every
    assert all(a < b for a, b in held | negative)
    if every:
        assert train
        assert len(held) == min(round(share * len(every) / 2), len(every) // 2 - 1)
    assert len(negative) == min(len(held), n * (n - 1) // 2 - len(every) // 2)
    dense = dict(zip(zip(edges.rows.tolist(), edges.indices.tolist(), strict=True), edges.z.tolist(), strict=True))
    assert all(np.sign(dense[pair]) == s for pair, s in zip(sorted(held), split.sign.tolist(), strict=True))


def test_non_edges_match_in_degree():
    edges = graph(200, 0.1, 3)
    _, split = holdout_edges(edges, 0.1, seed=1, name="x")
    uses = np.bincount(np.concatenate([split.rows, split.columns]), minlength=200)
    negative_uses = np.bincount(np.concatenate([split.negative_rows, split.negative_columns]), minlength=200)
    np.testing.assert_array_equal(uses, negative_uses)


def test_genes_are_held_out_by_their_key_alone():
    keys = {name: np.array([f"g{k + i}" for i in range(20)]) for k, name in enumerate("abc")}
    config = EvaluationConfig(holdout_genes=0.3)
    masks = {name: dict(zip(k.tolist(), trainable_genes(k, config).tolist(), strict=True)) for name, k in keys.items()}
    assert 0 < sum(masks["b"].values()) < 20
    for other in ("a", "c"):
        assert all(masks[other][key] == masks["b"][key] for key in masks[other].keys() & masks["b"].keys())


def test_nothing_is_hidden_when_shares_are_zero():
    edges = graph(20, 0.3, 0)
    train, held_out = holdout_edges(edges, 0.0, seed=0, name="a")
    assert len(held_out.rows) == 0
    np.testing.assert_array_equal(train.z, edges.z)
    assert trainable_genes(np.array([f"g{i}" for i in range(20)]), EvaluationConfig(holdout_genes=0.0)).all()


def test_held_out_edges_reach_no_input_of_training(atlas):
    data = prepare(*atlas(evaluation__holdout_edges=0.2))
    for g in data.graphs:
        split = g.held_out
        hidden = pairs(split.rows, split.columns) | pairs(split.columns, split.rows)
        assert hidden
        assert not hidden & pairs(g.edges.rows, g.edges.indices)
        assert not hidden & pairs(*g.neighbours.positive.nonzero())
        record, masked = data.records[g.name], g.held_out.all
        related = relations(record.pairs, record.profile, masked, g.keys, data.anchors)
        column = {int(gene): k for k, gene in enumerate(related.genes)}
        for kind in np.split(related.values, 2, axis=1):
            assert kind.any()
            assert all(kind[a, column[b]] == 0 for a, b in hidden if b in column)
        masked = pairs(*g.held_out.all)
        assert pairs(split.rows, split.columns) | pairs(split.negative_rows, split.negative_columns) == masked


def test_held_out_genes_reach_no_comparison(atlas):
    data = prepare(*atlas(evaluation__holdout_genes=0.4))
    overlaps = Overlaps(data.graphs)
    hidden = {key for g in data.graphs for key in g.keys[~g.trainable].tolist()}
    assert hidden
    assert not hidden & set(data.anchors)
    assert not hidden & set(anchor_genes([g.keys[g.trainable] for g in data.graphs]))
    for i, a in enumerate(data.graphs):
        for j, b in enumerate(data.graphs):
            if i == j:
                continue
            overlap = overlaps.pair(i, j)
            used = [a.keys[overlap.rows_i], b.keys[overlap.rows_j], a.keys[overlap.pool_i], b.keys[overlap.pool_j]]
            draw = draw_contrast(0, 1, (a, b), overlap, 100)
            used += [a.keys[draw.anchors_i], a.keys[draw.positives_i], b.keys[draw.anchors_j], b.keys[draw.positives_j]]
            assert not hidden & {key for keys in used for key in keys.tolist()}


def trained_states(data, config):
    model = make_model(data, config)
    initialize(model, LocalComm(), seed=0)
    engine = Engine(model, config.training)
    rows = [engine.round(r) for r in (1, 2, 3)]
    return rows, {f"{unit}/{key}": value for unit in model.units for key, value in engine.state(unit).items()}


def assert_same_training(first, second):
    assert first[0] == second[0]
    assert first[1].keys() == second[1].keys()
    assert all(first[1][key].equal(second[1][key]) for key in first[1])


@pytest.mark.parametrize("sequential", [False, True])
def test_values_of_held_out_pairs_change_no_bit_of_training(atlas, sequential):
    """Training on a store whose held-out pairs have other signs and strengths must give the same weights."""
    store, config = atlas(
        evaluation__holdout_edges=0.2, training__published={"sequential": sequential}, edges__rule="pvalue"
    )
    data = prepare(store, config)
    n_free = 0
    for g in data.graphs:
        name, split = g.name, g.held_out
        record = store.records[name]
        table = record.pairs
        n = table.n_genes
        rows = np.repeat(np.arange(n), np.diff(table.indptr))
        hidden = np.concatenate([split.rows * n + split.columns, split.columns * n + split.rows])
        at = np.isin(rows * n + table.indices, hidden)
        assert at.sum() == 2 * len(split.rows) > 0
        z, estimate = table.z.copy(), table.estimate.copy()
        z[at], estimate[at] = -1.5 * z[at], 0.77
        apart = np.concatenate(
            [split.negative_rows * n + split.negative_columns, split.negative_columns * n + split.negative_rows]
        )
        free = np.isin(rows * n + table.indices, apart)
        n_free += free.sum()
        z[free], estimate[free] = -z[free], -0.11
        store.records[name] = replace(record, pairs=replace(table, z=z, estimate=estimate))
    assert n_free > 0
    other = prepare(store, config)
    for mine, changed in zip(data.graphs, other.graphs, strict=True):
        assert (changed.held_out.sign == -mine.held_out.sign).all()
    assert_same_training(trained_states(data, config), trained_states(other, config))


@pytest.mark.parametrize("encoder", ["none", "transformer"])
@pytest.mark.parametrize("sequential", [False, True])
def test_names_of_held_out_genes_change_no_bit_of_training(atlas, sequential, encoder):
    """A held-out gene that is the same in two datasets must be to training what two unrelated genes are."""
    store, config = atlas(
        evaluation__holdout_genes=0.4, training__published={"sequential": sequential}, model__encoder=encoder
    )
    data = prepare(store, config)
    renamed = []
    for g in data.graphs:
        keys = g.keys.astype(object)
        keys[~g.trainable] = [f"hidden:{g.name}:{k}" for k in np.flatnonzero(~g.trainable)]
        renamed.append(replace(g, keys=keys.astype(np.str_)))
    shared = set(data.graphs[0].keys[~data.graphs[0].trainable]) & set(data.graphs[1].keys)
    assert shared
    assert_same_training(trained_states(data, config), trained_states(replace(data, graphs=renamed), config))
