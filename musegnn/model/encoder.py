"""The encoder: a layer of each dataset, then layers that datasets share.

``z = D(L(x, graph), graph)`` with ``D(h) = D3(D2(h)) + D4(h)``. A convolution maps N genes to H heads of width D; it is
made as ``convolution(inputs, D, H, edge_dim=...)`` and called as ``conv(x, graph, edge_attr)``.

Legend: N genes, H heads, d dimensions of the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from musegnn.model.conv import EdgeFeaturedTransformerConv
from musegnn.model.norm import GraphNorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from musegnn.kernels.edge_attention import EdgeGraph

    MakeConvolution = Callable[..., Any]  # modules with reset_parameters(generator), which torch's type lacks


class DatasetLayer(nn.Module):
    """Layer L of one dataset: a convolution of `width` features to H heads, normalisation over the graph, Mish."""

    def __init__(
        self,
        width: int,
        head_dim: int,
        heads: int,
        *,
        edge_dim: int | None,
        convolution: MakeConvolution = EdgeFeaturedTransformerConv,
    ) -> None:
        super().__init__()
        self.conv = convolution(width, head_dim, heads, edge_dim=edge_dim)
        self.norm = GraphNorm(head_dim * heads)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew; where datasets share the meaning of `x`, from generators seeded alike."""
        self.conv.reset_parameters(generator)
        self.norm.reset_parameters()

    def forward(self, x: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None) -> torch.Tensor:
        """Return the hidden vectors, shape (N, H * head_dim), of node features `x`, shape (N, width)."""
        return functional.mish(self.norm(self.conv(x, graph, edge_attr)))


class SharedLayers(nn.Module):
    """Layers D2, D3 and D4 of a group of datasets, e.g. of one modality, from hidden vectors of `width` columns.

    Parameters
    ----------
    heads, head_dim
        H of the first layer and the width of each head, which divides `dim` = d; the other layers have as many heads as
        make up d.
    gated
        Multiply the result by a weight that starts at zero, for layers that correct vectors they start from (ReZero:
        Bachlechner et al., "ReZero is all you need", UAI 2021).
    """

    def __init__(
        self,
        width: int,
        dim: int,
        heads: int,
        *,
        head_dim: int,
        edge_dim: int | None,
        convolution: MakeConvolution = EdgeFeaturedTransformerConv,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.first = convolution(width, head_dim, heads, edge_dim=edge_dim)
        self.norm = GraphNorm(head_dim * heads)
        self.second = convolution(head_dim * heads, head_dim, dim // head_dim, edge_dim=edge_dim)
        self.residual = convolution(width, head_dim, dim // head_dim, edge_dim=edge_dim)
        self.gate = nn.Parameter(torch.zeros(())) if gated else None

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew."""
        for conv in (self.first, self.second, self.residual):
            conv.reset_parameters(generator)
        self.norm.reset_parameters()
        if self.gate is not None:
            nn.init.zeros_(self.gate)

    def forward(self, h: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None) -> torch.Tensor:
        """Return the embedding, shape (N, d), of hidden vectors `h`, shape (N, width)."""
        first = functional.mish(self.norm(self.first(h, graph, edge_attr)))
        result: torch.Tensor = self.second(first, graph, edge_attr) + self.residual(h, graph, edge_attr)
        return result if self.gate is None else self.gate * result
