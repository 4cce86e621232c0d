"""Segment operations through torch-scatter's CSR kernels."""

from __future__ import annotations

import torch
import torch_scatter


def segment_sum(values: torch.Tensor, rowptr: torch.Tensor) -> torch.Tensor:
    """Add the values of each row."""
    out: torch.Tensor = torch_scatter.segment_csr(values, rowptr, reduce="sum")
    return out


def segment_softmax(values: torch.Tensor, rowptr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the softmax within each row and the logarithm of its normaliser."""
    peak = torch_scatter.segment_csr(values.detach(), rowptr, reduce="max")
    weights = torch.exp(values - torch_scatter.gather_csr(peak, rowptr))
    total = segment_sum(weights, rowptr)
    total = torch.where(total > 0, total, 1.0)
    return weights / torch_scatter.gather_csr(total, rowptr), peak + torch.log(total)
