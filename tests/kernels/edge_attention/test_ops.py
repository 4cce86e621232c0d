"""The operator under torch.compile: one graph, and the numbers of eager mode."""

from __future__ import annotations

import shutil

import pytest
import torch

from musegnn.kernels.edge_attention import edge_graph
from musegnn.model.conv import EdgeFeaturedTransformerConv


@pytest.mark.parametrize(
    ("impl", "backend"),
    [
        ("auto", "aot_eager"),
        ("numba", "aot_eager"),
        ("reference", "aot_eager"),
        pytest.param("numba", "inductor", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("edge_dim", [None, 2])
def test_layer_compiles_as_one_graph(impl: str, backend: str, edge_dim: int | None) -> None:
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor compiles C++, and there is no g++")
    torch.manual_seed(0)
    torch.compiler.reset()
    graph = edge_graph([0, 2, 3, 3, 5], [1, 2, 0, 0, 3])
    conv = EdgeFeaturedTransformerConv(3, 4, 2, edge_dim=edge_dim, dropout=0.2).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)  # in float32 the compiler takes another library
    edge_attr = None if edge_dim is None else torch.randn(graph.n_edges, edge_dim, dtype=torch.float64)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return conv(x, graph, edge_attr, seed=3, impl=impl)

    results = []
    for function in (forward, torch.compile(forward, fullgraph=True, backend=backend)):
        out = function(x)
        results.append((out, *torch.autograd.grad(out.square().sum(), [x, *conv.parameters()], allow_unused=True)))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)
