"""Decoders: from gene vectors to the logit of every edge.

Legend: N genes, d dimensions of the embedding, B rows of a block, P pairs, W hidden width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeGuard

import torch
from torch import nn
from torch.nn import functional

from musegnn.model.conv import init_linear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


DecoderKind = Literal["mlp", "inner", "signed", "pairwise"]
SCORE_ROWS = 4096


class Decoder(Protocol):
    """What every decoder offers; all are also ``torch.nn.Module``.

    Attributes
    ----------
    n_genes
        N.
    row_entries
        Numbers that are alive per decoded row in the largest step, which decides how many rows fit at a time.
    """

    n_genes: int

    @property
    def row_entries(self) -> int:
        """Numbers per row in the widest step."""

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Return the (N, N) logits for vectors ``z`` (N, d)."""

    def row_block(self, z: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the (B, N) logits of some rows."""

    def cost(self, n_rows: int, dim: int) -> int:
        """Count the multiply-adds of the logits of ``n_rows`` rows."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return all parameters."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew."""


class PairDecoder(Decoder, Protocol):
    """A symmetric decoder that can score single pairs, and so be trained on a sample of them."""

    def pairs(self, z: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return the (P,) logits of pairs of genes; the order within a pair does not matter."""


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

    @property
    def row_entries(self) -> int:
        """N numbers per row."""
        return self.n_genes

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew, uniformly from ``±1/sqrt(N)``."""
        for layer in self._linears():
            init_linear(layer, generator=generator)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the (N, N) logits for vectors ``z`` (N, d)."""
        return self._decode(z, z)

    def row_block(self, z: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the logits of some rows.

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
        return self._decode(z.index_select(0, rows), z)

    def cost(self, n_rows: int, dim: int) -> int:
        """Count the multiply-adds of the logits of ``n_rows`` rows for ``dim`` dimensions."""
        n = self.n_genes
        return n * n * dim + n_rows * n * dim + 2 * n_rows * n * n

    def _linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def _decode(self, z_rows: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        first, second, third = self._linears()
        hidden = functional.linear(z_rows, first.weight @ z, first.bias)
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

    @property
    def row_entries(self) -> int:
        """N numbers per row."""
        return self.n_genes

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Set the scale to one and the bias to zero."""
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.bias)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the (N, N) logits for vectors ``z`` (N, d)."""
        return self.scale * (z @ z.T) + self.bias

    def row_block(self, z: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the (B, N) logits of some rows (B,)."""
        return self.scale * (z.index_select(0, rows) @ z.T) + self.bias

    def pairs(self, z: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return the (P,) logits of pairs of genes."""
        return self.scale * _products(z, rows, columns).sum(1) + self.bias

    def set_coefficients(self, powers: torch.Tensor) -> None:
        """Set the logit to ``powers[0] + powers[1] s`` of the inner product s."""
        with torch.no_grad():
            self.bias.copy_(powers[0])
            self.scale.copy_(powers[1])

    def cost(self, n_rows: int, dim: int) -> int:
        """Count the multiply-adds of the logits of ``n_rows`` rows for ``dim`` dimensions."""
        return n_rows * self.n_genes * dim


class SignedDecoder(nn.Module):
    r"""An edge is a large inner product of either sign: ``10 (w_1 s + w_2 s^2 + b)`` with ``s = z_i . z_j / d``.

    A graph has positive and negative edges, and reconstruction asks for both. Under a plain inner product the gradient
    of a negative edge pulls its genes together; here it may push them apart. The factor lets steps of the size that
    wide layers need move three numbers far enough.

    Parameters
    ----------
    n_genes
        N, kept for the interface; the three parameters do not depend on it.
    """

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.n_genes = n_genes
        self.weight = nn.Parameter(torch.empty(2))
        self.bias = nn.Parameter(torch.zeros(()))

    @property
    def row_entries(self) -> int:
        """2 N numbers per row."""
        return 2 * self.n_genes

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Start at ``s + s^2 - 2``: few pairs are edges, and those of large products of either sign first."""
        nn.init.constant_(self.weight, 0.1)
        nn.init.constant_(self.bias, -0.2)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the (N, N) logits for vectors ``z`` (N, d)."""
        return self._logits(z @ z.T, z.shape[1])

    def row_block(self, z: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the (B, N) logits of some rows (B,)."""
        return self._logits(z.index_select(0, rows) @ z.T, z.shape[1])

    def pairs(self, z: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return the (P,) logits of pairs of genes."""
        return self._logits(_products(z, rows, columns).sum(1), z.shape[1])

    def cost(self, n_rows: int, dim: int) -> int:
        """Count the multiply-adds of the logits of ``n_rows`` rows for ``dim`` dimensions."""
        return n_rows * self.n_genes * (dim + 2)

    def set_coefficients(self, powers: torch.Tensor, dim: int) -> None:
        """Set the logit to ``powers[0] + powers[1] s + powers[2] s^2`` of the inner product s of `dim` numbers."""
        with torch.no_grad():
            self.bias.copy_(powers[0] / 10.0)
            self.weight.copy_(powers[1:] * torch.tensor([dim, dim**2]) / 10.0)

    def _logits(self, products: torch.Tensor, dim: int) -> torch.Tensor:
        s = products / dim
        return 10.0 * ((self.weight[0] + self.weight[1] * s) * s + self.bias)


class PairwiseDecoder(nn.Module):
    r"""A small perceptron on the products of two vectors, beside a weighted inner product.

    .. math:: x_{ij} = w_0^\top p_{ij} + w_2^\top \mathrm{Mish}(W_1 p_{ij} + b_1) + b_2, \qquad p_{ij} = z_i \circ z_j

    Symmetric, independent of the order of genes, and with W(d + 2) + d + 1 parameters whatever N is. Blocks of rows
    never hold the products: ``W_1 p_ij = (W_1 o z_i) z_j`` is one matrix product.

    Parameters
    ----------
    n_genes
        N, kept for the interface.
    dim
        d.
    width
        W.
    """

    def __init__(self, n_genes: int, dim: int, width: int) -> None:
        super().__init__()
        self.n_genes = n_genes
        self.direct = nn.Parameter(torch.ones(dim))
        self.hidden = nn.Linear(dim, width)
        self.out = nn.Linear(width, 1)

    @property
    def row_entries(self) -> int:
        """N W numbers per row."""
        return self.n_genes * self.hidden.out_features

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Start from the inner product plus a small perceptron, uniform from ``±1/sqrt(d)`` and ``±1/sqrt(W)``."""
        nn.init.ones_(self.direct)
        init_linear(self.hidden, generator=generator)
        init_linear(self.out, generator=generator)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the (N, N) logits for vectors ``z`` (N, d)."""
        return self._decode(z, z)

    def row_block(self, z: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the (B, N) logits of some rows (B,)."""
        return self._decode(z.index_select(0, rows), z)

    def pairs(self, z: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return the (P,) logits of pairs of genes."""
        products = _products(z, rows, columns)
        hidden: torch.Tensor = functional.mish(self.hidden(products))
        return torch.addmv(products @ self.direct, hidden, self.out.weight[0]) + self.out.bias

    def cost(self, n_rows: int, dim: int) -> int:
        """Count the multiply-adds of the logits of ``n_rows`` rows for ``dim`` dimensions."""
        width = self.hidden.out_features
        return n_rows * self.n_genes * (dim * (width + 1) + width)

    def _decode(self, z_rows: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        n_rows, dim = z_rows.shape
        W_BWD = z_rows[:, None, :] * self.hidden.weight
        hidden = (W_BWD.reshape(-1, dim) @ z.T).view(n_rows, -1, z.shape[0]) + self.hidden.bias[:, None]
        return torch.einsum("w,bwn->bn", self.out.weight[0], functional.mish(hidden)) + torch.addmm(
            self.out.bias, z_rows * self.direct, z.T
        )


def _products(z: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    return z.index_select(0, rows) * z.index_select(0, columns)


AnyDecoder = MLPDecoder | InnerDecoder | SignedDecoder | PairwiseDecoder


def scores_pairs(decoder: Decoder) -> TypeGuard[PairDecoder]:
    """Return whether a decoder can score single pairs."""
    return hasattr(decoder, "pairs")


def score_pairs(decoder: Decoder, z: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return the mean of the logits of both directions of pairs of genes.

    Parameters
    ----------
    decoder
        Any decoder; one that scores whole rows is asked for SCORE_ROWS of them at a time where N is larger.
    z
        (N, d) vectors.
    rows, columns
        (P,) int64 genes of each pair.
    """
    rows, columns = rows.to(z.device), columns.to(z.device)
    if scores_pairs(decoder):
        return decoder.pairs(z, rows, columns)
    if decoder.n_genes <= SCORE_ROWS:
        logits = decoder(z)
        return (logits[rows, columns] + logits[columns, rows]) / 2
    first, second = torch.cat([rows, columns]), torch.cat([columns, rows])
    scores = z.new_empty(first.numel())
    for part in torch.unique(first).split(SCORE_ROWS):
        here = torch.isin(first, part)
        logits = decoder.row_block(z, part)
        scores[here] = logits[torch.searchsorted(part, first[here]), second[here]]
    return scores.view(2, -1).mean(0)


def make_decoder(kind: DecoderKind, n_genes: int, *, dim: int, width: int = 32) -> AnyDecoder:
    """Build a decoder by its name in the configuration.

    Parameters
    ----------
    kind
        ``mlp``, ``inner``, ``signed`` or ``pairwise``.
    n_genes
        N, genes of the dataset.
    dim, width
        d and the hidden width W; used by ``pairwise``.

    Raises
    ------
    ValueError
        When the name is unknown.
    """
    makers: dict[str, Callable[[], AnyDecoder]] = {
        "mlp": lambda: MLPDecoder(n_genes),
        "inner": lambda: InnerDecoder(n_genes),
        "signed": lambda: SignedDecoder(n_genes),
        "pairwise": lambda: PairwiseDecoder(n_genes, dim, width),
    }
    if kind not in makers:
        msg = f"decoder must be one of {sorted(makers)}, got {kind!r}"
        raise ValueError(msg)
    return makers[kind]()
