"""Graph transformer convolution with edge features.

Legend: N nodes, E edges, H heads, D output dimension of a head, F edge features.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from musegnn.kernels.edge_attention import EdgeGraph, attention_weights, edge_attention, edge_graph_from_pairs

if TYPE_CHECKING:
    from musegnn.kernels.edge_attention.api import EdgeAttentionImpl


def init_linear(linear: nn.Linear, *, generator: torch.Generator | None = None, fan_in: int | None = None) -> None:
    """Draw weights, then bias, uniformly from ``±1/sqrt(fan_in)``; `fan_in` may be that before lossless compression."""
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

    The edge projection never meets an edge: with :math:`u = W_e^\top q` and the attention-weighted sum of attributes
    :math:`z`, the message is :math:`o + W_e z` (see kernels/edge_attention/README.md). Parameters, arguments and result
    are those of ``torch_geometric.nn.TransformerConv``, except that a graph has one kind of nodes and no edge twice; D,
    H and F are ``out_channels``, ``heads`` and ``edge_dim``.

    Parameters
    ----------
    beta
        Gate between message and root: ``b W_s x + (1 - b) message``, ``b`` the sigmoid of a linear map of both and
        their difference. Needs ``root_weight``.

    Raises
    ------
    ValueError
        When ``in_channels`` is not one positive number.

    References
    ----------
    Shi et al., "Masked Label Prediction: Unified Message Passing Model for Semi-Supervised Classification", IJCAI 2021,
    equations 3 to 6.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,  # noqa: FBT001, FBT002  the order of PyG's arguments
        beta: bool = False,  # noqa: FBT001, FBT002
        dropout: float = 0.0,
        edge_dim: int | None = None,
        bias: bool = True,  # noqa: FBT001, FBT002
        root_weight: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        super().__init__()
        if not isinstance(in_channels, int) or in_channels < 1:
            msg = (
                f"in_channels must be one positive number, got {in_channels!r}: bipartite graphs and lazy widths are "
                "not supported; use torch_geometric.nn.TransformerConv for them"
            )
            raise ValueError(msg)
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
        """Draw all parameters anew; `fan_in` is that of the maps of node features, ``None``: ``in_channels``."""
        for linear in (self.lin_key, self.lin_query, self.lin_value, self.lin_skip):
            init_linear(linear, generator=generator, fan_in=fan_in)
        for extra in (self.lin_edge, self.lin_beta):
            if extra is not None:
                init_linear(extra, generator=generator)

    def forward(
        self,
        x: torch.Tensor,
        edge_index: EdgeGraph | torch.Tensor,
        edge_attr: torch.Tensor | None = None,
        return_attention_weights: bool | None = None,  # noqa: FBT001  as PyG's
        *,
        seed: int | None = None,
        impl: EdgeAttentionImpl = "auto",
    ) -> torch.Tensor | tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Return every node's message and its own transformed features, (N, H * D), or (N, D) without ``concat``.

        Parameters
        ----------
        edge_index
            A graph in which row i receives from the columns of row i, or (2, E) sources and targets in any order,
            which are sorted at every call: make them a graph once, where they stay the same.
        edge_attr
            (E, F) edge features, in CSR order with a graph, else in the order of ``edge_index``; ``None`` exactly when
            the layer has no ``edge_dim``.
        return_attention_weights
            Unless ``None``, as in PyG, also return the pair of (2, E) sources and targets and (E, H) attention weights
            before dropout, in the order of ``edge_attr``. They are recomputed and have no gradient.
        seed
            Key of the attention dropout; ``None``: drawn from torch's global generator.

        Raises
        ------
        ValueError
            When ``edge_attr`` does not fit the layer or the graph, or an edge repeats.
        TypeError
            When ``x`` or ``edge_index`` is something else.
        """
        if (edge_attr is None) != (self.lin_edge is None):
            msg = f"a layer with edge_dim={self.edge_dim} got edge_attr={'None' if edge_attr is None else 'a tensor'}"
            raise ValueError(msg)
        _check_nodes(x)
        graph, order = _as_graph(edge_index, x.shape[0])
        a = x.new_zeros((graph.n_edges, 0)) if edge_attr is None else edge_attr
        if order is not None:
            if len(a) != len(order):
                msg = f"edge_attr must have a row for each of {len(order)} edges, got {len(a)}"
                raise ValueError(msg)
            a = a[order.to(a.device)]
        shape = (x.shape[0], self.heads, self.out_channels)
        q, k, v = (linear(x).view(shape) for linear in (self.lin_query, self.lin_key, self.lin_value))
        dropout = self.dropout if self.training else 0.0
        if seed is None:
            seed = int(torch.randint(1 << 62, ())) if dropout > 0.0 else 0
        if self.lin_edge is None:
            u = x.new_zeros((*shape[:2], 0))
            out, _, lse = edge_attention(q, k, v, u, a, graph, dropout=dropout, seed=seed, impl=impl)
        else:
            # One matrix (H * D, H * F), whose zeros cost less than small products head by head.
            heads = self.lin_edge.weight.view(*shape[1:], -1)
            W: torch.Tensor = torch.block_diag(*heads)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            u = (q.flatten(1) @ W).view(*shape[:2], -1)
            o, z, lse = edge_attention(q, k, v, u, a, graph, dropout=dropout, seed=seed, impl=impl)
            out = o + (z.flatten(1) @ W.t()).view(shape)
        out = self._add_root(x, out.flatten(1) if self.concat else out.mean(1))
        if return_attention_weights is None:
            return out
        weights = attention_weights(q, k, u, a, graph, lse, scale=1.0 / math.sqrt(self.out_channels))
        if isinstance(edge_index, torch.Tensor) and order is not None:
            listed = torch.empty_like(weights)
            listed[order.to(weights.device)] = weights
            return out, (edge_index, listed)
        return out, (torch.stack([graph.col, graph.target]), weights)

    def _add_root(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        if not self.root_weight:
            return out
        root: torch.Tensor = self.lin_skip(x)
        if self.lin_beta is None:
            return out + root
        gate = torch.sigmoid(self.lin_beta(torch.cat([out, root, out - root], dim=-1)))
        return gate * root + (1 - gate) * out

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.in_channels}, {self.out_channels}, heads={self.heads}, edge_dim={self.edge_dim}"


def _check_nodes(x: object) -> None:
    if not isinstance(x, torch.Tensor):
        msg = f"x must be one tensor of node features, got {type(x).__name__}: bipartite graphs are not supported"
        raise TypeError(msg)


def _as_graph(edge_index: EdgeGraph | torch.Tensor, n_nodes: int) -> tuple[EdgeGraph, torch.Tensor | None]:
    if isinstance(edge_index, EdgeGraph):
        return edge_index, None
    if not isinstance(edge_index, torch.Tensor) or edge_index.dim() != 2 or edge_index.shape[0] != 2:
        got = tuple(edge_index.shape) if isinstance(edge_index, torch.Tensor) else type(edge_index).__name__
        msg = f"edge_index must be an EdgeGraph or a tensor of shape (2, E), got {got}"
        raise TypeError(msg)
    source, target = edge_index.cpu().numpy()
    graph, order = edge_graph_from_pairs(source, target, n_nodes)
    return graph.to(edge_index.device), order
