"""The convolution against PyG's TransformerConv, and laws that attention on a graph obeys."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import TransformerConv

from musegnn.kernels.edge_attention import edge_graph_from_pairs
from musegnn.model.conv import EdgeFeaturedTransformerConv, init_linear

F64 = torch.float64


def random_edges(n_nodes: int, n_edges: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw distinct directed edges in random order."""
    rng = np.random.default_rng(seed)
    flat = rng.permutation(n_nodes * n_nodes)[:n_edges]
    return flat // n_nodes, flat % n_nodes


def hub_edges(n_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Let node 0 receive from all others and nobody else receive."""
    return np.arange(1, n_nodes), np.zeros(n_nodes - 1, dtype=np.int64)


EDGES = {
    "random": (30, *random_edges(30, 150, 0)),
    "dense": (9, *random_edges(9, 81, 1)),
    "empty_rows": (40, *random_edges(40, 12, 2)),
    "hub": (17, *hub_edges(17)),
    "no_edges": (6, *random_edges(6, 0, 3)),
    "one_node": (1, *random_edges(1, 0, 4)),
    "one_node_loop": (1, *random_edges(1, 1, 5)),
}
OPTIONS = {
    "default": {},
    "no_edge_features": {"edge_dim": None},
    "mean": {"concat": False},
    "beta": {"beta": True},
    "beta_mean": {"beta": True, "concat": False},
    "no_bias": {"bias": False},
    "no_root": {"root_weight": False, "beta": True},
    "one_head": {"heads": 1},
}


def close(got: torch.Tensor, want: torch.Tensor, name: str) -> None:
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10, msg=lambda text: f"{name}: {text}")


def pair_of_layers(**options: object) -> tuple[EdgeFeaturedTransformerConv, TransformerConv]:
    settings_ = {"heads": 3, "edge_dim": 2} | options
    torch.manual_seed(0)
    theirs = TransformerConv(5, 4, **settings_).to(F64)
    ours = EdgeFeaturedTransformerConv(5, 4, **settings_).to(F64)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("options", OPTIONS)
def test_equals_pyg_forward_and_every_gradient(edges: str, options: str) -> None:
    ours, theirs = pair_of_layers(**OPTIONS[options])
    n_nodes, source, target = EDGES[edges]
    graph, order = edge_graph_from_pairs(source, target, n_nodes)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n_nodes, 5, dtype=F64, generator=generator)
    attr = torch.randn(len(source), 2, dtype=F64, generator=generator) if ours.edge_dim else None
    weight = torch.randn(n_nodes, ours(x, graph, None if attr is None else attr[order]).shape[1], dtype=F64)
    results = []
    for layer in (theirs, ours):
        x_in = x.clone().requires_grad_()
        attr_in = None if attr is None else attr.clone().requires_grad_()
        if layer is theirs:
            out = layer(x_in, torch.from_numpy(np.stack([source, target])), attr_in)
        else:
            out = layer(x_in, graph, None if attr_in is None else attr_in[order])
        (out * weight).sum().backward()
        results.append((out, x_in.grad, None if attr_in is None else attr_in.grad))
    names = ["out", "x.grad", "edge_attr.grad"]
    for name, want, got in zip(names, *results, strict=True):
        if want is not None:
            close(got, want, name)
    for (name, want), (same, got) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert name == same
        if want.grad is None:
            assert got.grad is None or not got.grad.any()
        else:
            close(got.grad, want.grad, name)


@pytest.mark.parametrize("options", OPTIONS)
def test_state_dict_loads_both_ways(options: str) -> None:
    ours, theirs = pair_of_layers(**OPTIONS[options])
    ours.reset_parameters(torch.Generator().manual_seed(3))
    theirs.load_state_dict(ours.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name


def layer_and_graph(seed: int) -> tuple[EdgeFeaturedTransformerConv, torch.Tensor, tuple, torch.Tensor]:
    layer = EdgeFeaturedTransformerConv(4, 3, heads=2, edge_dim=2).to(F64)
    layer.reset_parameters(torch.Generator().manual_seed(seed))
    n_nodes = 3 + seed % 9
    edges = random_edges(n_nodes, (seed * 7) % (n_nodes * n_nodes), seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_nodes, 4, dtype=F64, generator=generator)
    attr = torch.randn(len(edges[0]), 2, dtype=F64, generator=generator)
    return layer, x, edges, attr


def apply(layer: EdgeFeaturedTransformerConv, x: torch.Tensor, edges: tuple, attr: torch.Tensor) -> torch.Tensor:
    graph, order = edge_graph_from_pairs(*edges, x.shape[0])
    out: torch.Tensor = layer(x, graph, attr[order])
    return out


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_in_which_edges_are_listed_does_not_matter(seed: int) -> None:
    layer, x, (source, target), attr = layer_and_graph(seed)
    shuffle = np.random.default_rng(seed).permutation(len(source))
    shuffled = apply(layer, x, (source[shuffle], target[shuffle]), attr[shuffle])
    assert torch.equal(shuffled, apply(layer, x, (source, target), attr))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_relabelling_nodes_relabels_the_output(seed: int) -> None:
    layer, x, (source, target), attr = layer_and_graph(seed)
    label = np.random.default_rng(seed).permutation(x.shape[0])
    x_relabelled = torch.empty_like(x)
    x_relabelled[label] = x
    relabelled = apply(layer, x_relabelled, (label[source], label[target]), attr)
    close(relabelled[label], apply(layer, x, (source, target), attr), "out")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_isolated_node_changes_no_other_node(seed: int) -> None:
    layer, x, edges, attr = layer_and_graph(seed)
    more = torch.cat([x, torch.ones(1, 4, dtype=F64)])
    out = apply(layer, more, edges, attr)
    close(out[:-1], apply(layer, x, edges, attr), "others")
    close(out[-1], layer.lin_skip(more[-1]), "isolated")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_bias_of_keys_has_no_effect(seed: int) -> None:
    layer, x, edges, attr = layer_and_graph(seed)
    before = apply(layer, x, edges, attr)
    with torch.no_grad():
        layer.lin_key.bias += 3.0
    close(apply(layer, x, edges, attr), before, "out")


def test_reset_is_a_function_of_the_generator_and_uses_the_fan_in() -> None:
    layer = EdgeFeaturedTransformerConv(64, 8, heads=4, edge_dim=2)
    layer.reset_parameters(torch.Generator().manual_seed(5), fan_in=10_000)
    first = {name: value.clone() for name, value in layer.state_dict().items()}
    assert float(layer.lin_key.weight.detach().abs().max()) <= 0.01
    assert float(layer.lin_edge.weight.detach().abs().max()) > 0.01
    layer.reset_parameters(torch.Generator().manual_seed(5), fan_in=10_000)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, first[name]), name


def test_init_has_the_spread_of_pyg() -> None:
    linear = torch.nn.Linear(100, 2000)
    init_linear(linear, generator=torch.Generator().manual_seed(0))
    assert float(linear.weight.detach().abs().max()) == pytest.approx(0.1, rel=1e-3)
    assert float(linear.weight.detach().std()) == pytest.approx(0.1 / 3**0.5, rel=1e-2)


def test_dropout_acts_in_training_only_and_is_keyed_by_the_seed() -> None:
    layer, x, edges, attr = layer_and_graph(17)
    layer.dropout = 0.5
    graph, order = edge_graph_from_pairs(*edges, x.shape[0])
    one, same, other = (layer(x, graph, attr[order], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    layer.eval()
    plain = layer(x, graph, attr[order], seed=1)
    layer.dropout = 0.0
    assert torch.equal(plain, layer.train()(x, graph, attr[order], seed=2))


def test_edge_attributes_must_fit_the_layer() -> None:
    layer, x, edges, attr = layer_and_graph(3)
    graph, order = edge_graph_from_pairs(*edges, x.shape[0])
    with pytest.raises(ValueError, match="edge_attr=None"):
        layer(x, graph)
    with pytest.raises(ValueError, match="u must have shape"):
        layer(x, graph, attr[order][:, :1])


def test_representation_names_the_sizes() -> None:
    assert "5, 4, heads=3, edge_dim=2" in repr(EdgeFeaturedTransformerConv(5, 4, heads=3, edge_dim=2))
