"""Graph transformer convolution with edge features.

Legend: N nodes, E edges, H heads, D output dimension of a head, F edge features.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from musegnn.kernels.edge_attention import edge_attention

if TYPE_CHECKING:
    from musegnn.kernels.edge_attention import EdgeGraph
    from musegnn.kernels.edge_attention.api import EdgeAttentionImpl


def init_linear(linear: nn.Linear, *, generator: torch.Generator | None = None, fan_in: int | None = None) -> None:
    """Draw weights and bias uniformly from ``±1/sqrt(fan_in)``, the weights first.

    Parameters
    ----------
    linear
        The layer.
    generator
        Source of the numbers; ``None``: torch's global one.
    fan_in
        ``None``: the layer's number of inputs. A larger number stands for the width that the inputs had before
        a lossless compression.
    """
    bound = 1.0 / math.sqrt(fan_in or linear.in_features)
    with torch.no_grad():
        linear.weight.uniform_(-bound, bound, generator=generator)
        if linear.bias is not None:
            linear.bias.uniform_(-bound, bound, generator=generator)


class EdgeFeaturedTransformerConv(nn.Module):
    r"""Multi-head attention over the edges of a graph, whose keys and values include edge features.

    .. math::
        x'_i = W_s x_i + \big\Vert_h \sum_{j \in N(i)} \alpha_{ij} (W_v x_j + W_e a_{ij}), \qquad
        \alpha_{ij} = \mathrm{softmax}_j \frac{(W_q x_i)^\top (W_k x_j + W_e a_{ij})}{\sqrt{D}}

    The edge projection never meets an edge: with :math:`u = W_e^\top q` and the attention-weighted sum of
    attributes :math:`z`, the message is :math:`o + W_e z` (see kernels/edge_attention/README.md). Parameters,
    their names and the result are those of ``torch_geometric.nn.TransformerConv``.

    Parameters
    ----------
    in_channels
        Width of the node features.
    out_channels
        D, width of each head.
    heads
        H, number of heads.
    edge_dim
        F, number of edge features; ``None``: edges have none.
    concat
        Concatenate the heads; otherwise average them.
    beta
        Gate between message and root: ``b W_s x + (1 - b) message``, ``b`` the sigmoid of a linear map of both and
        their difference. Needs ``root_weight``.
    dropout
        Share of attention weights dropped while training.
    bias
        Whether the linear maps of nodes have biases.
    root_weight
        Add the transformed node itself.

    Notes
    -----
    Shapes: ``x`` (N, in_channels), ``edge_attr`` (E, F) in CSR order, output (N, H * D), or (N, D) without
    ``concat``.

    References
    ----------
    Shi et al., "Masked Label Prediction: Unified Message Passing Model for Semi-Supervised Classification",
    IJCAI 2021, equations 3 to 6.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        *,
        edge_dim: int | None = None,
        concat: bool = True,
        beta: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        root_weight: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.edge_dim = edge_dim
        self.concat = concat
        self.dropout = dropout
        self.root_weight = root_weight
        width = heads * out_channels
        out_width = width if concat else out_channels
        self.lin_key = nn.Linear(in_channels, width, bias=bias)
        self.lin_query = nn.Linear(in_channels, width, bias=bias)
        self.lin_value = nn.Linear(in_channels, width, bias=bias)
        self.lin_edge = nn.Linear(edge_dim, width, bias=False) if edge_dim else None
        self.lin_skip = nn.Linear(in_channels, out_width, bias=bias)
        self.lin_beta = nn.Linear(3 * out_width, 1, bias=False) if beta and root_weight else None

    def reset_parameters(self, generator: torch.Generator | None = None, fan_in: int | None = None) -> None:
        """Draw all parameters anew.

        Parameters
        ----------
        generator
            Source of the numbers; ``None``: torch's global one.
        fan_in
            Fan-in of the maps of node features; ``None``: ``in_channels``.
        """
        for linear in (self.lin_key, self.lin_query, self.lin_value, self.lin_skip):
            init_linear(linear, generator=generator, fan_in=fan_in)
        for extra in (self.lin_edge, self.lin_beta):
            if extra is not None:
                init_linear(extra, generator=generator)

    def forward(
        self,
        x: torch.Tensor,
        graph: EdgeGraph,
        edge_attr: torch.Tensor | None = None,
        *,
        seed: int = 0,
        impl: EdgeAttentionImpl = "auto",
    ) -> torch.Tensor:
        """Give every node its message and its own transformed features.

        Parameters
        ----------
        x
            (N, in_channels) node features.
        graph
            Row i receives from the columns of row i.
        edge_attr
            (E, F) edge features in CSR order; ``None`` exactly when the layer has no ``edge_dim``.
        seed
            Keys the attention dropout.
        impl
            Implementation of the attention.

        Returns
        -------
        torch.Tensor
            (N, H * D), or (N, D) without ``concat``.

        Raises
        ------
        ValueError
            When ``edge_attr`` does not fit the layer or the graph.
        """
        if (edge_attr is None) != (self.lin_edge is None):
            msg = f"a layer with edge_dim={self.edge_dim} got edge_attr={'None' if edge_attr is None else 'a tensor'}"
            raise ValueError(msg)
        n_nodes, n_heads, dim = x.shape[0], self.heads, self.out_channels
        q = self.lin_query(x).view(n_nodes, n_heads, dim)
        k = self.lin_key(x).view(n_nodes, n_heads, dim)
        v = self.lin_value(x).view(n_nodes, n_heads, dim)
        dropout = self.dropout if self.training else 0.0
        if self.lin_edge is None or edge_attr is None:
            u, a = x.new_zeros((n_nodes, n_heads, 0)), x.new_zeros((graph.n_edges, 0))
            out, _, _ = edge_attention(q, k, v, u, a, graph, dropout=dropout, seed=seed, impl=impl)
        else:
            W_HDF = self.lin_edge.weight.view(n_heads, dim, -1)
            u = torch.einsum("nhd,hdf->nhf", q, W_HDF)
            o, z, _ = edge_attention(q, k, v, u, edge_attr, graph, dropout=dropout, seed=seed, impl=impl)
            out = o + torch.einsum("nhf,hdf->nhd", z, W_HDF)
        out = out.flatten(1) if self.concat else out.mean(1)
        return self._add_root(x, out)

    def _add_root(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        if not self.root_weight:
            return out
        root: torch.Tensor = self.lin_skip(x)
        if self.lin_beta is None:
            return out + root
        gate = torch.sigmoid(self.lin_beta(torch.cat([out, root, out - root], dim=-1)))
        return gate * root + (1 - gate) * out

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"{self.in_channels}, {self.out_channels}, heads={self.heads}, edge_dim={self.edge_dim}"
