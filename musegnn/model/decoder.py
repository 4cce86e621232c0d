"""Decoders: from gene vectors to the logit of every edge.

Legend: N genes, d dimensions of the embedding, B rows of a block.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import nn
from torch.nn import functional

from musegnn.model.conv import init_linear


class Decoder(Protocol):
    """What every decoder offers; all are also ``torch.nn.Module``."""

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Give the (N, N) logits for vectors ``z`` (N, d)."""

    def row_block(self, z: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Give the (B, N) logits of some rows."""

    def cost(self, n_rows: int, dim: int) -> int:
        """Count the multiply-adds of the logits of ``n_rows`` rows."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew."""


class MLPDecoder(nn.Module):
    """Three linear layers with Mish between them, applied to the rows of ``z z'``, as published.

    The first layer is never given the (N, N) products: ``z z' W' = z (W z)'`` costs ``2 N^2 d`` instead of ``N^3``
    multiply-adds and is the same linear map.

    Parameters
    ----------
    n_genes
        N: every layer maps N to N, so a decoder belongs to one dataset and one order of genes.
    """

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.n_genes = n_genes
        self.layers = nn.ModuleList(nn.Linear(n_genes, n_genes) for _ in range(3))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew, uniformly from ``±1/sqrt(N)``."""
        for layer in self._linears():
            init_linear(layer, generator=generator)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Give the (N, N) logits for vectors ``z`` (N, d)."""
        return self._decode(z, z)

    def row_block(self, z: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Give the logits of some rows.

        Parameters
        ----------
        z
            (N, d) vectors of all genes.
        rows
            (B,) int64 row numbers.

        Returns
        -------
        torch.Tensor
            (B, N), the rows of ``forward(z)``.
        """
        return self._decode(z[rows], z)

    def cost(self, n_rows: int, dim: int) -> int:
        """Count the multiply-adds of the logits of ``n_rows`` rows for ``dim`` dimensions."""
        n = self.n_genes
        return n * n * dim + n_rows * n * dim + 2 * n_rows * n * n

    def _linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def _decode(self, z_rows: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        first, second, third = self._linears()
        hidden = torch.addmm(first.bias, z_rows, (first.weight @ z).T)
        logits: torch.Tensor = third(functional.mish(second(functional.mish(hidden))))
        return logits


class InnerDecoder(nn.Module):
    """A scaled inner product with a bias: ``scale * z_i . z_j + bias``.

    Parameters
    ----------
    n_genes
        N, kept for the interface; the two parameters do not depend on it.
    """

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.n_genes = n_genes
        self.scale = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Set the scale to one and the bias to zero."""
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.bias)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Give the (N, N) logits for vectors ``z`` (N, d)."""
        return self.scale * (z @ z.T) + self.bias

    def row_block(self, z: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Give the (B, N) logits of some rows (B,)."""
        return self.scale * (z[rows] @ z.T) + self.bias

    def cost(self, n_rows: int, dim: int) -> int:
        """Count the multiply-adds of the logits of ``n_rows`` rows for ``dim`` dimensions."""
        return n_rows * self.n_genes * dim


def make_decoder(kind: Literal["mlp", "inner"], n_genes: int) -> MLPDecoder | InnerDecoder:
    """Build a decoder by its name in the configuration.

    Parameters
    ----------
    kind
        ``mlp`` or ``inner``.
    n_genes
        N, genes of the dataset.

    Raises
    ------
    ValueError
        When the name is unknown.
    """
    decoders: dict[str, type[MLPDecoder | InnerDecoder]] = {"mlp": MLPDecoder, "inner": InnerDecoder}
    if kind not in decoders:
        msg = f"decoder must be one of {sorted(decoders)}, got {kind!r}"
        raise ValueError(msg)
    return decoders[kind](n_genes)
