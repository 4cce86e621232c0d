"""The reconstruction loss of one dataset: all entries, a block of rows, or a sample of pairs.

All three give the same expectation. With P entries that take part and l_rc the cross-entropy of one entry:

* all: ``1/P sum_rc l_rc``;
* a block of B of N rows: ``N/(B P) sum_{r in block} sum_c l_rc``. Rows are dealt into blocks at random, so a given
  block holds a row with probability B/N, and the expectation is the loss of all;
* pairs: see :mod:`musegnn.training.pair_sampling`.

What does not fit one step of ``TILE_ENTRIES`` numbers (``PAIR_TILE_ENTRIES`` for pairs) is computed in tiles whose
gradients are added up, in an order that sizes alone decide. Which rows and pairs are decoded is a function of (seed,
round, dataset).

Legend: N genes, B rows of a block, d dimensions of the embedding.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from musegnn.model.decoder import SymmetricDecoder
from musegnn.random import stream
from musegnn.training.losses import edge_bce, edge_target
from musegnn.training.pair_sampling import PairSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch.autograd.function import FunctionCtx

    from musegnn.config import TrainingConfig
    from musegnn.graph import GraphData
    from musegnn.model.decoder import Decoder
    from musegnn.training.losses import EdgeTarget

TILE_ENTRIES = 1 << 24
PAIR_TILE_ENTRIES = 1 << 19  # a tile's vectors stay in the cache


class Reconstruction:
    """The loss of the logits of one dataset's decoder against its graph as training sees it.

    Raises
    ------
    ValueError
        When pairs are asked of a decoder that scores whole rows.
    """

    def __init__(
        self, decoder: Decoder, graph: GraphData, config: TrainingConfig, *, device: torch.device | str = "cpu"
    ) -> None:
        self._decoder, self._device, self._seed, self._name = decoder, device, config.seed, graph.name
        self._n, self._graph, self._has_diagonal = graph.n_genes, graph, config.published.diagonal
        self._n_rows = self._n if config.row_block is None else min(config.row_block, self._n)
        self._sampler = None if config.pairs is None else PairSampler(graph, seed=config.seed, n=config.pairs)
        if self._sampler is not None and not isinstance(decoder, SymmetricDecoder):
            msg = "training.pairs needs a decoder that scores single pairs"
            raise ValueError(msg)

    @cached_property
    def _target(self) -> EdgeTarget:
        """The edges as the loss takes them, made at its first use: without rounds nobody asks for them."""
        graph = self._graph
        first, second = (self._tensor(ends) for ends in graph.held_out.all)
        edges = (self._tensor(graph.edges.indptr), self._tensor(graph.edges.indices.astype(np.int64)))
        return edge_target(*edges, (first, second), include_diagonal=self._has_diagonal)

    def __call__(self, round_: int, z: torch.Tensor) -> torch.Tensor:
        """Return the loss for vectors `z`, (N, d), as a scalar."""
        if self._sampler is not None:
            return self._pairs(self._sampler, round_, z)
        tile = tile_rows(self._decoder)
        if self._n_rows == self._n <= tile:
            return edge_bce(self._decoder(z), self._target, overwrite=True)
        block = row_block(self._seed, round_, self._name, self._n, self._n_rows)
        rows = self._tensor(block)
        divisor = max(1, self._target.n_entries) * len(block) / self._n

        def part(z: torch.Tensor, first: int, last: int) -> torch.Tensor:
            logits = self._decoder.row_block(z, rows[first:last])
            return edge_bce(logits, self._target, rows[first:last], divisor=divisor, overwrite=True)

        return _in_tiles(part, len(block), tile, z, self._decoder)

    def _pairs(self, sampler: PairSampler, round_: int, z: torch.Tensor) -> torch.Tensor:
        decoder, drawn = self._decoder, sampler.draw(round_)
        assert isinstance(decoder, SymmetricDecoder)
        rows, columns = self._tensor(drawn.rows), self._tensor(drawn.columns)
        is_edge, weight = (self._tensor(part).to(z.dtype) for part in (drawn.is_edge, drawn.weight))

        def part(z: torch.Tensor, first: int, last: int) -> torch.Tensor:
            logits = decoder.pairs(z, rows[first:last], columns[first:last])
            return functional.binary_cross_entropy_with_logits(
                logits, is_edge[first:last], weight[first:last], reduction="sum"
            )

        per_pair = max(z.shape[1], decoder.values_per_row // max(1, self._n))
        return _in_tiles(part, len(drawn.rows), max(1, PAIR_TILE_ENTRIES // per_pair), z, decoder)

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:  # integers or floats
        return torch.as_tensor(array, device=self._device)


def row_block(seed: int, round_: int, name: str, n_genes: int, n_rows: int) -> NDArray[np.int64]:
    """Return the rows of a dataset that are decoded in a round, ascending, int64.

    The N rows are dealt into ceil(N / B) blocks in random order, which take turns; then they are dealt anew. The last
    block of a deal is smaller when B does not divide N.

    Examples
    --------
    >>> [row_block(0, round_, "lung", 5, 2).tolist() for round_ in (1, 2, 3)]
    [[0, 1], [2, 4], [3]]
    """
    deal, turn = divmod(round_ - 1, -(-n_genes // n_rows))
    order = stream(seed, "row_block", deal, name).permutation(n_genes)
    return np.sort(order[turn * n_rows : (turn + 1) * n_rows])


def tile_rows(decoder: Decoder) -> int:
    """Return the number of rows that one step decodes at most."""
    return max(1, TILE_ENTRIES // max(1, decoder.values_per_row))


def _in_tiles(
    part: Callable[[torch.Tensor, int, int], torch.Tensor], size: int, tile: int, z: torch.Tensor, decoder: Decoder
) -> torch.Tensor:
    """Add up the losses of consecutive tiles of at most `tile` items."""
    if size == 0:
        return z.sum() * 0.0
    if size <= tile:
        return part(z, 0, size)
    starts = range(0, size, tile)
    ends = [(first, min(first + tile, size)) for first in starts]
    if not torch.is_grad_enabled():
        return torch.stack([part(z, first, last) for first, last in ends]).sum()
    loss: torch.Tensor = _Tiles.apply(part, ends, z, *decoder.parameters())  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return loss


class _Tiles(torch.autograd.Function):
    """A sum of parts whose gradients are made part by part with the loss, so that one part's results live at a time."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        part: Callable[[torch.Tensor, int, int], torch.Tensor],
        ends: Sequence[tuple[int, int]],
        z: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        leaf = z.detach().requires_grad_()
        inputs = (leaf, *parameters)
        gradients = [torch.zeros_like(tensor) for tensor in inputs]
        total = z.new_zeros((), dtype=torch.float64)
        with torch.enable_grad():
            for first, last in ends:
                loss = part(leaf, first, last)
                for so_far, gradient in zip(gradients, torch.autograd.grad(loss, inputs), strict=True):
                    so_far.add_(gradient)
                total += loss.detach()
        ctx.save_for_backward(*gradients)
        return total.to(z.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients = ctx.saved_tensors  # type: ignore[attr-defined]  # torch's stub lacks it
        is_one = grad.device.type == "cpu" and grad.item() == 1.0
        return None, None, *(gradient if is_one else gradient * grad for gradient in gradients)
