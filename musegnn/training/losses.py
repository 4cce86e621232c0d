"""The losses, as functions of tensors alone.

Legend: N genes of a dataset, E edges (both directions listed), A shared genes of a pair, K drawn genes,
d dimensions of the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx


def edge_bce(
    logits: torch.Tensor,
    rowptr: torch.Tensor,
    col: torch.Tensor,
    held_out: tuple[torch.Tensor, torch.Tensor] | None = None,
    *,
    include_diagonal: bool = False,
) -> torch.Tensor:
    """Give the mean binary cross-entropy of all entries against the adjacency matrix.

    Parameters
    ----------
    logits
        (N, N) logit of an edge between row and column.
    rowptr, col
        (N+1,), (E,) int64 CSR of the edges, without repeats.
    held_out
        Rows and columns of pairs that take no part, each (P,) int64, in either direction: ``(r, c)`` leaves out
        ``(c, r)`` too.
    include_diagonal
        Count the N entries of a gene with itself, as the published code does.

    Returns
    -------
    torch.Tensor
        Scalar; summed in float64 and returned in the dtype of ``logits``. 0 when no entry takes part.

    Raises
    ------
    ValueError
        When ``logits`` is not square or does not fit ``rowptr``.
    """
    n_genes = rowptr.numel() - 1
    if tuple(logits.shape) != (n_genes, n_genes):
        msg = f"logits must have shape ({n_genes}, {n_genes}), got {tuple(logits.shape)}"
        raise ValueError(msg)
    rows = torch.repeat_interleave(torch.arange(n_genes, device=col.device), rowptr.diff(), output_size=col.numel())
    left_out = [torch.empty(0, dtype=torch.int64, device=col.device)]
    if held_out is not None:
        left_out += [held_out[0] * n_genes + held_out[1], held_out[1] * n_genes + held_out[0]]
    if not include_diagonal:
        left_out.append(torch.arange(n_genes, device=col.device) * (n_genes + 1))
    loss: torch.Tensor = _MaskedBCE.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        logits, rows * n_genes + col, torch.unique(torch.cat(left_out))
    )
    return loss


class _MaskedBCE(torch.autograd.Function):
    """Mean of ``softplus(x) - target * x`` over entries that take part, with one (N, N) temporary per direction."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: torch.Tensor, edges: torch.Tensor, left_out: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits, edges, left_out)
        # Above 20, torch's default threshold, double precision still tells softplus(x) from x.
        entries = functional.softplus(logits, threshold=40).view(-1)
        entries.index_add_(0, edges, logits.reshape(-1)[edges], alpha=-1)
        entries.index_fill_(0, left_out, 0.0)
        return (entries.sum(dtype=torch.float64) / max(1, logits.numel() - left_out.numel())).to(logits.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        logits, edges, left_out = ctx.saved_tensors  # type: ignore[attr-defined]  # torch's stub lacks it
        slope = torch.sigmoid(logits).view(-1)
        slope.index_add_(0, edges, slope.new_ones(edges.numel()), alpha=-1)
        slope.index_fill_(0, left_out, 0.0)
        slope *= grad / max(1, logits.numel() - left_out.numel())
        return slope.view_as(logits), None, None


def similarity(
    z_i: torch.Tensor,
    z_j: torch.Tensor,
    weight: torch.Tensor,
    *,
    normalize: Literal["sum", "lambda"] = "sum",
) -> torch.Tensor:
    """Give minus the weighted cosine of shared genes between two datasets.

    Parameters
    ----------
    z_i, z_j
        (A, d) vectors of the same genes in both datasets.
    weight
        (A,) overlap of each gene's neighbourhoods, in [0, 1].
    normalize
        ``sum``: mean over genes of ``weight * cosine``, as published; ``lambda``: divided by the sum of weights.

    Returns
    -------
    torch.Tensor
        Scalar in [-1, 1]; 0 when there are no shared genes or all weights are 0.

    Raises
    ------
    ValueError
        When ``normalize`` is unknown.
    """
    if normalize not in ("sum", "lambda"):
        msg = f"normalize must be 'sum' or 'lambda', got {normalize!r}"
        raise ValueError(msg)
    total = (weight * functional.cosine_similarity(z_i, z_j, dim=1)).sum()
    if normalize == "sum":
        return -total / max(1, weight.numel())
    mass = weight.sum()
    return -total / torch.where(mass > 0, mass, 1.0)


def ntxent(
    anchor: torch.Tensor,
    positive: torch.Tensor,
    temperature: float,
    exclude: torch.Tensor | None = None,
) -> torch.Tensor:
    """Give the NT-Xent loss of K pairs; each of the 2K vectors is once the query.

    Vectors are stacked as ``[anchor; positive]``. The query's partner is its positive, the other 2K - 2 vectors its
    negatives: cross-entropy on the (2K, 2K) matrix of cosines over temperature with its diagonal masked.

    Parameters
    ----------
    anchor, positive
        (K, d) vectors; row g of one belongs to row g of the other.
    temperature
        Divides the cosines; positive.
    exclude
        (2K, 2K) bool, true where the column must not be a negative of the row; a query's positive stays in.

    Returns
    -------
    torch.Tensor
        Scalar mean over the 2K queries; 0 when K is 0.

    Raises
    ------
    ValueError
        When shapes disagree or the temperature is not positive.

    References
    ----------
    Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, equation 1.
    """
    _check_pairs(anchor, positive, temperature)
    n_pairs = anchor.shape[0]
    z = functional.normalize(torch.cat([anchor, positive]), dim=1)
    if n_pairs == 0:
        return z.sum()
    partner = torch.arange(2 * n_pairs, device=z.device).roll(n_pairs)
    hidden = torch.eye(2 * n_pairs, dtype=torch.bool, device=z.device)
    if exclude is not None:
        if exclude.shape != hidden.shape:
            msg = f"exclude must have shape {tuple(hidden.shape)}, got {tuple(exclude.shape)}"
            raise ValueError(msg)
        hidden = (hidden | exclude).scatter(1, partner[:, None], value=False)
    scores = (z @ z.T / temperature).masked_fill(hidden, -torch.inf)
    return functional.cross_entropy(scores, partner)


def alignment(
    z_i: torch.Tensor,
    z_j: torch.Tensor,
    weight: torch.Tensor | None = None,
    temperature: float = 0.2,
) -> torch.Tensor:
    """Give the symmetric InfoNCE loss of shared genes between two datasets.

    A gene's positive is the same gene in the other dataset; the other shared genes there are its negatives.

    Parameters
    ----------
    z_i, z_j
        (A, d) vectors of the same genes in both datasets.
    weight
        (A,) weight of each gene in the mean; ``None``: all equal.
    temperature
        Divides the cosines; positive.

    Returns
    -------
    torch.Tensor
        Scalar, the mean of both directions; 0 when A is 0 or all weights are 0.

    Raises
    ------
    ValueError
        When shapes disagree or the temperature is not positive.

    References
    ----------
    van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, equation 4.
    """
    _check_pairs(z_i, z_j, temperature)
    scores = functional.normalize(z_i, dim=1) @ functional.normalize(z_j, dim=1).T / temperature
    if weight is None:
        weight = scores.new_ones(scores.shape[0])
    match = scores.diagonal()
    both = (torch.logsumexp(scores, 0) + torch.logsumexp(scores, 1)) / 2 - match
    mass = weight.sum()
    return (weight * both).sum() / torch.where(mass > 0, mass, 1.0)


def _check_pairs(first: torch.Tensor, second: torch.Tensor, temperature: float) -> None:
    if first.dim() != 2 or first.shape != second.shape:
        msg = f"both sides must have one shape (K, d), got {tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(msg)
    if not temperature > 0.0:
        msg = f"temperature must be positive, got {temperature}"
        raise ValueError(msg)
