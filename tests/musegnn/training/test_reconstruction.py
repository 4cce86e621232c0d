"""The reconstruction loss of parts against that of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from musegnn.config import AtlasConfig, TrainingConfig
from musegnn.model.decoder import make_decoder
from musegnn.training.pair_sampling import PairSampler
from musegnn.training.prepare import prepare
from musegnn.training.reconstruction import Reconstruction, row_block, tile_rows

DIM = 6


@pytest.fixture
def graph(atlas):
    """A graph of 40 genes with held-out edges and non-edges."""
    graph = prepare(*atlas(1, evaluation__holdout_edges=0.1)).graphs[0]
    assert len(graph.held_out.all[0]) > 4
    return graph


def made(kind, graph):
    decoder = make_decoder(kind, graph.n_genes, dim=DIM).double()
    decoder.reset_parameters(torch.Generator().manual_seed(1))
    return decoder


def vectors(graph):
    z = torch.randn(graph.n_genes, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return z.requires_grad_()


def whole(graph, decoder, z):
    """The mean over entries off the diagonal that are not held out, written out."""
    n = graph.n_genes
    target = torch.zeros(n, n, dtype=torch.float64)
    target[graph.edges.rows, graph.edges.indices] = 1.0
    keep = ~torch.eye(n, dtype=torch.bool)
    keep[graph.held_out.all] = keep[graph.held_out.all[::-1]] = False
    return functional.binary_cross_entropy_with_logits(decoder(z)[keep], target[keep])


def gradients(loss, decoder, z):
    return torch.autograd.grad(loss, [z, *decoder.parameters()])


@pytest.mark.parametrize("kind", ["mlp", "inner", "pairwise"])
@pytest.mark.parametrize("tile", [None, 7 * 40])
def test_all_entries_in_one_step_or_in_tiles(graph, kind, tile, monkeypatch):
    if tile is not None:
        monkeypatch.setattr("musegnn.training.reconstruction.TILE_ENTRIES", tile)
    decoder, z = made(kind, graph), vectors(graph)
    assert (tile_rows(decoder) < graph.n_genes) == (tile is not None)
    loss = Reconstruction(decoder, graph, TrainingConfig())(1, z)
    want = whole(graph, decoder, z)
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=1e-12)
    pairs = zip(gradients(2 * loss, decoder, z), gradients(2 * want, decoder, z), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(Reconstruction(decoder, graph, TrainingConfig())(1, z), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["mlp", "pairwise"])
@pytest.mark.parametrize("n_rows", [1, 8, 20])
def test_blocks_of_one_deal_average_to_the_whole(graph, kind, n_rows):
    """Exact, since these numbers of rows divide N = 40: loss and gradients."""
    decoder, z = made(kind, graph), vectors(graph)
    reconstruction = Reconstruction(decoder, graph, TrainingConfig(row_block=n_rows))
    turns = graph.n_genes // n_rows
    for deal in (0, 3):
        parts = [reconstruction(deal * turns + turn + 1, z) for turn in range(turns)]
        mean, want = torch.stack(parts).mean(), whole(graph, decoder, z)
        torch.testing.assert_close(mean, want, rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(gradients(mean, decoder, z), gradients(want, decoder, z), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_rows_of_a_deal_take_turns():
    turns = [row_block(3, round_, "lung", 11, 4) for round_ in range(1, 7)]
    for deal in (turns[:3], turns[3:]):
        assert [len(rows) for rows in deal] == [4, 4, 3]
        assert np.concatenate(deal).tolist() != list(range(11))
        assert sorted(np.concatenate(deal).tolist()) == list(range(11))
    assert turns[0].tolist() != turns[3].tolist()
    assert turns[0].tolist() != row_block(3, 1, "brain", 11, 4).tolist()
    np.testing.assert_array_equal(turns[1], row_block(3, 2, "lung", 11, 4))


def test_a_block_of_uneven_size_is_unbiased(graph):
    """40 rows in blocks of 13, 13, 13 and 1: the mean over deals of every turn is the loss of all."""
    decoder, z = made("inner", graph), vectors(graph).detach()
    reconstruction = Reconstruction(decoder, graph, TrainingConfig(row_block=13))
    want = whole(graph, decoder, z).item()
    for turn in (0, 3):
        losses = [reconstruction(4 * deal + turn + 1, z).item() for deal in range(1500)]
        error = np.std(losses) / np.sqrt(len(losses))
        assert abs(np.mean(losses) - want) < 4 * error
        assert error < 0.02 * want


@pytest.mark.parametrize("kind", ["inner", "pairwise"])
@pytest.mark.parametrize("tile", [None, 100 * DIM])
def test_all_pairs_give_the_loss_of_the_whole(graph, kind, tile, monkeypatch):
    if tile is not None:
        monkeypatch.setattr("musegnn.training.reconstruction.PAIR_TILE_ENTRIES", tile)
    decoder, z = made(kind, graph), vectors(graph)
    loss, want = Reconstruction(decoder, graph, TrainingConfig(pairs=10_000))(1, z), whole(graph, decoder, z)
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients(loss, decoder, z), gradients(want, decoder, z), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_drawn_pairs_are_what_they_are_called(graph):
    edges = set(zip(graph.edges.rows.tolist(), graph.edges.indices.tolist(), strict=True))
    hidden = set(zip(*(ends.tolist() for ends in graph.held_out.all), strict=True))
    hidden |= {(c, r) for r, c in hidden}
    for n in (None, 17):
        sampler = PairSampler(graph, seed=0, n=n)
        drawn = sampler.draw(3)
        pairs = list(zip(drawn.rows.tolist(), drawn.columns.tolist(), strict=True))
        assert all(r < c for r, c in pairs)
        assert hidden.isdisjoint(pairs)
        assert [pair in edges for pair in pairs] == (drawn.is_edge == 1).tolist()
        if n is None:
            assert len(set(pairs)) == len(pairs) == sampler.n_edges + sampler.n_others
            assert len(pairs) == 40 * 39 // 2 - len(hidden) // 2
        else:
            assert len(pairs) == 2 * n
    again = PairSampler(graph, seed=0, n=17).draw(3)
    assert all((a == b).all() for a, b in zip(again, drawn, strict=True))
    assert (PairSampler(graph, seed=0, n=17).draw(4).rows != drawn.rows).any()


@pytest.mark.parametrize("n", [1, 17, 150])
def test_every_pair_is_drawn_in_proportion_and_the_loss_is_unbiased(graph, n):
    decoder, z = made("pairwise", graph), vectors(graph).detach()
    sampler, rounds = PairSampler(graph, seed=5, n=n), 3000
    reconstruction = Reconstruction(decoder, graph, TrainingConfig(pairs=n, seed=5))
    size = graph.n_genes
    mass, losses = np.zeros((size, size)), []
    for round_ in range(1, rounds + 1):
        drawn = sampler.draw(round_)
        np.add.at(mass, (drawn.rows, drawn.columns), drawn.weight)
        losses.append(reconstruction(round_, z).item())
    n_all = sampler.n_edges + sampler.n_others
    assert mass.sum() / rounds == pytest.approx(1.0)
    expected = np.triu(np.ones((size, size)), 1)
    first = np.minimum(*graph.held_out.all), np.maximum(*graph.held_out.all)
    expected[first] = 0.0
    assert not mass[expected == 0].any()
    # A pair of the rarest kind is drawn rounds * n / size times, a Poisson number at most; 6 deviations for 780 pairs.
    found = mass[expected > 0] / rounds * n_all
    deviation = np.sqrt(max(sampler.n_edges, sampler.n_others) / (rounds * n))
    assert np.abs(found - 1.0).max() < 6 * deviation
    error = np.std(losses) / np.sqrt(rounds)
    want = whole(graph, decoder, z).item()
    assert abs(np.mean(losses) - want) < 4 * error
    assert error < 0.05 * want


def test_what_cannot_be_sampled_is_refused(graph):
    with pytest.raises(ValueError, match="single pairs"):
        Reconstruction(made("mlp", graph), graph, TrainingConfig(pairs=5))
    with pytest.raises(ValueError, match="choose one"):
        TrainingConfig(pairs=5, row_block=3)
    with pytest.raises(ValueError, match="diagonal"):
        TrainingConfig.model_validate({"pairs": 5, "published": {"diagonal": True}})
    dataset = {"name": "a", "path": "a.h5ad", "modality": "scrna", "tissue": "lung", "species": "human"}
    with pytest.raises(ValueError, match="`mlp` decoder scores whole rows"):
        AtlasConfig.model_validate({"datasets": [dataset], "model": {"decoder": "mlp"}, "training": {"pairs": 5}})
