"""Edge attention as torch operators: schemas, shapes without data, and the derivative.

The operators take tensors and numbers only, so that they trace and compile as one opaque node. The compiled
implementation is imported at its first call.

They are registered one by one, because ``torch.library.custom_op`` imports torch's compiler at the first call (160 MB
of memory with torch 2.13), which training does not use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from musegnn.kernels.edge_attention.graph import EdgeGraph

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx


def _attend(
    q: Tensor, k: Tensor, v: Tensor, u: Tensor, a: Tensor, rowptr: Tensor, col: Tensor, colptr: Tensor, row: Tensor,
    perm: Tensor, offsets: Tensor, scale: float, dropout: float, seed: int, impl: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute ``o``, ``z`` and ``lse`` by ``impl``, ``numba`` or ``triton``."""
    graph = EdgeGraph(rowptr, col, colptr, row, perm, offsets)
    out: tuple[Tensor, Tensor, Tensor] = _load(impl).forward(
        q, k, v, u, a, graph, scale=scale, dropout=dropout, seed=seed
    )
    return out


def _attend_backward(
    grad_o: Tensor, grad_z: Tensor, q: Tensor, k: Tensor, v: Tensor, u: Tensor, a: Tensor, o: Tensor, z: Tensor,
    lse: Tensor, rowptr: Tensor, col: Tensor, colptr: Tensor, row: Tensor, perm: Tensor, offsets: Tensor,
    scale: float, dropout: float, seed: int, impl: str, needs_da: bool,  # noqa: FBT001  operator schemas pass by position
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute the gradients of ``q, k, v, u, a``; that of ``a`` is (0, 0) unless ``needs_da``."""
    graph = EdgeGraph(rowptr, col, colptr, row, perm, offsets)
    options = {"scale": scale, "dropout": dropout, "seed": seed, "needs_da": needs_da}
    out: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _load(impl).backward(
        grad_o, grad_z, q, k, v, u, a, o, z, lse, graph, **options
    )
    return out


def _load(impl: str) -> Any:  # a module; both have the same two functions
    return import_module(f"musegnn.kernels.edge_attention.impl.{'triton.launch' if impl == 'triton' else 'cpu'}")


def _attend_shapes(q: Tensor, k: Tensor, v: Tensor, u: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    lse = q.new_empty(q.shape[:2], dtype=torch.promote_types(q.dtype, torch.float32))
    return q.new_empty(q.shape), q.new_empty(u.shape), lse


def _backward_shapes(
    grad_o: Tensor, grad_z: Tensor, q: Tensor, k: Tensor, v: Tensor, u: Tensor, a: Tensor, *rest: object
) -> tuple[Tensor, ...]:
    impl, needs_da = rest[-2:]
    n_edges, n_attributes = a.shape if needs_da else (0, 0)
    da = a.new_empty((n_attributes, n_edges)).T if impl == "numba" else a.new_empty((n_edges, n_attributes))
    return (*(part.new_empty(part.shape) for part in (q, k, v, u)), da)


def _keep(ctx: FunctionCtx, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, scale, dropout, seed, impl = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[2])
    ctx.options = (scale, dropout, seed, impl)  # type: ignore[attr-defined]  # contexts take any attribute


def _differentiate(ctx: Any, grad_o: Tensor, grad_z: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, u, a, rowptr, col, colptr, row, perm, offsets, o, z, lse = ctx.saved_tensors
    needs_da = ctx.needs_input_grad[4]
    dq, dk, dv, du, da = attend_backward(
        grad_o, grad_z, q, k, v, u, a, o, z, lse, rowptr, col, colptr, row, perm, offsets, *ctx.options, needs_da
    )
    return dq, dk, dv, du, da if needs_da else None, *[None] * 10


_library = torch.library.Library("musegnn", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch leaves it untyped
for _name, _compute, _shapes in (
    ("edge_attention", _attend, _attend_shapes),
    ("edge_attention_backward", _attend_backward, _backward_shapes),
):
    _schema = torch.library.infer_schema(_compute, mutates_args=())
    _library.define(_name + _schema)  # type: ignore[no-untyped-call]
    for _device in ("CPU", "CUDA"):
        _library.impl(_name, _compute, _device)  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"musegnn::{_name}", _shapes, lib=_library)
torch.library.register_autograd("musegnn::edge_attention", _differentiate, setup_context=_keep, lib=_library)
attend = torch.ops.musegnn.edge_attention.default
attend_backward = torch.ops.musegnn.edge_attention_backward.default
