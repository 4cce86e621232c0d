"""Segment sum and softmax with a choice of implementation.

Legend: N rows, E edges in CSR order, ``...`` any trailing dimensions.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import torch

from musegnn.kernels.segment.impl import torch as in_torch

SegmentImpl = Literal["torch", "scatter"]


def segment_sum(values: torch.Tensor, rowptr: torch.Tensor, *, impl: SegmentImpl = "torch") -> torch.Tensor:
    """Add the values of each row.

    Parameters
    ----------
    values
        (E, ...) floating point, in CSR order.
    rowptr
        (N+1,) int64; row i owns ``values[rowptr[i]:rowptr[i+1]]``.
    impl
        ``torch``, or ``scatter`` for the kernels of torch-scatter (an optional package).

    Returns
    -------
    torch.Tensor
        (N, ...), 0 for empty rows. Differentiable in ``values``.

    Raises
    ------
    ValueError
        When shapes disagree or ``impl`` is unknown.
    ImportError
        When ``scatter`` is asked for and torch-scatter is not installed.
    """
    _check(values, rowptr)
    out: torch.Tensor = _load(impl).segment_sum(values, rowptr)
    return out


def segment_softmax(
    values: torch.Tensor, rowptr: torch.Tensor, *, impl: SegmentImpl = "torch"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the softmax within each row, and the logarithm of its normaliser.

    Parameters
    ----------
    values
        (E, ...) floating point scores, in CSR order.
    rowptr, impl
        As in :func:`segment_sum`.

    Returns
    -------
    weights
        (E, ...), summing to one within each row that has edges. Differentiable in ``values``.
    lse
        (N, ...), the log-sum-exp of each row; 0 for empty rows.

    Raises
    ------
    ValueError
        When shapes disagree or ``impl`` is unknown.
    ImportError
        When ``scatter`` is asked for and torch-scatter is not installed.
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


def _load(impl: str) -> Any:  # a module; each gives the same two functions
    if impl == "torch":
        return in_torch
    if impl != "scatter":
        msg = f"impl must be 'torch' or 'scatter', got {impl!r}"
        raise ValueError(msg)
    return import_module("musegnn.kernels.segment.impl.scatter")
