"""Both layers with the same weights, for the timed comparison on the CPU, its gate and its memory probe.

Legend: N nodes, E edges, H heads, D head dimension, F edge attributes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch_geometric.nn import TransformerConv

from musegnn.kernels.edge_attention import edge_graph
from musegnn.model.conv import EdgeFeaturedTransformerConv

if TYPE_CHECKING:
    from musegnn.kernels.edge_attention import EdgeGraph

HEADS, DIM, ATTRIBUTES, WIDTH = 4, 32, 2, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Both layers with the same weights, and their inputs.

    Attributes
    ----------
    ours, theirs
        The layers.
    x, edge_attr, weight
        (N, 128) node features, which take a gradient as those of a hidden layer do, (E, F) edge features in CSR order,
        which take none, and the (N, H * D) gradient of the loss.
    graph, edge_index
        One graph in the form that each layer takes, both sorted by target.
    """

    ours: EdgeFeaturedTransformerConv
    theirs: TransformerConv
    x: torch.Tensor
    edge_attr: torch.Tensor
    weight: torch.Tensor
    graph: EdgeGraph
    edge_index: torch.Tensor

    def run_ours(self) -> list[torch.Tensor]:
        """Forward and backward; the output, and the gradients of x and of the parameters."""
        return self._differentiate(self.ours, self.ours(self.x, self.graph, self.edge_attr))

    def run_theirs(self) -> list[torch.Tensor]:
        """Do the same with PyG's layer."""
        return self._differentiate(self.theirs, self.theirs(self.x, self.edge_index, self.edge_attr))

    def names(self) -> list[str]:
        """Name the results."""
        return ["out", "x.grad", *(f"{name}.grad" for name, _ in self.ours.named_parameters())]

    def _differentiate(self, layer: torch.nn.Module, out: torch.Tensor) -> list[torch.Tensor]:
        return [out.detach(), *torch.autograd.grad(out, [self.x, *layer.parameters()], self.weight)]


def random_graph(n_nodes: int, density: float, seed: int = 0) -> EdgeGraph:
    """Draw every edge with the same probability."""
    rng = np.random.default_rng(seed)
    degree = rng.binomial(n_nodes, density, n_nodes)
    indptr = np.concatenate([[0], np.cumsum(degree)])
    return edge_graph(indptr, np.concatenate([np.sort(rng.choice(n_nodes, d, replace=False)) for d in degree]))


def setting(n_nodes: int, density: float, dtype: torch.dtype = torch.float32, seed: int = 0) -> Setting:
    """Draw a setting; the numbers are drawn in float32 whatever the dtype."""
    torch.manual_seed(seed)
    graph = random_graph(n_nodes, density, seed)
    theirs = TransformerConv(WIDTH, DIM, heads=HEADS, edge_dim=ATTRIBUTES)
    ours = EdgeFeaturedTransformerConv(WIDTH, DIM, heads=HEADS, edge_dim=ATTRIBUTES)
    ours.load_state_dict(theirs.state_dict())
    return Setting(
        ours=ours.to(dtype),
        theirs=theirs.to(dtype),
        x=torch.randn(n_nodes, WIDTH).to(dtype).requires_grad_(),
        edge_attr=torch.randn(graph.n_edges, ATTRIBUTES).to(dtype),
        weight=torch.randn(n_nodes, HEADS * DIM).to(dtype),
        graph=graph,
        edge_index=torch.stack([graph.col, graph.target]),
    )
