"""Convolutions that stand in the place of the method's attention, for comparison.

They are layers of PyTorch Geometric where it has them. The frame around them (a layer per dataset, shared layers with a
second path, normalisation) stays the same, so that a comparison is one of convolutions. They keep messages of every
edge, or scores of all pairs of genes, in memory.

==============  ====================================================================================================
``gcn``         Kipf and Welling, ICLR 2017; signs and strengths of edges are not used
``gat``         Veličković et al., ICLR 2018, with edge features in the scores
``gps``         Rampášek et al., NeurIPS 2022: ``gat`` along edges plus attention between all genes
``graphormer``  Ying et al., NeurIPS 2021: attention between all genes, biased by hops, edges and degrees
``magna``       Wang et al., IJCAI 2021: attention along edges, diffused over several hops
==============  ====================================================================================================

Legend: N genes, E entries of a graph, H heads, D width of a head, F edge features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest import mock

import torch
from torch import nn
from torch.nn import functional

from musegnn.model.model import AtlasModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from musegnn.kernels.edge_attention import EdgeGraph

TELEPORT = 0.1
HOPS = 6
MAX_HOPS = 3
MAX_DEGREE_CLASS = 15


class Convolution(nn.Module, ABC):
    """A layer of N genes that maps node features to H heads of width D.

    Parameters
    ----------
    inputs
        Width of the node features.
    head_dim, heads
        D and H.
    edge_dim
        F; ``None``: edges have no features.
    """

    def __init__(self, inputs: int, head_dim: int, heads: int, *, edge_dim: int | None) -> None:
        super().__init__()
        self.head_dim, self.heads = head_dim, heads
        self.width = head_dim * heads

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all matrices anew (Glorot and Bengio, AISTATS 2010); biases become 0, scales 1."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)

    @abstractmethod
    def forward(self, x: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None) -> torch.Tensor:
        """Return (N, H * D) of `x` (N, inputs), the graph, and `edge_attr` (E, F)."""


class GCN(Convolution):
    """Mean of the neighbours and oneself, weighed by degrees."""

    def __init__(self, inputs: int, head_dim: int, heads: int, *, edge_dim: int | None) -> None:
        from torch_geometric.nn import GCNConv

        super().__init__(inputs, head_dim, heads, edge_dim=edge_dim)
        self.conv = GCNConv(inputs, self.width)

    def forward(self, x: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None) -> torch.Tensor:
        """Return (N, H * D)."""
        out: torch.Tensor = self.conv(x, edge_index(graph))
        return out


class GAT(Convolution):
    """Additive attention over the neighbours and oneself."""

    def __init__(self, inputs: int, head_dim: int, heads: int, *, edge_dim: int | None) -> None:
        from torch_geometric.nn import GATConv

        super().__init__(inputs, head_dim, heads, edge_dim=edge_dim)
        self.conv = GATConv(inputs, head_dim, heads, edge_dim=edge_dim)

    def forward(self, x: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None) -> torch.Tensor:
        """Return (N, H * D)."""
        out: torch.Tensor = self.conv(x, edge_index(graph), edge_attr)
        return out


class GPS(Convolution):
    """Attention along edges beside attention between all genes, then a perceptron."""

    def __init__(self, inputs: int, head_dim: int, heads: int, *, edge_dim: int | None) -> None:
        from torch_geometric.nn import GATConv, GPSConv

        super().__init__(inputs, head_dim, heads, edge_dim=edge_dim)
        self.into = nn.Linear(inputs, self.width)
        local = GATConv(self.width, head_dim, heads, edge_dim=edge_dim)
        self.conv = GPSConv(self.width, local, heads=heads, norm="graph_norm")

    def forward(self, x: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None) -> torch.Tensor:
        """Return (N, H * D)."""
        edges = {} if edge_attr is None else {"edge_attr": edge_attr}
        out: torch.Tensor = self.conv(self.into(x), edge_index(graph), **edges)
        return out


class _Block(Convolution):
    """A transformer block with normalisation first: mix the genes, then a perceptron, each added to its input."""

    def __init__(self, inputs: int, head_dim: int, heads: int, *, edge_dim: int | None) -> None:
        super().__init__(inputs, head_dim, heads, edge_dim=edge_dim)
        self.into = nn.Linear(inputs, self.width)
        self.norm_mix, self.norm_out = nn.LayerNorm(self.width), nn.LayerNorm(self.width)
        self.mixed = nn.Linear(self.width, self.width)
        self.hidden, self.out = nn.Linear(self.width, 2 * self.width), nn.Linear(2 * self.width, self.width)

    def forward(self, x: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None) -> torch.Tensor:
        """Return (N, H * D)."""
        h = self._place(self.into(x), graph)
        h = h + self.mixed(self._mix(self.norm_mix(h), graph, edge_attr).flatten(1))
        result: torch.Tensor = h + self.out(functional.gelu(self.hidden(self.norm_out(h))))
        return result

    def _place(self, h: torch.Tensor, graph: EdgeGraph) -> torch.Tensor:
        return h

    @abstractmethod
    def _mix(self, h: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None) -> torch.Tensor:
        """Return (N, H, D) of normalised genes `h`, (N, H * D)."""


class Graphormer(_Block):
    """Attention between all genes; scores have a bias per number of hops and per edge, genes one per degree."""

    def __init__(self, inputs: int, head_dim: int, heads: int, *, edge_dim: int | None) -> None:
        super().__init__(inputs, head_dim, heads, edge_dim=edge_dim)
        self.query_key_value = nn.Linear(self.width, 3 * self.width)
        self.hops = nn.Embedding(MAX_HOPS + 1, heads)
        self.degree = nn.Embedding(MAX_DEGREE_CLASS + 1, self.width)
        self.edge = nn.Linear(edge_dim, heads, bias=False) if edge_dim else None

    def _place(self, h: torch.Tensor, graph: EdgeGraph) -> torch.Tensor:
        degree = graph.rowptr.diff().to(h.dtype)
        place: torch.Tensor = self.degree(torch.log2(degree + 1).long().clamp(max=MAX_DEGREE_CLASS))
        return h + place

    def _mix(self, h: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None) -> torch.Tensor:
        bias = self.hops(hops(graph))
        if self.edge is not None and edge_attr is not None:
            bias = bias.index_put((graph.target, graph.col), self.edge(edge_attr), accumulate=True)
        q, k, v = self.query_key_value(h).view(len(h), 3, self.heads, self.head_dim).permute(1, 2, 0, 3)[:, None]
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.permute(2, 0, 1)[None])
        return mixed[0].transpose(0, 1)


class MAGNA(_Block):
    r"""Attention along edges, diffused: :math:`Z_{k+1} = (1 - \theta) A Z_k + \theta Z_0` for six hops."""

    def __init__(self, inputs: int, head_dim: int, heads: int, *, edge_dim: int | None) -> None:
        super().__init__(inputs, head_dim, heads, edge_dim=edge_dim)
        self.score_target, self.score_source = nn.Linear(self.width, heads), nn.Linear(self.width, heads)
        self.map_target, self.map_source = nn.Linear(self.width, self.width), nn.Linear(self.width, self.width)
        self.value = nn.Linear(self.width, self.width)
        self.edge = nn.Linear(edge_dim, heads, bias=False) if edge_dim else None

    def _mix(self, h: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None) -> torch.Tensor:
        from torch_geometric.utils import softmax

        target, source = graph.target, graph.col
        score = self.score_target(torch.tanh(self.map_target(h)))[target]
        score = score + self.score_source(torch.tanh(self.map_source(h)))[source]
        if self.edge is not None and edge_attr is not None:
            score = score + self.edge(edge_attr)
        weight = softmax(functional.leaky_relu(score, 0.2), target, num_nodes=len(h))[:, :, None]
        first = self.value(h).view(len(h), self.heads, self.head_dim)
        z: torch.Tensor = first
        for _ in range(HOPS):
            received = torch.zeros_like(z).index_add(0, target, weight * z[source])
            z = torch.add((1 - TELEPORT) * received, first, alpha=TELEPORT)
        return z


CONVOLUTIONS: dict[str, type[Convolution]] = {
    "gcn": GCN,
    "gat": GAT,
    "gps": GPS,
    "graphormer": Graphormer,
    "magna": MAGNA,
}


@contextmanager
def convolution(kind: str) -> Iterator[None]:
    """Make the layers of ``model.encoder: transformer`` of another convolution while the context is open."""
    with mock.patch.object(AtlasModel, "convolution", CONVOLUTIONS[kind]):
        yield


def edge_index(graph: EdgeGraph) -> torch.Tensor:
    """Return the sources and targets of the edges as PyTorch Geometric has them, (2, E)."""
    return torch.stack([graph.col, graph.target])


def hops(graph: EdgeGraph) -> torch.Tensor:
    """Count the hops between all genes, 0 to 2, and ``MAX_HOPS`` where there are more or no path, (N, N) int64."""
    n, device = graph.n_nodes, graph.col.device
    near = torch.zeros((n, n), device=device)
    near[graph.target, graph.col] = 1.0
    found = torch.full((n, n), MAX_HOPS, dtype=torch.int64, device=device)
    found[near @ near > 0] = 2
    found[near > 0] = 1
    return found.fill_diagonal_(0)
