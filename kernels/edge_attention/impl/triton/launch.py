"""Edge attention by Triton: allocates, chooses and launches.

Legend: N nodes, E edges, H heads, D head dimension, F edge attributes. Every element of every result is written by
one program, in an order that the graph fixes: no atomics, bitwise identical results at every call.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton

from musegnn.kernels.edge_attention.impl.triton import config, csr, reductions, tile
from musegnn.kernels.edge_attention.impl.triton.common import INTERPRETED
from musegnn.kernels.edge_attention.impl.triton.work_lists import Items, Plan, Tiles, plan_for

if TYPE_CHECKING:
    from musegnn.kernels.edge_attention.graph import EdgeGraph

_WORD = (1 << 64) - 1
_DELTA_ROWS = 64
_SUM_WIDTH = 256


class Options(NamedTuple):
    """What all kernels take beside tensors and shapes."""

    scale: float
    key: int
    threshold: int
    grow: float

    @classmethod
    def of(cls, scale: float, dropout: float, seed: int) -> Options:
        """Turn what a caller says into what a kernel reads."""
        key = _mix((seed + 0x9E3779B97F4A7C15) & _WORD)
        return cls(scale, key, round(dropout * (1 << 24)), 1.0 / (1.0 - dropout))


def forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, u: torch.Tensor, a: torch.Tensor, graph: EdgeGraph, *,
    scale: float, dropout: float, seed: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Compute ``o`` (N, H, D), ``z`` (N, H, F) and ``lse`` (N, H) in float32."""
    q, k, v, u, a = (part.contiguous() for part in (q, k, v, u, a))
    o, z = torch.empty_like(q), torch.empty_like(u)
    lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
    if lse.numel() == 0:
        return o, z, lse
    options = Options.of(scale, dropout, seed)
    with _on_device_of(q):
        plan = _plan(q, a, graph)
        _forward_lists(plan.row_items(graph), plan, graph, (q, k, v, u, a), (o, z, lse), options)
        if plan.tiles is not None:
            inputs = (q, k, v, u, a.float())
            _over_tiles(tile.edge_attention_fwd_kernel_tile, plan, plan.tiles, inputs, (o, z, lse), options)
    return o, z, lse


def backward(
    do: torch.Tensor, dz: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, u: torch.Tensor,
    a: torch.Tensor, o: torch.Tensor, z: torch.Tensor, lse: torch.Tensor, graph: EdgeGraph, *, scale: float,
    dropout: float, seed: int, needs_da: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Compute the gradients of ``q, k, v, u, a``; that of ``a`` is (0, 0) unless ``needs_da``."""
    do, dz, q, k, v, u, a, o, z = (part.contiguous() for part in (do, dz, q, k, v, u, a, o, z))
    dq, dk, dv, du = (torch.empty_like(part) for part in (q, k, v, u))
    da = torch.zeros_like(a) if needs_da else a.new_zeros((0, 0))
    if lse.numel() == 0:
        return dq, dk, dv, du, da
    options = Options.of(scale, dropout, seed)
    inputs = (q, k, v, u, a)
    with _on_device_of(q):
        plan = _plan(q, a, graph)
        delta = torch.empty_like(lse)
        _sum_products(o, do, z, dz, delta)
        given = (lse, delta, do, dz)
        # Rows of dense graphs take lists, too, where the gradient of attributes sums over heads.
        partial_da = _backward_rows_lists(
            plan.row_items(graph, every=needs_da), plan, graph, inputs, given, (dq, du), options, needs_da=needs_da
        )
        _backward_columns_lists(plan.column_items(graph), plan, graph, inputs, given, (dk, dv), options)
        if plan.tiles is not None:
            inputs = (q, k, v, u, a.float())
            if not needs_da:
                rows = tile.edge_attention_bwd_kernel_tile_rows
                _over_tiles(rows, plan, plan.tiles, inputs, (*given, dq, du), options)
            columns = tile.edge_attention_bwd_kernel_tile_columns
            _over_tiles(columns, plan, plan.tiles, inputs, (*given, dk, dv), options, columns=True)
    if needs_da:
        da = partial_da.sum(0).to(a.dtype)
    return dq, dk, dv, du, da


def _plan(q: torch.Tensor, a: torch.Tensor, graph: EdgeGraph) -> Plan:
    # Tiles address nodes by 32-bit numbers.
    fits = q.numel() < 1 << 31
    may_tile = fits and config.may_tile(config.dot_precision(q.dtype), q.shape[2], a.shape[1])
    return plan_for(graph, config.LIMITS, may_tile=may_tile)


def _forward_lists(
    items: Items, plan: Plan, graph: EdgeGraph, inputs: tuple[torch.Tensor, ...], outputs: tuple[torch.Tensor, ...],
    options: Options,
) -> None:  # fmt: skip
    o, z, lse = outputs
    (_, n_heads, dim), n_attributes = o.shape, z.shape[2]
    if items.row.numel() == 0:
        return
    shape = config.list_shape(n_heads, dim)
    part_sizes = [(n_heads,), (n_heads,), (n_heads, dim), (n_heads, n_attributes)]
    partial = [lse.new_empty((items.n_parts, *size)) for size in part_sizes]
    csr.edge_attention_fwd_kernel_csr[(items.row.numel(), triton.cdiv(n_heads, shape.BH))](
        *inputs, plan.short(graph, "col"), *items[:4], *outputs, *partial, *options,
        H=n_heads, D=dim, F=n_attributes, **_blocks(shape),
        USE_PARTS=items.n_parts > 0, USE_DROPOUT=options.threshold > 0,
    )  # fmt: skip
    if items.n_parts > 0:
        reductions.edge_attention_fwd_kernel_merge[(items.split_row.numel(), n_heads)](
            items.split_row, items.split_part, *partial, *outputs,
            H=n_heads, D=dim, F=n_attributes,
            BD=config.power_of_two(dim), BF=config.power_of_two(n_attributes), num_warps=1,
        )  # fmt: skip


def _backward_rows_lists(
    items: Items, plan: Plan, graph: EdgeGraph, inputs: tuple[torch.Tensor, ...], given: tuple[torch.Tensor, ...],
    outputs: tuple[torch.Tensor, ...], options: Options, *, needs_da: bool,
) -> torch.Tensor:  # fmt: skip
    """Return the gradient of the attributes per group of heads, (groups, E, F) float32."""
    dq, du = outputs
    lse, a = given[0], inputs[4]
    (_, n_heads, dim), n_attributes = dq.shape, du.shape[2]
    shape = config.list_shape(n_heads, dim)
    n_groups = triton.cdiv(n_heads, shape.BH)
    da = lse.new_empty((n_groups, *a.shape) if needs_da else (n_groups, 0, n_attributes))
    if items.row.numel() == 0:
        return da
    partial = [lse.new_empty((items.n_parts, n_heads, width)) for width in (dim, n_attributes)]
    csr.edge_attention_bwd_kernel_csr_rows[(items.row.numel(), n_groups)](
        *inputs, plan.short(graph, "col"), *items[:4], *given, dq, du, da, *partial, a.shape[0], *options,
        H=n_heads, D=dim, F=n_attributes, **_blocks(shape),
        USE_PARTS=items.n_parts > 0, USE_DROPOUT=options.threshold > 0, USE_DA=needs_da,
    )  # fmt: skip
    _sum_parts(items, partial, outputs)
    return da


def _backward_columns_lists(
    items: Items, plan: Plan, graph: EdgeGraph, inputs: tuple[torch.Tensor, ...], given: tuple[torch.Tensor, ...],
    outputs: tuple[torch.Tensor, ...], options: Options,
) -> None:  # fmt: skip
    (_, n_heads, dim), n_attributes = outputs[0].shape, inputs[4].shape[1]
    if items.row.numel() == 0:
        return
    shape = config.list_shape(n_heads, dim, columns=True)
    partial = [given[0].new_empty((items.n_parts, n_heads, dim)) for _ in outputs]
    csr.edge_attention_bwd_kernel_csr_columns[(items.row.numel(), triton.cdiv(n_heads, shape.BH))](
        *inputs, plan.short(graph, "row"), plan.short(graph, "perm"), *items[:4], *given, *outputs, *partial, *options,
        H=n_heads, D=dim, F=n_attributes, **_blocks(shape),
        USE_PARTS=items.n_parts > 0, USE_DROPOUT=options.threshold > 0,
    )  # fmt: skip
    _sum_parts(items, partial, outputs)


def _over_tiles(
    kernel: Any, plan: Plan, tiles: Tiles, inputs: tuple[torch.Tensor, ...], others: tuple[torch.Tensor, ...],
    options: Options, *, columns: bool = False,
) -> None:  # fmt: skip
    """Launch a kernel over the tiles of all dense graphs; ``inputs[4]`` is float32, which copies asynchronously."""
    q, a = inputs[0], inputs[4]
    n_heads, dim = q.shape[1:]
    precision = config.dot_precision(q.dtype)
    shape = config.tile_shape(precision, dim, columns=columns)
    items = plan.tile_items(config.TILE_COLUMNS if columns else shape.BM)
    kernel[(items.shape[0] * n_heads,)](
        *inputs, tiles.mask, tiles.base, tiles.table, items, *others, *options,
        H=n_heads, D=dim, F=a.shape[1], **_blocks(shape),
        PRECISION=config.input_precision(precision), USE_DROPOUT=options.threshold > 0, UPCAST=INTERPRETED,
    )  # fmt: skip


def _sum_products(o: torch.Tensor, do: torch.Tensor, z: torch.Tensor, dz: torch.Tensor, delta: torch.Tensor) -> None:
    dim, n_attributes = o.shape[2], z.shape[2]
    reductions.edge_attention_bwd_kernel_delta[(triton.cdiv(delta.numel(), _DELTA_ROWS),)](
        o, do, z, dz, delta, delta.numel(),
        D=dim, F=n_attributes, BD=config.power_of_two(dim), BM=_DELTA_ROWS,
    )  # fmt: skip


def _sum_parts(items: Items, partial: list[torch.Tensor], outputs: tuple[torch.Tensor, ...]) -> None:
    if items.n_parts == 0:
        return
    for part, out in zip(partial, outputs, strict=True):
        width = part.shape[1] * part.shape[2]
        if width > 0:
            reductions.edge_attention_bwd_kernel_sum[(items.split_row.numel(), triton.cdiv(width, _SUM_WIDTH))](
                items.split_row, items.split_part, part, out, W=width, BW=_SUM_WIDTH, num_warps=1
            )


def _blocks(shape: config.Shape) -> dict[str, Any]:  # Any: numbers of several kinds, as Triton takes them
    sizes = {name: getattr(shape, name) for name in ("BE", "BH", "BM", "BD") if getattr(shape, name) > 0}
    return {**sizes, "num_warps": shape.warps, "num_stages": shape.stages}


def _on_device_of(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _mix(x: int) -> int:
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _WORD
    return x ^ x >> 31
