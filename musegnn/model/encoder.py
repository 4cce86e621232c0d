"""The encoder: a layer of each dataset's own, then layers that datasets share.

``z = D(L(x, graph), graph)`` with ``D(h) = D3(D2(h)) + D4(h)``.

Legend: N genes, H heads, d dimensions of the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from musegnn.model.conv import EdgeFeaturedTransformerConv
from musegnn.model.convolutions import Convolution, make_convolution
from musegnn.model.norm import GraphNorm

if TYPE_CHECKING:
    from musegnn.kernels.edge_attention import EdgeGraph

QUIET = 0.2


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
    n_own
        Leading node features that only this dataset has (its profile); the others mean the same in all datasets.
    edge_dropout
        Share of attention weights dropped while training.
    convolution
        A name of :data:`musegnn.model.convolutions.CONVOLUTIONS`.
    """

    def __init__(
        self,
        width: int,
        head_dim: int,
        heads: int,
        *,
        edge_dim: int | None,
        n_own: int,
        edge_dropout: float = 0.0,
        convolution: str = "transformer",
    ) -> None:
        super().__init__()
        self.width, self.n_own = width, n_own
        self.conv = make_convolution(convolution, width, head_dim, heads, edge_dim=edge_dim, dropout=edge_dropout)
        self.norm = GraphNorm(head_dim * heads)

    def reset_parameters(self, own: torch.Generator, common: torch.Generator) -> None:
        """Draw all parameters anew.

        Where all features are common, every dataset starts from the same weights, and so with the same map: equal
        genes start in equal places. Where some are, only the convolution of the method starts with the same map of
        those.

        Parameters
        ----------
        own
            Draws the weights of the dataset's own features.
        common
            Draws all others; seeded alike for all datasets.
        """
        conv, width = self.conv, self.width
        self.norm.reset_parameters()
        if self.n_own == width:
            conv.reset_parameters(own)
            return
        if isinstance(conv, Convolution):
            conv.reset_parameters(own if self.n_own else common)
            return
        shared = EdgeFeaturedTransformerConv(
            width - self.n_own, conv.out_channels, conv.heads, edge_dim=conv.edge_dim
        ).to(conv.lin_key.weight)
        shared.reset_parameters(common, fan_in=width)
        conv.reset_parameters(own)
        with torch.no_grad():
            for name, parameter in conv.named_parameters():
                source = shared.get_parameter(name)
                is_map_of_nodes = parameter.ndim == 2 and parameter.shape[1] == width and name != "lin_edge.weight"
                (parameter[:, self.n_own :] if is_map_of_nodes else parameter).copy_(source)

    def forward(
        self, x: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None, *, seed: int = 0
    ) -> torch.Tensor:
        """Give the hidden vectors, shape (N, H * head_dim), of node features `x`, shape (N, width)."""
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
        A name of :data:`musegnn.model.convolutions.CONVOLUTIONS`.
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
    ) -> None:
        super().__init__()

        def conv(inputs: int, n: int) -> Convolution | EdgeFeaturedTransformerConv:
            return make_convolution(convolution, inputs, head_dim, n, edge_dim=edge_dim, dropout=edge_dropout)

        self.first = conv(width, heads)
        self.norm = GraphNorm(head_dim * heads)
        self.second = conv(head_dim * heads, dim // head_dim)
        self.residual = conv(width, dim // head_dim)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew."""
        for conv in (self.first, self.second, self.residual):
            conv.reset_parameters(generator)
        self.norm.reset_parameters()

    def quieten(self) -> None:
        """Scale down what the layers start to give, where they correct another result."""
        with torch.no_grad():
            for conv in (self.second, self.residual):
                if isinstance(conv, Convolution):
                    conv.gain = QUIET
                    continue
                for linear in (conv.lin_value, conv.lin_edge, conv.lin_skip):
                    if linear is not None:
                        linear.weight.mul_(QUIET)
                        if linear.bias is not None:
                            linear.bias.mul_(QUIET)

    def forward(
        self, h: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor | None, *, seed: int = 0
    ) -> torch.Tensor:
        """Give the embedding, shape (N, d), of hidden vectors `h`, shape (N, width)."""
        first = functional.mish(self.norm(self.first(h, graph, edge_attr, seed=seed)))
        second: torch.Tensor = self.second(first, graph, edge_attr, seed=seed + 1)
        residual: torch.Tensor = self.residual(h, graph, edge_attr, seed=seed + 2)
        return second + residual
