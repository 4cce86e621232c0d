"""GraphNorm against PyG's."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.nn import GraphNorm as PyGGraphNorm

from musegnn.model.norm import GraphNorm


@pytest.mark.parametrize("n_nodes", [1, 2, 37])
def test_equals_pyg_forward_and_every_gradient(n_nodes: int) -> None:
    torch.manual_seed(0)
    ours, theirs = GraphNorm(6).double(), PyGGraphNorm(6).double()
    state = {name: torch.randn_like(value) for name, value in theirs.state_dict().items()}
    for layer in (ours, theirs):
        layer.load_state_dict(state)
    x = torch.randn(n_nodes, 6, dtype=torch.float64)
    weight = torch.randn_like(x)
    grads = []
    for layer in (ours, theirs):
        x_in = x.clone().requires_grad_()
        out = layer(x_in)
        (out * weight).sum().backward()
        grads.append([out, x_in.grad, *(p.grad for _, p in sorted(layer.named_parameters()))])
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_reset_gives_zero_mean_and_unit_variance() -> None:
    norm = GraphNorm(3)
    torch.nn.init.constant_(norm.bias, 7.0)
    norm.reset_parameters()
    out = norm(torch.randn(500, 3) * 5 + 2)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)
