"""A training step, and many graphs in one launch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch_geometric.nn import TransformerConv

from benchmarks.attention.graphs import make_graph
from benchmarks.attention.timing import time_jobs
from benchmarks.gpu_sections import Item
from benchmarks.registry import Measurement
from musegnn.kernels.edge_attention import batch_graphs
from musegnn.model.conv import EdgeFeaturedTransformerConv
from musegnn.model.decoder import MLPDecoder
from musegnn.model.encoder import DatasetLayer, SharedLayers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.gpu_sections import Setting
    from musegnn.kernels.edge_attention import EdgeGraph

WIDTH, DIM, HEADS, N_ATTRIBUTES = 64, 32, 4, 2


class PyGConv(nn.Module):
    """PyG's layer with the parameters and the call of ours."""

    def __init__(self, conv: EdgeFeaturedTransformerConv) -> None:
        super().__init__()
        self.conv = TransformerConv(conv.in_channels, conv.out_channels, conv.heads, edge_dim=conv.edge_dim)
        self.conv.load_state_dict(conv.state_dict())

    def forward(
        self, x: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None, *, seed: int = 0
    ) -> torch.Tensor:
        """Apply it."""
        del seed
        out: torch.Tensor = self.conv(x, torch.stack([graph.col, graph.target]), edge_attr)
        return out


class Step:
    """Encoder, decoder, cross-entropy of all pairs and Adam on one dataset."""

    def __init__(self, graph: EdgeGraph, *, pyg: bool) -> None:
        device, n_nodes = graph.col.device, graph.n_nodes
        torch.manual_seed(0)
        own = DatasetLayer(WIDTH, DIM, HEADS, edge_dim=N_ATTRIBUTES)
        shared = SharedLayers(DIM * HEADS, DIM, 2, head_dim=DIM, edge_dim=N_ATTRIBUTES)
        if pyg:
            own.conv = PyGConv(own.conv)
            shared.first, shared.second, shared.residual = map(PyGConv, (shared.first, shared.second, shared.residual))
        self.modules = nn.ModuleList([own, shared, MLPDecoder(n_nodes)]).to(device)
        self.optimiser = torch.optim.Adam(self.modules.parameters(), lr=1e-3)
        self.graph = graph
        self.x = torch.randn((n_nodes, WIDTH), device=device)
        self.edge_attr = torch.randn((graph.n_edges, N_ATTRIBUTES), device=device)
        self.target = torch.zeros((n_nodes, n_nodes), device=device)
        self.target[graph.target, graph.col] = 1.0

    def __call__(self) -> torch.Tensor:
        """Take one step and give the loss."""
        own, shared, decoder = self.modules
        z = shared(own(self.x, self.graph, self.edge_attr), self.graph, self.edge_attr)
        loss = nn.functional.binary_cross_entropy_with_logits(decoder(z), self.target)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()


def step_items(setting: Setting) -> Iterator[Item]:
    """List training steps in float32 with ours and with PyG's layers."""
    for n_nodes in (30,) if setting.dry else (1000, 2000):
        yield Item(f"{n_nodes} d=0.05 mlp decoder fp32", partial(_measure_step, setting, n_nodes))


def batch_items(setting: Setting) -> Iterator[Item]:
    """List layers on 82 graphs of mixed densities, in one call and one after the other."""
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        if name not in setting.wrong:
            yield Item(f"82 graphs {name}", partial(_measure_batch, setting, dtype))


def _measure_step(setting: Setting, n_nodes: int) -> Iterator[Measurement]:
    graph = make_graph("uniform", n_nodes, 0.05, setting.device)
    jobs = {"ours": Step(graph, pyg=False), "pyg": Step(graph, pyg=True)}
    seconds = time_jobs(jobs, setting.device, seconds=0.0 if setting.dry else 3.0)
    yield Measurement(
        shape=f"{n_nodes} d=0.05 mlp decoder fp32", metric="step", value=seconds["ours"] * 1e3, unit="ms",
        baseline="the same with PyG's layers" if "pyg" in seconds else "",
        baseline_value=seconds["pyg"] * 1e3 if "pyg" in seconds else None,
    )  # fmt: skip


def _measure_batch(setting: Setting, dtype: torch.dtype) -> Iterator[Measurement]:
    count, n_nodes = (3, 24) if setting.dry else (82, 1000)
    graphs = [
        make_graph("uniform", n_nodes, (0.01, 0.05, 0.1, 0.2, 0.3)[i % 5], setting.device, seed=i) for i in range(count)
    ]
    whole = batch_graphs(graphs)
    options = {"device": setting.device, "dtype": dtype}
    conv = EdgeFeaturedTransformerConv(WIDTH, DIM, HEADS, edge_dim=N_ATTRIBUTES).to(**options)
    x = torch.randn((count * n_nodes, WIDTH), **options)
    attributes = [torch.randn((graph.n_edges, N_ATTRIBUTES), **options) for graph in graphs]
    joined, parts = torch.cat(attributes), list(x.split(n_nodes))

    def together() -> None:
        conv(x, whole, joined, impl=setting.impl).square().sum().backward()

    def apart() -> None:
        for part, graph, attribute in zip(parts, graphs, attributes, strict=True):
            conv(part, graph, attribute, impl=setting.impl).square().sum().backward()

    seconds = time_jobs({"together": together, "apart": apart}, setting.device, seconds=0.0 if setting.dry else 5.0)
    yield Measurement(
        shape=f"{count}x{n_nodes} d=0.01..0.3 {str(dtype).removeprefix('torch.')}", metric="graphs_fwd_bwd",
        value=seconds["together"] * 1e3, unit="ms", baseline="one graph after the other",
        baseline_value=seconds["apart"] * 1e3,
    )  # fmt: skip
