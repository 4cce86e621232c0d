"""The schedule: pure, balanced, and never comparing what must not be compared."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musegnn.training.overlap import Overlaps
from musegnn.training.prepare import prepare
from musegnn.training.schedule import draw_contrast, participants, partners


@given(st.integers(0, 100), st.integers(1, 10**6), st.integers(2, 50))
def test_a_cycle_visits_everyone_once(seed, round_, n):
    partner = partners(seed, round_, n)
    place, seen = 0, []
    for _ in range(n):
        place = int(partner[place])
        seen.append(place)
    assert sorted(seen) == list(range(n))


@given(st.integers(0, 100), st.integers(1, 10**6), st.integers(2, 50), st.sampled_from(["cycle", "uniform"]))
def test_nobody_is_its_own_partner(seed, round_, n, law):
    partner = partners(seed, round_, n, law)
    assert ((partner >= 0) & (partner < n)).all()
    assert (partner != np.arange(n)).all()
    np.testing.assert_array_equal(partner, partners(seed, round_, n, law))


@pytest.mark.parametrize("law", ["cycle", "uniform"])
def test_every_pair_has_the_same_chance(law):
    counts = np.zeros((5, 5))
    for round_ in range(4000):
        counts[np.arange(5), partners(7, round_, 5, law)] += 1
    off_diagonal = counts[~np.eye(5, dtype=bool)]
    assert abs(off_diagonal - 1000).max() < 5 * np.sqrt(1000 * 0.75)


def test_a_single_dataset_has_no_partner():
    assert partners(0, 1, 1).tolist() == [-1]


@pytest.fixture
def graphs(atlas):
    return prepare(*atlas()).graphs


def test_draws_are_positive_neighbours_without_repeats(graphs):
    overlap = Overlaps(graphs).pair(0, 1)
    positives = set()
    for round_ in range(20):
        draw = draw_contrast(0, round_, (graphs[0], graphs[1]), overlap, 5)
        assert len(draw.anchors_i) == min(5, len(overlap.pool_i))
        assert len(set(draw.anchors_i.tolist())) == len(draw.anchors_i)
        assert set(draw.anchors_i.tolist()) <= set(overlap.pool_i.tolist())
        for graph, anchors, neighbours in (
            (graphs[0], draw.anchors_i, draw.positives_i),
            (graphs[1], draw.anchors_j, draw.positives_j),
        ):
            for anchor, neighbour in zip(anchors, neighbours, strict=True):
                start, stop = graph.edges.indptr[anchor : anchor + 2]
                at = start + np.flatnonzero(graph.edges.indices[start:stop] == neighbour)
                assert len(at) == 1
                assert graph.edges.z[at[0]] > 0
        positives.add(tuple(zip(draw.anchors_i.tolist(), draw.positives_i.tolist(), strict=True)))
    assert len(positives) > 10


def test_excluded_are_repeats_and_true_neighbours_within_a_dataset(graphs):
    overlap = Overlaps(graphs).pair(0, 1)
    draw = draw_contrast(3, 2, (graphs[0], graphs[1]), overlap, 100)
    k = len(draw)
    owner = [0] * len(draw.anchors_i) + [1] * len(draw.anchors_j)
    items = [*draw.anchors_i, *draw.anchors_j, *draw.positives_i, *draw.positives_j]
    named = list(zip(owner * 2, map(int, items), strict=True))
    for a, (side_a, gene_a) in enumerate(named):
        for b, (side_b, gene_b) in enumerate(named):
            same = side_a == side_b and (gene_a == gene_b or bool(graphs[side_a].neighbours.positive[gene_a, gene_b]))
            assert draw.exclude[a, b] == (same and abs(a - b) != k)
    assert draw.exclude.sum() > 2 * k


@pytest.mark.parametrize(("n", "size"), [(7, 3), (12, 5), (9, 9), (4, 2)])
def test_datasets_take_part_equally_often(n, size):
    parts = -(-n // size)
    for deal in range(5):
        chosen = [participants(1, deal * parts + turn + 1, n, size) for turn in range(parts)]
        assert sorted(i for part in chosen for i in part) == list(range(n))
        assert max(map(len, chosen)) <= size
        assert max(map(len, chosen)) - min(map(len, chosen)) <= 1
    assert participants(1, 3, n) == list(range(n))


def test_who_takes_part_is_drawn_anew_and_is_a_function_of_seed_and_round():
    rounds = [tuple(participants(1, r, 10, 5)) for r in range(1, 41)]
    assert rounds == [tuple(participants(1, r, 10, 5)) for r in range(1, 41)]
    assert len(set(rounds)) > 20
    assert rounds != [tuple(participants(2, r, 10, 5)) for r in range(1, 41)]
