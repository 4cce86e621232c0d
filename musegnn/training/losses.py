"""The losses, as functions of tensors alone.

Legend: N genes of a dataset, E edges (both directions listed), Q entries left out, B rows of a block, A shared genes
of a pair, K drawn genes, d dimensions of the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx

SUM_CHUNK = 1 << 20


class EdgeTarget(NamedTuple):
    """The edges that logits are compared with, and the entries that take no part, as CSR without repeats, int64.

    ``rowptr``, ``out_rowptr`` are (N+1,); ``col`` is (E,), ``out_col`` (Q,).
    """

    rowptr: torch.Tensor
    col: torch.Tensor
    out_rowptr: torch.Tensor
    out_col: torch.Tensor

    @property
    def n_genes(self) -> int:
        """N."""
        return self.rowptr.numel() - 1

    @property
    def n_entries(self) -> int:
        """Entries of the (N, N) matrix that take part."""
        return self.n_genes**2 - self.out_col.numel()

    def to(self, device: torch.device | str) -> EdgeTarget:
        """Copy to a device."""
        return EdgeTarget(*(part.to(device) for part in self))


def edge_target(
    rowptr: torch.Tensor,
    col: torch.Tensor,
    held_out: tuple[torch.Tensor, torch.Tensor] | None = None,
    *,
    include_diagonal: bool = False,
) -> EdgeTarget:
    """Return the edges, and the entries that take no part.

    Parameters
    ----------
    rowptr, col
        (N+1,), (E,) int64 CSR of the edges, columns ascending within a row.
    held_out
        Rows and columns of pairs that take no part in either direction, each (P,) int64.
    include_diagonal
        Whether the N entries of a gene with itself take part, as in the published code.
    """
    n_genes = rowptr.numel() - 1
    left_out = [torch.empty(0, dtype=torch.int64, device=col.device)]
    if held_out is not None:
        left_out += [held_out[0] * n_genes + held_out[1], held_out[1] * n_genes + held_out[0]]
    if not include_diagonal:
        left_out.append(torch.arange(n_genes, device=col.device) * (n_genes + 1))
    codes = torch.unique(torch.cat(left_out))
    starts = torch.arange(n_genes + 1, device=col.device) * n_genes
    edges = _codes(rowptr, col, None, n_genes)
    place = torch.searchsorted(codes, edges).clamp_(max=max(codes.numel() - 1, 0))
    edges = edges[codes[place] != edges] if codes.numel() else edges  # torch.isin would sort both
    parts = [(torch.searchsorted(each, starts), each % max(1, n_genes)) for each in (edges, codes)]
    return EdgeTarget(*parts[0], *parts[1])


def edge_bce(
    logits: torch.Tensor,
    target: EdgeTarget,
    rows: torch.Tensor | None = None,
    *,
    divisor: float | None = None,
    overwrite: bool = False,
) -> torch.Tensor:
    """Return the binary cross-entropy of (B, N) logits against rows of the adjacency matrix, summed in float64.

    Parameters
    ----------
    rows
        (B,) int64 genes of the rows, without repeats; ``None``: all N in order.
    divisor
        Divisor of the sum over entries; ``None``: the number of entries of the whole matrix that take part, so that
        blocks which share out the rows add up to the mean of the whole.
    overwrite
        Keep the gradient in the memory of `logits`, which is lost, instead of a copy of its size.

    Raises
    ------
    ValueError
        When ``logits`` does not fit the target and the rows.
    """
    n_genes = target.n_genes
    shape = (n_genes if rows is None else rows.numel(), n_genes)
    if tuple(logits.shape) != shape:
        msg = f"logits must have shape {shape}, got {tuple(logits.shape)}"
        raise ValueError(msg)
    edges = _codes(target.rowptr, target.col, rows, n_genes)
    left_out = _codes(target.out_rowptr, target.out_col, rows, n_genes)
    by = max(1, target.n_entries) if divisor is None else divisor
    loss: torch.Tensor = _MaskedBCE.apply(logits, edges, left_out, by, overwrite)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return loss


def _codes(rowptr: torch.Tensor, col: torch.Tensor, rows: torch.Tensor | None, n_genes: int) -> torch.Tensor:
    degree = rowptr.diff()
    if rows is None:
        place = torch.arange(n_genes, device=col.device)
        return torch.repeat_interleave(place, degree, output_size=col.numel()) * n_genes + col
    degree = degree[rows]
    place = torch.repeat_interleave(torch.arange(rows.numel(), device=col.device), degree)
    first = rowptr[:-1][rows] - (degree.cumsum(0) - degree)
    at = torch.arange(place.numel(), device=col.device) + first[place]
    return place * n_genes + col[at]


class _MaskedBCE(torch.autograd.Function):
    """Sum of ``softplus(x) - target * x`` over entries that take part, by a divisor.

    The gradient is made with the loss, so that one matrix serves as logits and as gradient.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        logits: torch.Tensor,
        edges: torch.Tensor,
        left_out: torch.Tensor,
        divisor: float,
        overwrite: bool,  # noqa: FBT001  autograd functions pass by position
    ) -> torch.Tensor:
        # Above 20, torch's default threshold, double precision still tells softplus(x) from x.
        flat = logits.reshape(-1)
        total = -flat[edges].sum(dtype=torch.float64)
        for part in torch.split(flat, SUM_CHUNK):
            total += functional.softplus(part, threshold=40).sum(dtype=torch.float64)
        total -= functional.softplus(flat[left_out], threshold=40).sum(dtype=torch.float64)
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]  # torch's stub lacks it
            slope = flat.sigmoid_() if overwrite else flat.sigmoid()
            slope.index_add_(0, edges, slope.new_ones(edges.numel()), alpha=-1)
            slope.index_fill_(0, left_out, 0.0)
            slope *= slope.new_ones(()) / divisor
            ctx.save_for_backward(slope.view(logits.shape))
        return (total / divisor).to(logits.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slope,) = ctx.saved_tensors  # type: ignore[attr-defined]  # torch's stub lacks it
        is_one = grad.device.type == "cpu" and grad.item() == 1.0
        return slope if is_one else slope * grad, None, None, None, None


def similarity(z_i: torch.Tensor, z_j: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return minus the mean of ``weight * cosine`` over A shared genes, in [-1, 1]; 0 without shared genes.

    `z_i`, `z_j` are (A, d) vectors of the same genes; `weight` (A,) is the overlap of their neighbourhoods, in [0, 1].
    """
    total = (weight * functional.cosine_similarity(z_i, z_j, dim=1)).sum()
    return -total / max(1, weight.numel())


def ntxent(
    anchor: torch.Tensor,
    positive: torch.Tensor,
    temperature: float,
    exclude: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the NT-Xent loss of K pairs, the mean over 2K queries; 0 when K is 0.

    Vectors are stacked as ``[anchor; positive]``. The query's partner is its positive, the other 2K - 2 vectors its
    negatives: cross-entropy on the (2K, 2K) matrix of cosines over temperature with its diagonal masked.

    Parameters
    ----------
    anchor, positive
        (K, d) vectors; row g of one belongs to row g of the other.
    exclude
        (2K, 2K) mask of columns that are no negatives of the row; a query's positive stays in.

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


def alignment(z_i: torch.Tensor, z_j: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the symmetric InfoNCE loss of shared genes, (A, d) vectors in two datasets; 0 when A is 0.

    A gene's positive is the same gene in the other dataset; the other shared genes there are its negatives.

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
    both = (torch.logsumexp(scores, 0) + torch.logsumexp(scores, 1)) / 2 - scores.diagonal()
    return both.sum() / max(1, len(z_i))


def _check_pairs(first: torch.Tensor, second: torch.Tensor, temperature: float) -> None:
    if first.dim() != 2 or first.shape != second.shape:
        msg = f"both sides must have one shape (K, d), got {tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(msg)
    if not temperature > 0.0:
        msg = f"temperature must be positive, got {temperature}"
        raise ValueError(msg)
