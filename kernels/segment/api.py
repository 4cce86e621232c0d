"""Segment sum and softmax with a choice of implementation.

Legend: N rows, E edges in CSR order, ``...`` any trailing dimensions.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import torch

from musegnn.kernels.segment.impl import torch as in_torch
from musegnn.kernels.validation import resolve_impl

SegmentImpl = Literal["auto", "torch", "scatter"]

_HAS_SCATTER = find_spec("torch_scatter") is not None


def segment_sum(values: torch.Tensor, rowptr: torch.Tensor, *, impl: SegmentImpl = "auto") -> torch.Tensor:
    """Add the values of each row: (N, ...), 0 for empty rows, differentiable in ``values``.

    Parameters
    ----------
    values
        (E, ...) floating point, in CSR order.
    rowptr
        (N+1,) int64; row i owns ``values[rowptr[i]:rowptr[i+1]]``.
    impl
        ``torch``: plain torch; ``scatter``: the kernels of torch-scatter (an optional package), no second derivatives;
        ``auto``: ``scatter`` where it is installed, outside ``torch.compile``, else ``torch``.
    """
    _check(values, rowptr)
    out: torch.Tensor = _load(impl).segment_sum(values, rowptr)
    return out


def segment_softmax(
    values: torch.Tensor, rowptr: torch.Tensor, *, impl: SegmentImpl = "auto"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the softmax within each row, (E, ...), and the log-sum-exp of each row, (N, ...), 0 for empty rows.

    The first is differentiable in ``values``, which are scores; parameters are those of :func:`segment_sum`.
    """
    _check(values, rowptr)
    weights, lse = _load(impl).segment_softmax(values, rowptr)
    return weights, lse


def _check(values: torch.Tensor, rowptr: torch.Tensor) -> None:
    if rowptr.dim() != 1 or rowptr.numel() == 0:
        msg = f"rowptr must have shape (N+1,), got {tuple(rowptr.shape)}"
        raise ValueError(msg)
    if torch.compiler.is_compiling():  # the compiler cannot look at the values of rowptr
        return
    if values.dim() == 0 or values.shape[0] != int(rowptr[-1]):
        msg = f"values must have shape (E, ...) with E={int(rowptr[-1])}, got {tuple(values.shape)}"
        raise ValueError(msg)


def _load(impl: str) -> Any:  # a module; each has the same two functions
    prefers_scatter = _HAS_SCATTER and not torch.compiler.is_compiling()
    chosen = resolve_impl(impl, ("scatter", "torch") if prefers_scatter else ("torch", "scatter"))
    return in_torch if chosen == "torch" else import_module("musegnn.kernels.segment.impl.scatter")
