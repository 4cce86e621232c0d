"""The convolution called as PyG's TransformerConv is: the same arguments, edges in any order, attention weights."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch_geometric.nn import TransformerConv

from musegnn.kernels.edge_attention import EdgeGraph, edge_graph_from_pairs
from musegnn.kernels.edge_attention import weights as weights_module
from musegnn.model.conv import EdgeFeaturedTransformerConv

F64 = torch.float64
N, E = 12, 60


def pair(dtype: torch.dtype = F64, **options: object) -> tuple[EdgeFeaturedTransformerConv, TransformerConv]:
    torch.manual_seed(0)
    arguments = {"heads": 3, "edge_dim": 2} | options
    theirs = TransformerConv(5, 4, **arguments).to(dtype)
    ours = EdgeFeaturedTransformerConv(5, 4, **arguments).to(dtype)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def inputs(n_edges: int = E) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    flat = np.random.default_rng(0).permutation(N * N)[:n_edges]
    generator = torch.Generator().manual_seed(0)
    x, attr = (torch.randn(*shape, dtype=F64, generator=generator) for shape in ((N, 5), (n_edges, 2)))
    return x, torch.from_numpy(np.stack([flat // N, flat % N])), attr


def test_arguments_have_the_names_order_and_defaults_of_pyg() -> None:
    ours, theirs = (inspect.signature(layer).parameters for layer in (EdgeFeaturedTransformerConv, TransformerConv))
    assert list(ours) == [name for name in theirs if name != "kwargs"]
    assert [p.default for p in ours.values()] == [theirs[name].default for name in ours]
    call, their_call = (
        list(inspect.signature(layer.forward).parameters.values())
        for layer in (EdgeFeaturedTransformerConv, TransformerConv)
    )
    for mine, other in zip(call, their_call, strict=False):
        assert (mine.name, mine.default) == (other.name, other.default)


@pytest.mark.parametrize("n_edges", [E, 0])
def test_same_call_gives_the_same_output_gradients_and_weights(n_edges: int) -> None:
    ours, theirs = pair()
    x, edge_index, attr = inputs(n_edges)
    results = []
    for layer in (ours, theirs):
        x_in, attr_in = x.clone().requires_grad_(), attr.clone().requires_grad_()
        out, (edges, alpha) = layer(x_in, edge_index, attr_in, return_attention_weights=True)
        grads = torch.autograd.grad(out.square().sum(), [x_in, attr_in])
        assert torch.equal(edges, edge_index)
        results.append([out, alpha, *grads])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_without_edge_features() -> None:
    ours, theirs = pair(edge_dim=None)
    x, edge_index, _ = inputs()
    for got, want in zip(ours(x, edge_index, None, True)[1], theirs(x, edge_index, None, True)[1], strict=True):
        torch.testing.assert_close(got, want)


def test_weights_of_a_graph_are_in_its_order_and_sum_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = pair()
    x, (source, target), attr = inputs()
    graph, order = edge_graph_from_pairs(source, target, N)
    _, (edges, alpha) = ours(x, graph, attr[order], return_attention_weights=True)
    assert torch.equal(edges, torch.stack([source, target])[:, order])
    sums = torch.zeros(N, 3, dtype=F64).index_add(0, edges[1], alpha)
    torch.testing.assert_close(sums[target.unique()], torch.ones(len(target.unique()), 3, dtype=F64))
    assert not alpha.requires_grad
    monkeypatch.setattr(weights_module, "CHUNK", 7)
    assert torch.equal(ours(x, graph, attr[order], return_attention_weights=True)[1][1], alpha)


@pytest.mark.parametrize("options", [{}, {"edge_dim": None}, {"beta": True}, {"concat": False}, {"bias": False}])
def test_weights_load_strictly_both_ways(options: dict) -> None:
    ours, theirs = pair(**options)
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(
            torch.linspace(-1, 1, sum(map(torch.numel, ours.parameters()))).to(F64), ours.parameters()
        )
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x, edge_index, attr = inputs()
    attr = attr if ours.edge_dim else None
    torch.testing.assert_close(ours(x, edge_index, attr), theirs(x, edge_index, attr), rtol=1e-10, atol=1e-10)


def test_compiles_as_one_graph() -> None:
    ours, _ = pair(torch.float32)
    x, (source, target), attr = inputs()
    graph, order = edge_graph_from_pairs(source, target, N)
    x, attr = x.float().requires_grad_(), attr[order].float()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    results = []
    for layer in (compiled, ours):
        out = layer(x, graph, attr)
        results.append([out, *torch.autograd.grad(out.square().sum(), [x, *ours.parameters()])])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


def test_dropout_without_a_seed_follows_the_generator_of_torch() -> None:
    ours, _ = pair(dropout=0.5)
    x, edge_index, attr = inputs()
    torch.manual_seed(1)
    one, other = ours(x, edge_index, attr), ours(x, edge_index, attr)
    assert not torch.equal(one, other)
    torch.manual_seed(1)
    assert torch.equal(ours(x, edge_index, attr), one)


@pytest.mark.parametrize("in_channels", [(5, 5), -1, 0])
def test_other_widths_are_refused(in_channels: object) -> None:
    with pytest.raises(ValueError, match=r"one positive number.*bipartite"):
        EdgeFeaturedTransformerConv(in_channels, 4)


def test_what_is_no_graph_is_refused() -> None:
    ours, _ = pair()
    x, edge_index, attr = inputs()
    with pytest.raises(TypeError, match="bipartite"):
        ours((x, x), edge_index, attr)
    with pytest.raises(TypeError, match=r"shape \(2, E\), got \(60, 2\)"):
        ours(x, edge_index.T, attr)
    with pytest.raises(TypeError, match="got list"):
        ours(x, edge_index.tolist(), attr)
    with pytest.raises(ValueError, match="each of 60 edges, got 59"):
        ours(x, edge_index, attr[1:])
    with pytest.raises(ValueError, match="repeated edges"):
        ours(x, torch.cat([edge_index, edge_index[:, :1]], 1), torch.cat([attr, attr[:1]]))
    assert isinstance(edge_graph_from_pairs(*edge_index, N)[0], EdgeGraph)
