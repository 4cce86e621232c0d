"""Processes that read their own datasets alone train as those that have read all."""

from __future__ import annotations

import numpy as np
import pytest

from musegnn.errors import InputError, RunError
from musegnn.graph import GraphData, PartnerFile
from musegnn.training import partner_files
from musegnn.training.overlap import Overlaps
from musegnn.training.partner_files import partner_path, read_partner, write_partner
from musegnn.training.prepare import disjoint_pairs, fingerprint, prepare
from musegnn.training.schedule import draw_contrast
from musegnn.training.spmd import prepare_together


@pytest.fixture
def away(atlas, tmp_path):
    """Return the graphs of an atlas, and the same as files of another process."""
    graphs = prepare(*atlas(evaluation__holdout_genes=0.3)).graphs
    files = []
    for graph in graphs:
        path = partner_path(tmp_path, graph.name, "a" * 64)
        write_partner(path, graph)
        labels = {name: getattr(graph, name) for name in ("name", "modality", "tissue", "species")}
        files.append(PartnerFile(**labels, n_genes=graph.n_genes, path=path))
    return graphs, files


def test_comparisons_from_files_are_those_of_whole_graphs(away):
    graphs, files = away
    whole, part = Overlaps(graphs), Overlaps([graphs[0], *files[1:]])
    for j in (1, 2, 3):
        a, b = whole.pair(0, j), part.pair(0, j)
        for name in ("rows_i", "rows_j", "weight", "pool_i", "pool_j"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        first = draw_contrast(0, 1, (graphs[0], graphs[j]), a, 10)
        second = draw_contrast(0, 1, (graphs[0], part.graph(j)), b, 10)
        for name in ("anchors_i", "positives_i", "anchors_j", "positives_j", "exclude"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_a_file_holds_keys_and_signs_and_is_written_once(away):
    graphs, files = away
    found = read_partner(files[3])
    assert (found.name, found.species, found.n_genes) == ("mouse", "mouse", graphs[3].n_genes)
    np.testing.assert_array_equal(found.keys, graphs[3].keys)
    np.testing.assert_array_equal(found.neighbours.positive.toarray(), graphs[3].neighbours.positive.toarray())
    before = files[3].path.stat().st_mtime_ns
    write_partner(files[3].path, graphs[3])
    assert files[3].path.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PK")])
def test_a_missing_or_damaged_file_is_one_line_with_its_path(away, monkeypatch, damage):
    monkeypatch.setattr(partner_files, "VISIBLE_SECONDS", 0.2)
    _, files = away
    damage(files[1].path)
    with pytest.raises(RunError, match=r"E446.*lung-b"):
        read_partner(files[1])


@pytest.mark.parametrize("owner", [[0, 1, 0, 1], [1, 1, 0, 2], [0, 0, 0, 0]])
def test_processes_that_read_their_own_datasets_agree_with_one_that_reads_all(in_ranks, atlas, tmp_path, owner):
    store, config = atlas(training__rounds=2)
    whole = prepare(store, config)
    read = []

    class Counted:
        def read(self, name):
            read.append(name)
            return store.read(name)

    def work(rank, group):
        known = {}
        data, comm = prepare_together(Counted(), config, group, owner, tmp_path, known=known)
        again, _ = prepare_together(Counted(), config, group, owner, tmp_path, known=known)
        assert again.anchors == data.anchors
        assert comm._n_genes == [graph.n_genes for graph in whole.graphs]
        return data

    n = max(owner) + 1
    found = in_ranks(n, work)
    assert sorted(read) == sorted(graph.name for graph in whole.graphs)  # each once, by its owner
    for rank, data in enumerate(found):
        assert data.anchors == whole.anchors
        assert data.digests == whole.digests
        assert fingerprint(data, config) == fingerprint(whole, config)
        assert list(data.owned_graphs()) == [i for i, r in enumerate(owner) if r == rank]
        assert all(isinstance(g, GraphData) == (owner[i] == rank) for i, g in enumerate(data.graphs))
    assert not list((tmp_path / "partners").glob("genes-*"))


def test_the_same_data_twice_are_refused_whoever_reads_them(in_ranks, atlas, tmp_path):
    store, config = atlas(2)
    one, other = (store.records[name] for name in ("lung.a", "lung-b"))
    store.records["lung-b"] = type(one)(
        **{name: getattr(one, name) for name in one.__slots__ if name != "name"} | {"name": other.name}
    )

    with pytest.raises(InputError, match="E252"):
        in_ranks(2, lambda _, group: prepare_together(store, config, group, [0, 1], tmp_path))


def test_pairs_of_datasets_without_a_common_gene_are_found():
    random = np.random.default_rng(0)
    pool = np.array([f"g{k}" for k in range(40)])
    keys = [np.sort(random.permutation(pool)[: random.integers(0, 9)]) for _ in range(25)]
    expected = [(i, j) for i in range(25) for j in range(i + 1, 25) if not set(keys[i]) & set(keys[j])]
    assert disjoint_pairs(keys) == expected
    assert 50 < len(expected) < 250
    assert disjoint_pairs([]) == []
