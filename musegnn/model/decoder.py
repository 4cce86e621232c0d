"""Decoders: from gene vectors to the logit of every edge.

Legend: N genes, d dimensions of the embedding, B rows of a block, P pairs, W hidden width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from musegnn.model.conv import init_linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from musegnn.config import DecoderKind

SCORE_ROWS = 4096
PAIRWISE_WIDTH = 32


class Decoder(nn.Module, ABC):
    """The interface of decoders of one dataset of N = `n_genes` genes."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.n_genes = n_genes

    @property
    @abstractmethod
    def values_per_row(self) -> int:
        """Numbers that are alive per decoded row in the largest step, which decides how many rows fit at a time."""

    @abstractmethod
    def decode(self, z_rows: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return the (B, N) logits of genes with vectors `z_rows` (B, d) and all genes, `z` (N, d)."""

    @abstractmethod
    def cost(self, n_rows: int, dim: int) -> int:
        """Count the multiply-adds of the logits of `n_rows` rows for `dim` dimensions."""

    @abstractmethod
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the (N, N) logits for vectors `z` (N, d)."""
        return self.decode(z, z)

    def row_block(self, z: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the (B, N) logits of the genes `rows`, (B,) int64."""
        return self.decode(z.index_select(0, rows), z)


class SymmetricDecoder(Decoder):
    """A symmetric decoder that can score single pairs, and so be trained on a sample of them."""

    @abstractmethod
    def pairs(self, z: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return the (P,) logits of pairs of genes; the order within a pair does not matter."""


class MLPDecoder(Decoder):
    """Three linear layers of N units with Mish between them, applied to the rows of ``z z'``, as published.

    The (N, N) products are never formed: ``z z' W' = z (W z)'``, the same map, costs ``2 N^2 d`` instead of ``N^3``
    multiply-adds. The weights belong to one order of genes.
    """

    def __init__(self, n_genes: int) -> None:
        super().__init__(n_genes)
        self.layers = nn.ModuleList(nn.Linear(n_genes, n_genes) for _ in range(3))

    @property
    def values_per_row(self) -> int:
        """N numbers per row."""
        return self.n_genes

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew, uniformly from ``±1/sqrt(N)``."""
        for layer in self._linears():
            init_linear(layer, generator=generator)

    def decode(self, z_rows: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return the (B, N) logits of some genes and all genes."""
        first, second, third = self._linears()
        hidden = functional.linear(z_rows, first.weight @ z, first.bias)
        logits: torch.Tensor = third(functional.mish(second(functional.mish(hidden))))
        return logits

    def cost(self, n_rows: int, dim: int) -> int:
        """Count the multiply-adds."""
        n = self.n_genes
        return n * n * dim + n_rows * n * dim + 2 * n_rows * n * n

    def _linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]


class InnerDecoder(SymmetricDecoder):
    """A scaled inner product with a bias: ``scale * z_i . z_j + bias``."""

    def __init__(self, n_genes: int) -> None:
        super().__init__(n_genes)
        self.scale = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    @property
    def values_per_row(self) -> int:
        """N numbers per row."""
        return self.n_genes

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Set the scale to one and the bias to zero."""
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.bias)

    def decode(self, z_rows: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return the (B, N) logits of some genes and all genes."""
        return self.scale * (z_rows @ z.T) + self.bias

    def pairs(self, z: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return the (P,) logits of pairs of genes."""
        return self.scale * _products(z, rows, columns).sum(1) + self.bias

    def set_coefficients(self, powers: torch.Tensor) -> None:
        """Set the logit to ``powers[0] + powers[1] s`` of the inner product s."""
        with torch.no_grad():
            self.bias.copy_(powers[0])
            self.scale.copy_(powers[1])

    def cost(self, n_rows: int, dim: int) -> int:
        """Count the multiply-adds."""
        return n_rows * self.n_genes * dim


class SignedDecoder(SymmetricDecoder):
    """An edge is a large inner product of either sign: ``10 (w_1 s + w_2 s^2 + b)`` with ``s = z_i . z_j / d``.

    Under a plain inner product the gradient of a negative edge pulls its genes together; here it may push them apart.
    The factor lets steps of the size that wide layers need move three numbers far enough.
    """

    def __init__(self, n_genes: int) -> None:
        super().__init__(n_genes)
        self.weight = nn.Parameter(torch.empty(2))
        self.bias = nn.Parameter(torch.zeros(()))

    @property
    def values_per_row(self) -> int:
        """2 N numbers per row."""
        return 2 * self.n_genes

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Start at ``s + s^2 - 2``: few pairs are edges, and those of large products of either sign first."""
        nn.init.constant_(self.weight, 0.1)
        nn.init.constant_(self.bias, -0.2)

    def decode(self, z_rows: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return the (B, N) logits of some genes and all genes."""
        return self._logits(z_rows @ z.T, z.shape[1])

    def pairs(self, z: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return the (P,) logits of pairs of genes."""
        return self._logits(_products(z, rows, columns).sum(1), z.shape[1])

    def cost(self, n_rows: int, dim: int) -> int:
        """Count the multiply-adds."""
        return n_rows * self.n_genes * (dim + 2)

    def set_coefficients(self, powers: torch.Tensor, dim: int) -> None:
        """Set the logit to ``powers[0] + powers[1] s + powers[2] s^2`` of the inner product s of `dim` numbers."""
        with torch.no_grad():
            self.bias.copy_(powers[0] / 10.0)
            self.weight.copy_(powers[1:] * torch.tensor([dim, dim**2]) / 10.0)

    def _logits(self, products: torch.Tensor, dim: int) -> torch.Tensor:
        s = products / dim
        return 10.0 * ((self.weight[0] + self.weight[1] * s) * s + self.bias)


class PairwiseDecoder(SymmetricDecoder):
    r"""A small perceptron on the products of two vectors, beside a weighted inner product.

    .. math:: x_{ij} = w_0^\top p_{ij} + w_2^\top \mathrm{Mish}(W_1 p_{ij} + b_1) + b_2, \qquad p_{ij} = z_i \circ z_j

    Symmetric, independent of the order of genes, and with W(d + 2) + d + 1 parameters whatever N is. Blocks of rows
    never hold the products: ``W_1 p_ij = (W_1 o z_i) z_j`` is one matrix product.
    """

    def __init__(self, n_genes: int, dim: int, width: int = PAIRWISE_WIDTH) -> None:
        super().__init__(n_genes)
        self.direct = nn.Parameter(torch.ones(dim))
        self.hidden = nn.Linear(dim, width)
        self.out = nn.Linear(width, 1)

    @property
    def values_per_row(self) -> int:
        """N W numbers per row."""
        return self.n_genes * self.hidden.out_features

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Start from the inner product plus a small perceptron, uniform from ``±1/sqrt(d)`` and ``±1/sqrt(W)``."""
        nn.init.ones_(self.direct)
        init_linear(self.hidden, generator=generator)
        init_linear(self.out, generator=generator)

    def decode(self, z_rows: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return the (B, N) logits of some genes and all genes."""
        n_rows, dim = z_rows.shape
        W_BWD = z_rows[:, None, :] * self.hidden.weight
        hidden = (W_BWD.reshape(-1, dim) @ z.T).view(n_rows, -1, z.shape[0]) + self.hidden.bias[:, None]
        return torch.einsum("w,bwn->bn", self.out.weight[0], functional.mish(hidden)) + torch.addmm(
            self.out.bias, z_rows * self.direct, z.T
        )

    def pairs(self, z: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return the (P,) logits of pairs of genes."""
        products = _products(z, rows, columns)
        hidden: torch.Tensor = functional.mish(self.hidden(products))
        return torch.addmv(products @ self.direct, hidden, self.out.weight[0]) + self.out.bias

    def cost(self, n_rows: int, dim: int) -> int:
        """Count the multiply-adds."""
        width = self.hidden.out_features
        return n_rows * self.n_genes * (dim * (width + 1) + width)


def _products(z: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    return z.index_select(0, rows) * z.index_select(0, columns)


def score_pairs(decoder: Decoder, z: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return mean logits of both directions of pairs of genes, `rows` and `columns` (P,) int64, for vectors `z` (N, d).

    A decoder of whole rows is asked for SCORE_ROWS of them at a time where N is larger.
    """
    rows, columns = rows.to(z.device), columns.to(z.device)
    if isinstance(decoder, SymmetricDecoder):
        return decoder.pairs(z, rows, columns)
    if decoder.n_genes <= SCORE_ROWS:
        logits: torch.Tensor = decoder(z)
        return (logits[rows, columns] + logits[columns, rows]) / 2
    first, second = torch.cat([rows, columns]), torch.cat([columns, rows])
    scores = z.new_empty(first.numel())
    for part in torch.unique(first).split(SCORE_ROWS):
        here = torch.isin(first, part)
        logits = decoder.row_block(z, part)
        scores[here] = logits[torch.searchsorted(part, first[here]), second[here]]
    return scores.view(2, -1).mean(0)


def make_decoder(kind: DecoderKind, n_genes: int, *, dim: int) -> Decoder:
    """Make a decoder of N = `n_genes` genes by its name in the configuration; `dim` is d."""
    makers: dict[str, Callable[[], Decoder]] = {
        "mlp": lambda: MLPDecoder(n_genes),
        "inner": lambda: InnerDecoder(n_genes),
        "signed": lambda: SignedDecoder(n_genes),
        "pairwise": lambda: PairwiseDecoder(n_genes, dim),
    }
    if kind not in makers:
        msg = f"decoder must be one of {sorted(makers)}, got {kind!r}"
        raise ValueError(msg)
    return makers[kind]()
