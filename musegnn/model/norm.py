"""Normalisation over the nodes of one graph."""

from __future__ import annotations

import torch
from torch import nn


class GraphNorm(nn.Module):
    r"""Normalise every feature over the nodes of one graph, removing a learnt share of its mean.

    .. math:: c = x - \alpha \, \mathrm{E}[x], \qquad x' = w \, c / \sqrt{\mathrm{E}[c^2] + \epsilon} + b

    Parameters and result are those of ``torch_geometric.nn.GraphNorm`` for a single graph. Equation 6 of Cai et al.,
    "GraphNorm: A Principled Approach to Accelerating Graph Neural Network Training", ICML 2021.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.mean_scale = nn.Parameter(torch.ones(dim))

    def reset_parameters(self) -> None:
        """Set weight and mean scale to one and the bias to zero."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        nn.init.ones_(self.mean_scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``x`` (N, dim) over its rows."""
        centred = x - x.mean(0) * self.mean_scale
        deviation = torch.sqrt(centred.square().mean(0) + self.eps)
        return self.weight * centred / deviation + self.bias

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.weight.numel()}, eps={self.eps}"
