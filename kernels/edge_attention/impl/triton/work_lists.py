"""What the Triton kernels read beside the graph: work lists and bit masks, made once per graph.

Legend: N nodes, E edges, G graphs of a batch, NT = ceil(N / 32) words of a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from musegnn.kernels.edge_attention.impl.graph_cache import PerGraph
from musegnn.kernels.edge_attention.impl.triton.config import TILE_ATTRIBUTES, WORD

if TYPE_CHECKING:
    from musegnn.kernels.edge_attention.graph import EdgeGraph
    from musegnn.kernels.edge_attention.impl.triton.config import Limits

CHUNK = 1 << 24
LARGEST = max(n for row in TILE_ATTRIBUTES.values() for n in row.values())


class Items(NamedTuple):
    """Rows (or columns) as work for programs over lists of edges, the longest first.

    Attributes
    ----------
    row, start, length, part
        Per item: its row (int32), first edge (int64), number of edges and part (int32; -1: the whole row).
    split_row, split_part
        Rows in several parts, and the first part of each (one entry more than rows), int32.
    n_whole
        Number of rows in one piece.
    """

    row: torch.Tensor
    start: torch.Tensor
    length: torch.Tensor
    part: torch.Tensor
    split_row: torch.Tensor
    split_part: torch.Tensor
    n_whole: int

    @property
    def n_parts(self) -> int:
        """Number of partial results."""
        return self.row.numel() - self.n_whole


class Tiles(NamedTuple):
    """The dense graphs of a batch as bits.

    Attributes
    ----------
    mask
        int32 words, per graph (NT, N): bit c of word (t, i) is the edge from column ``32 t + c`` to row i.
    base
        int32, laid out alike: CSR position of the first edge of the word, counted within its graph.
    table
        (G, 4) int64: first node, first word, first edge and number of nodes of each graph.
    sizes
        The number of nodes of each graph.
    """

    mask: torch.Tensor
    base: torch.Tensor
    table: torch.Tensor
    sizes: list[int]


class Plan:
    """Work lists and bit masks of one graph or batch, which is not kept, under given limits.

    Head dimension and attributes allow tiles where `may_tile` is set.
    """

    def __init__(self, graph: EdgeGraph, limits: Limits, *, may_tile: bool) -> None:
        self._longest = limits.longest_part
        self._items: dict[tuple[bool, bool], Items] = {}
        self._tile_items: dict[int, torch.Tensor] = {}
        self._short: dict[str, torch.Tensor] = {}
        self._device = graph.col.device
        ends = torch.stack([graph.offsets, graph.rowptr[graph.offsets]]).tolist()
        spans = list(zip(ends[0], ends[0][1:], ends[1], ends[1][1:], strict=False))
        dense = [may_tile and _is_dense(span, limits) for span in spans]
        self.tiles = _make_tiles(graph, [span for span, is_dense in zip(spans, dense, strict=True) if is_dense])
        lists = [
            torch.arange(span[0], span[1], device=graph.col.device)
            for span, is_dense in zip(spans, dense, strict=True)
            if not is_dense
        ]
        self._list_rows = torch.cat(lists) if lists else graph.col.new_empty(0)

    def short(self, graph: EdgeGraph, name: str) -> torch.Tensor:
        """Return ``col``, ``row`` or ``perm`` in 32 bits, made when lists first need it; longer ``perm`` as it is."""
        if name not in self._short:
            part: torch.Tensor = getattr(graph, name)
            fits = name != "perm" or part.numel() < 1 << 31
            self._short[name] = part.to(torch.int32) if fits else part.clone()
        return self._short[name]

    def row_items(self, graph: EdgeGraph, *, every: bool = False) -> Items:
        """List the rows of sparse graphs, or of all."""
        return self._list(graph.rowptr, columns=False, every=every)

    def column_items(self, graph: EdgeGraph) -> Items:
        """List the columns of sparse graphs."""
        return self._list(graph.colptr, columns=True, every=False)

    def tile_items(self, height: int) -> torch.Tensor:
        """List (graph, tile of so many rows or columns) of the dense graphs, (items, 2) int32, the largest first."""
        assert self.tiles is not None
        if height not in self._tile_items:
            sizes = self.tiles.sizes
            order = sorted(range(len(sizes)), key=lambda g: -sizes[g])
            items = [[g, tile] for g in order for tile in range(-(-sizes[g] // height))]
            self._tile_items[height] = torch.tensor(items, dtype=torch.int32, device=self._device).view(-1, 2)
        return self._tile_items[height]

    def _list(self, pointers: torch.Tensor, *, columns: bool, every: bool) -> Items:
        key = (columns, every)
        if key not in self._items:
            rows = torch.arange(pointers.numel() - 1, device=pointers.device) if every else self._list_rows
            self._items[key] = make_items(pointers, rows, self._longest)
        return self._items[key]


def make_items(pointers: torch.Tensor, rows: torch.Tensor, longest: int) -> Items:
    """Split rows into items of at most ``longest`` edges and sort these by their number of edges."""
    n_items = ((pointers[rows + 1] - pointers[rows] + longest - 1) // longest).clamp(min=1)
    row = torch.repeat_interleave(rows, n_items)
    first_item = n_items.cumsum(0) - n_items
    within = torch.arange(row.numel(), device=row.device) - torch.repeat_interleave(first_item, n_items)
    start = pointers[row] + within * longest
    count = (pointers[row + 1] - start).clamp(max=longest)
    is_split = n_items > 1
    of_split = torch.repeat_interleave(is_split, n_items)
    part = torch.where(of_split, of_split.cumsum(0) - 1, -1)
    split_part = torch.cat([n_items.new_zeros(1), n_items[is_split].cumsum(0)])
    n_whole = rows.numel() - int(is_split.sum())
    order = torch.argsort(count, descending=True, stable=True)
    row, start, count, part = (values[order] for values in (row, start, count, part))
    return Items(row.int(), start, count.int(), part.int(), rows[is_split].int(), split_part.int(), n_whole)


def _is_dense(span: tuple[int, int, int, int], limits: Limits) -> bool:
    n_nodes, n_edges = span[1] - span[0], span[3] - span[2]
    # Kernels address attributes of a graph by 32-bit numbers.
    fits = n_edges * LARGEST < 1 << 31
    return fits and 0 < n_edges >= limits.tile_density * n_nodes**2


def _make_tiles(graph: EdgeGraph, spans: list[tuple[int, int, int, int]]) -> Tiles | None:
    if not spans:
        return None
    masks, bases, table, words = [], [], [], 0
    for first_node, last_node, first_edge, last_edge in spans:
        n_nodes = last_node - first_node
        rowptr = graph.rowptr[first_node : last_node + 1] - first_edge
        mask, base = make_masks(rowptr, graph.col[first_edge:last_edge] - first_node)
        table.append([first_node, words, first_edge, n_nodes])
        words += mask.numel()
        masks.append(mask.view(-1))
        bases.append(base.view(-1))
    device = graph.col.device
    sizes = [row[3] for row in table]
    return Tiles(torch.cat(masks), torch.cat(bases), torch.tensor(table, device=device), sizes)


def make_masks(rowptr: torch.Tensor, col: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn the CSR of one graph into words of 32 columns, ``mask`` and ``base``, (NT, N) int32 each.

    Bit c of word (t, i) of ``mask`` is the edge from column ``32 t + c`` to row i; ``base`` holds the CSR position of
    the word's first edge, or where it would be. `rowptr` is (N+1,) int64 from 0, `col` (E,) int64, strictly increasing
    within each row.
    """
    n_nodes, n_edges = rowptr.numel() - 1, col.numel()
    n_words = -(-n_nodes // WORD)
    mask = torch.zeros(n_words * n_nodes, dtype=torch.int32, device=col.device)
    count = torch.zeros_like(mask)
    for first in range(0, n_edges, CHUNK):
        edge = torch.arange(first, min(first + CHUNK, n_edges), device=col.device)
        row = torch.searchsorted(rowptr, edge, right=True) - 1
        part = col[first : first + CHUNK]
        word = part // WORD * n_nodes + row
        # Each bit is added once, so the sum is the union; the top bit wraps into the sign.
        mask.index_add_(0, word, (1 << (part % WORD)).to(torch.int32))
        count.index_add_(0, word, torch.ones_like(word, dtype=torch.int32))
    count = count.view(n_words, n_nodes)
    base = rowptr[:-1].int() + count.cumsum(0, dtype=torch.int32) - count
    return mask.view(n_words, n_nodes), base


_plans: PerGraph[Plan] = PerGraph()


def plan_for(graph: EdgeGraph, limits: Limits, *, may_tile: bool) -> Plan:
    """Return the plan of a graph, made at the first call and kept as long as the graph's tensors live."""
    parts = (graph.rowptr, graph.col, graph.offsets)
    return _plans.get(parts, (limits, may_tile), lambda: Plan(graph, limits, may_tile=may_tile))
