"""The encoder: a layer of each dataset's own, then layers that datasets share.

``z = D(L(x, graph), graph)`` with ``D(h) = D3(D2(h)) + D4(h)``.

Legend: N genes, H heads, d dimensions of the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from musegnn.model.norm import GraphNorm
from musegnn.model.variants import Convolution, make_convolution

if TYPE_CHECKING:
    from musegnn.kernels.edge_attention import EdgeGraph
    from musegnn.model.conv import EdgeFeaturedTransformerConv


class DatasetLayer(nn.Module):
    """Layer L of one dataset: attention with several heads, normalisation over the graph, Mish.

    Parameters
    ----------
    width
        Node features per gene.
    head_dim
        Width of each head.
    heads
        H.
    edge_dim
        Edge features; ``None``: none.
    edge_dropout
        Share of attention weights dropped while training.
    convolution
        A name of :data:`musegnn.model.variants.CONVOLUTIONS`.
    """

    def __init__(
        self,
        width: int,
        head_dim: int,
        heads: int,
        *,
        edge_dim: int | None,
        edge_dropout: float = 0.0,
        convolution: str = "transformer",
    ) -> None:
        super().__init__()
        self.width = width
        self.conv = make_convolution(convolution, width, head_dim, heads, edge_dim=edge_dim, dropout=edge_dropout)
        self.norm = GraphNorm(head_dim * heads)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew; where datasets share the meaning of `x`, from generators seeded alike."""
        self.conv.reset_parameters(generator)
        self.norm.reset_parameters()

    def forward(
        self, x: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None, *, seed: int = 0
    ) -> torch.Tensor:
        """Return the hidden vectors, shape (N, H * head_dim), of node features `x`, shape (N, width)."""
        return functional.mish(self.norm(self.conv(x, graph, edge_attr, seed=seed)))


class SharedLayers(nn.Module):
    """Layers D2, D3 and D4 of a group of datasets, e.g. of one modality.

    Parameters
    ----------
    width
        Columns of the hidden vectors that dataset layers give.
    dim
        d.
    heads
        H of the first layer.
    head_dim
        Width of each head, which divides `dim`; the other layers have as many heads as make up d.
    edge_dim
        Edge features; ``None``: none.
    edge_dropout
        Share of attention weights dropped while training.
    convolution
        A name of :data:`musegnn.model.variants.CONVOLUTIONS`.
    gated
        Multiply the result by a weight that starts at zero, for layers that correct vectors they start from (ReZero).

    References
    ----------
    Bachlechner et al., "ReZero is all you need", UAI 2021.
    """

    def __init__(
        self,
        width: int,
        dim: int,
        heads: int,
        *,
        head_dim: int,
        edge_dim: int | None,
        edge_dropout: float = 0.0,
        convolution: str = "transformer",
        gated: bool = False,
    ) -> None:
        super().__init__()

        def conv(inputs: int, n: int) -> Convolution | EdgeFeaturedTransformerConv:
            return make_convolution(convolution, inputs, head_dim, n, edge_dim=edge_dim, dropout=edge_dropout)

        self.first = conv(width, heads)
        self.norm = GraphNorm(head_dim * heads)
        self.second = conv(head_dim * heads, dim // head_dim)
        self.residual = conv(width, dim // head_dim)
        self.gate = nn.Parameter(torch.zeros(())) if gated else None

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew."""
        for conv in (self.first, self.second, self.residual):
            conv.reset_parameters(generator)
        self.norm.reset_parameters()
        if self.gate is not None:
            nn.init.zeros_(self.gate)

    def forward(
        self, h: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None, *, seed: int = 0
    ) -> torch.Tensor:
        """Return the embedding, shape (N, d), of hidden vectors `h`, shape (N, width)."""
        first = functional.mish(self.norm(self.first(h, graph, edge_attr, seed=seed)))
        second: torch.Tensor = self.second(first, graph, edge_attr, seed=seed + 1)
        residual: torch.Tensor = self.residual(h, graph, edge_attr, seed=seed + 2)
        result = second + residual
        return result if self.gate is None else self.gate * result
