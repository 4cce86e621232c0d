"""Segment operations in plain torch, any device and dtype, deterministic on CPU."""

from __future__ import annotations

import torch


def _rows(rowptr: torch.Tensor, n_edges: int) -> torch.Tensor:
    rows = torch.arange(rowptr.numel() - 1, device=rowptr.device)
    return torch.repeat_interleave(rows, rowptr.diff(), output_size=n_edges)


def segment_sum(values: torch.Tensor, rowptr: torch.Tensor) -> torch.Tensor:
    """Add the values of each row."""
    out = values.new_zeros((rowptr.numel() - 1, *values.shape[1:]))
    return out.index_add(0, _rows(rowptr, values.shape[0]), values)


def segment_softmax(values: torch.Tensor, rowptr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the softmax within each row and the logarithm of its normaliser."""
    rows = _rows(rowptr, values.shape[0])
    peak = values.new_zeros((rowptr.numel() - 1, *values.shape[1:]))
    index = rows.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    peak = peak.scatter_reduce(0, index, values.detach(), "amax", include_self=False)
    weights = torch.exp(values - peak[rows])
    total = segment_sum(weights, rowptr)
    total = torch.where(total > 0, total, 1.0)
    return weights / total[rows], peak + torch.log(total)
