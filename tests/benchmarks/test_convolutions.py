"""Every convolution: equal under relabelling, seeded, trained; each against a dense form of its equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import shortest_path
from torch.nn import functional

from benchmarks.peers.convolutions import CONVOLUTIONS, HOPS, MAX_HOPS, TELEPORT, convolution, hops
from benchmarks.training import Workload
from musegnn.kernels.edge_attention import edge_graph

N, INPUTS, HEADS, WIDTH = 12, 7, 2, 3
KINDS = tuple(CONVOLUTIONS)


@pytest.fixture
def graph():
    dense = np.triu(np.random.default_rng(0).random((N, N)) < 0.3, 1)
    dense[:, -1] = False  # the last gene is alone
    rows, columns = np.nonzero(dense | dense.T)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=N))])
    generator = torch.Generator().manual_seed(1)
    return edge_graph(indptr, columns), torch.rand(len(columns), 2, dtype=torch.float64, generator=generator)


def make(kind, *, edge_dim=2, seed=0):
    conv = CONVOLUTIONS[kind](INPUTS, WIDTH, HEADS, edge_dim=edge_dim).double()
    conv.reset_parameters(torch.Generator().manual_seed(seed))
    return conv


def features(seed=0):
    return torch.randn(N, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense(graph):
    adjacency = torch.zeros(N, N, dtype=torch.float64)
    adjacency[graph.target, graph.col] = 1.0
    return adjacency


@pytest.mark.parametrize("kind", KINDS)
def test_relabelling_genes_relabels_vectors(kind, graph):
    edges, attributes = graph
    conv, x = make(kind), features()
    order = torch.from_numpy(np.random.default_rng(2).permutation(N))
    place = torch.argsort(order)
    target, source = place[edges.target], place[edges.col]
    by = np.lexsort((source.numpy(), target.numpy()))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(target.numpy(), minlength=N))])
    permuted = edge_graph(indptr, source.numpy()[by])
    out = conv(x, edges, attributes)
    assert out.shape == (N, HEADS * WIDTH)
    torch.testing.assert_close(out[order], conv(x[order], permuted, attributes[by]))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_follow_the_generator_alone(kind):
    one, two, other = make(kind), make(kind), make(kind, seed=1)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_all_weights_get_gradients(kind, graph):
    edges, attributes = graph
    conv = make(kind)
    out = conv(features(), edges, attributes)
    (out * torch.randn_like(out)).sum().backward()
    missing = [name for name, p in conv.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not missing


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "gcn"])
def test_edge_features_matter_where_the_kind_has_them(kind, graph):
    edges, attributes = graph
    conv, x = make(kind), features()
    assert not torch.allclose(conv(x, edges, attributes), conv(x, edges, attributes.flip(0)))
    plain = make(kind, edge_dim=None)
    assert torch.isfinite(plain(x, edges, None)).all()


def test_gcn_is_the_normalised_mean(graph):
    edges, attributes = graph
    conv, x = make("gcn"), features()
    loops = dense(edges) + torch.eye(N, dtype=torch.float64)
    scale = loops.sum(1).rsqrt()
    expected = scale[:, None] * (loops @ (scale[:, None] * (x @ conv.conv.lin.weight.T))) + conv.conv.bias
    torch.testing.assert_close(conv(x, edges, attributes), expected)


def test_hops_are_shortest_paths(graph):
    edges, _ = graph
    expected = np.minimum(shortest_path(dense(edges).numpy(), unweighted=True), MAX_HOPS)
    np.testing.assert_array_equal(hops(edges).numpy(), expected)


def test_graphormer_adds_its_biases_to_the_scores(graph):
    edges, attributes = graph
    conv, x = make("graphormer"), features()
    degree = torch.log2(edges.rowptr.diff().double() + 1).long()
    h = conv.into(x) + conv.degree(degree)
    q, k, v = conv.query_key_value(conv.norm_mix(h)).view(N, 3, HEADS, WIDTH).unbind(1)
    bias = conv.hops(hops(edges)).clone()
    bias[edges.target, edges.col] += conv.edge(attributes)
    weight = (torch.einsum("ihd,jhd->ijh", q, k) / WIDTH**0.5 + bias).softmax(1)
    h = h + conv.mixed(torch.einsum("ijh,jhd->ihd", weight, v).flatten(1))
    expected = h + conv.out(functional.gelu(conv.hidden(conv.norm_out(h))))
    torch.testing.assert_close(conv(x, edges, attributes), expected)


def test_magna_is_a_polynomial_of_its_attention(graph):
    edges, attributes = graph
    conv = make("magna")
    h = conv.norm_mix(conv.into(features()))
    to, of = conv.score_target(torch.tanh(conv.map_target(h))), conv.score_source(torch.tanh(conv.map_source(h)))
    expected = []
    for head in range(HEADS):
        score = torch.full((N, N), -torch.inf, dtype=torch.float64)
        raw = to[edges.target, head] + of[edges.col, head] + conv.edge(attributes)[:, head]
        score[edges.target, edges.col] = functional.leaky_relu(raw, 0.2)
        weight = score.softmax(1).nan_to_num(0.0)
        powers = [torch.linalg.matrix_power((1 - TELEPORT) * weight, k) for k in range(HOPS + 1)]
        diffusion = TELEPORT * sum(powers[:-1]) + powers[-1]
        expected.append(diffusion @ conv.value(h).view(N, HEADS, WIDTH)[:, head])
    torch.testing.assert_close(conv._mix(h, edges, attributes), torch.stack(expected, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_models_train_with_every_kind(kind):
    work = Workload(n_datasets=2, n_genes=60, n_cells=20, density=0.1)
    with convolution(kind):
        engine = work.engine({"edge_features": True}, {})
    assert type(engine.model.units["dataset/dataset0/layer"].layer.conv) is CONVOLUTIONS[kind]
    before = {name: p.detach().clone() for name, p in engine.model.named_parameters()}
    rows = engine.round(1)
    assert all(np.isfinite(row["loss"]) for row in rows)
    changed = [name for name, p in engine.model.named_parameters() if not p.equal(before[name])]
    assert any(".conv." in name for name in changed)
    assert type(work.engine({}, {}).model.units["dataset/dataset0/layer"].layer.conv) is not CONVOLUTIONS[kind]
