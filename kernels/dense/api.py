"""Matrix products and linear maps with a choice of library.

For float32 on the CPU torch calls MKL, whose AVX-512 code runs on processors of Intel only; on others it is held to
AVX2, half the width. The oneDNN that torch brings as well has AVX-512 code for all. ``auto`` takes it on processors of
AMD's that compute 512 bits at once.

Legend: M rows, K inner dimension, N columns.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

# oneDNN adds up long sums in one go, with twice the rounding error of MKL from 1500 terms on.
LONGEST_SUM = 1024
FIRST_WHOLE = 26

DenseImpl = Literal["auto", "torch", "onednn"]


def matmul(a: torch.Tensor, b: torch.Tensor, *, impl: DenseImpl = "auto") -> torch.Tensor:
    """Multiply two matrices.

    Parameters
    ----------
    a, b
        (M, K) and (K, N).
    impl
        ``torch``: what ``a @ b`` does; ``onednn``: float32 on the CPU; ``auto``: ``onednn`` for float32 on AMD's
        processors with whole AVX-512 units, else ``torch``. The choice depends on the machine and the dtype, not on
        the shape.

    Returns
    -------
    torch.Tensor
        (M, N), any number of times differentiable.

    Raises
    ------
    ValueError
        When ``impl`` is unknown.
    TypeError
        When ``onednn`` is asked for and does not take such tensors.
    ImportError
        When ``onednn`` is asked for and torch was built without it.
    """
    return _product(a, b) if _by_onednn(a, b, impl) else a @ b


def linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *, impl: DenseImpl = "auto"
) -> torch.Tensor:
    """Give ``x @ weight.T + bias``.

    Parameters
    ----------
    x
        (..., K).
    weight, bias
        (N, K), and (N,) or ``None``.
    impl
        As in :func:`matmul`.

    Returns
    -------
    torch.Tensor
        (..., N), any number of times differentiable.

    Raises
    ------
    ValueError, TypeError, ImportError
        As in :func:`matmul`.
    """
    rows = x.reshape(-1, x.shape[-1]) if x.dim() > 2 else x
    if not _by_onednn(rows, weight, impl):
        return functional.linear(x, weight, bias)
    out: torch.Tensor = _Map.apply(rows, weight, bias)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out.view(*x.shape[:-1], weight.shape[0])


class Linear(nn.Linear):
    """``torch.nn.Linear``, computed by :func:`linear`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  the name in torch
        """Give ``input @ weight.T + bias``, (..., K) to (..., N)."""
        return linear(input, self.weight, self.bias)


class _Map(torch.autograd.Function):
    """``x @ weight.T + bias`` by oneDNN; its derivatives are such maps again."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        onednn, part = torch.ops.mkldnn._linear_pointwise, slice(LONGEST_SUM)
        out: torch.Tensor = onednn(x[:, part], _without_gaps(weight[:, part]), bias, "none", [], "")
        for first in range(LONGEST_SUM, x.shape[1], LONGEST_SUM):
            part = slice(first, first + LONGEST_SUM)
            out = onednn.binary(x[:, part], out, _without_gaps(weight[:, part]), None, "add")
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[torch.Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            _product(grad, weight) if wants_x else None,
            _product(grad.t(), x) if wants_weight else None,
            grad.sum(0) if wants_bias else None,
        )


def _without_gaps(weight: torch.Tensor) -> torch.Tensor:
    """Copy a matrix of which neither rows nor columns follow each other; oneDNN has but plain loops for those."""
    return weight if weight.is_contiguous() or weight.t().is_contiguous() else weight.contiguous()


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply by oneDNN."""
    out: torch.Tensor = _Map.apply(a, b.t(), None)  # type: ignore[no-untyped-call]
    return out


def _by_onednn(a: torch.Tensor, b: torch.Tensor, impl: str) -> bool:
    if impl not in ("auto", "torch", "onednn"):
        msg = f"impl must be 'auto', 'torch' or 'onednn', got {impl!r}"
        raise ValueError(msg)
    # The compiler chooses by itself, and transformations such as vmap know the operations of torch alone.
    if impl == "torch" or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    fits = (
        a.device.type == b.device.type == "cpu"
        and a.dtype == b.dtype == torch.float32
        and a.dim() == b.dim() == 2
        and not torch.is_autocast_enabled("cpu")
    )
    has_numbers = a.numel() > 0 and b.numel() > 0  # oneDNN refuses empty matrices, and products of others have none
    if impl == "auto":
        return fits and has_numbers and _onednn_is_wider()
    if not _has_onednn():
        msg = "impl='onednn' was asked for, and torch was built without it"
        raise ImportError(msg)
    if not fits:
        msg = f"impl='onednn' takes float32 matrices on the CPU, got {a.dtype} {tuple(a.shape)} on {a.device}"
        raise TypeError(msg)
    return has_numbers


@cache
def _has_onednn() -> bool:
    is_built_in: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return is_built_in and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@cache
def _onednn_is_wider() -> bool:
    """Tell whether oneDNN uses vectors here that are wider than MKL's, in a torch that has both libraries."""
    cpuinfo = Path("/proc/cpuinfo")
    is_wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    has_mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    known = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    return _has_onednn() and has_mkl and is_wide and _has_whole_vectors(known)


def _has_whole_vectors(cpuinfo: str) -> bool:
    """Tell whether this is a processor of AMD's from family 26 on: those before take two halves for 512 bits."""
    family = re.search(r"^cpu family\s*:\s*(\d+)", cpuinfo, re.MULTILINE)
    return "AuthenticAMD" in cpuinfo and family is not None and int(family[1]) >= FIRST_WHOLE
