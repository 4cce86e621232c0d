"""The graph as edge attention reads it: CSR for rows, CSC for columns.

Legend: N nodes, E edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from musegnn.kernels.validation import check_pointers, check_range

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


class EdgeGraph(NamedTuple):
    """A directed graph in which row i receives from column j, edge ``e = (j -> i)``.

    Attributes
    ----------
    rowptr, col
        CSR: (N+1,) and (E,) int64, columns strictly increasing within a row.
    colptr, row
        CSC of the same edges: (N+1,) and (E,) int64, rows strictly increasing within a column.
    perm
        (E,) int64: the CSR position of each CSC entry.
    offsets
        (G+1,) int64: graph g of a batch owns the nodes ``offsets[g]`` to ``offsets[g+1]``, and no edge leaves it;
        ``[0, N]`` for a single graph.
    """

    rowptr: torch.Tensor
    col: torch.Tensor
    colptr: torch.Tensor
    row: torch.Tensor
    perm: torch.Tensor
    offsets: torch.Tensor

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return self.rowptr.numel() - 1

    @property
    def n_edges(self) -> int:
        """Number of directed edges."""
        return self.col.numel()

    @property
    def target(self) -> torch.Tensor:
        """The row of each edge in CSR order, (E,) int64."""
        rows = torch.arange(self.n_nodes, device=self.rowptr.device)
        return torch.repeat_interleave(rows, self.rowptr.diff(), output_size=self.n_edges)

    def to(self, device: torch.device | str) -> EdgeGraph:
        """Copy the graph to a device."""
        return EdgeGraph(*(part.to(device) for part in self))


def edge_graph(indptr: ArrayLike, indices: ArrayLike) -> EdgeGraph:
    """Check a CSR structure and add its transpose, on the CPU.

    Parameters
    ----------
    indptr
        (N+1,) integers, ``indptr[0] == 0``, not decreasing; row i receives from
        ``indices[indptr[i]:indptr[i+1]]``.
    indices
        (E,) integers in [0, N), strictly increasing within each row.

    Examples
    --------
    >>> graph = edge_graph([0, 2, 3, 3], [0, 2, 0])
    >>> graph.colptr.tolist(), graph.row.tolist(), graph.perm.tolist()
    ([0, 2, 2, 3], [0, 1, 0], [0, 2, 1])
    """
    rowptr = _integers(indptr, "indptr")
    col = _integers(indices, "indices")
    n_nodes, n_edges = rowptr.size - 1, col.size
    check_pointers("indptr", rowptr, n_edges)
    check_range("indices", col, 0, n_nodes)
    target = np.repeat(np.arange(n_nodes, dtype=np.int64), np.diff(rowptr))
    if bool(((np.diff(target) == 0) & (np.diff(col) <= 0)).any()):
        msg = "indices must be strictly increasing within each row: sort them and merge repeated edges"
        raise ValueError(msg)
    perm = np.argsort(col, kind="stable")
    colptr = np.zeros(n_nodes + 1, dtype=np.int64)
    np.cumsum(np.bincount(col, minlength=n_nodes), out=colptr[1:])
    offsets = np.array([0, n_nodes], dtype=np.int64)
    return EdgeGraph(*(torch.from_numpy(part) for part in (rowptr, col, colptr, target[perm], perm, offsets)))


def edge_graph_from_pairs(source: ArrayLike, target: ArrayLike, n_nodes: int) -> tuple[EdgeGraph, torch.Tensor]:
    """Return the graph of a list of edges in any order, and that order by CSR position, (E,) int64.

    Edge e, none repeated, goes from ``source[e]`` to ``target[e]``, (E,) integers in [0, n_nodes). CSR position p holds
    the listed edge ``order[p]``, so attributes are taken as ``attr[order]``.
    """
    tail, head = _integers(source, "source"), _integers(target, "target")
    if tail.size != head.size:
        msg = f"source and target must have equal lengths, got {tail.size} and {head.size}"
        raise ValueError(msg)
    check_range("target", head, 0, n_nodes)
    order = np.lexsort((tail, head))
    indptr = np.zeros(n_nodes + 1, dtype=np.int64)
    np.cumsum(np.bincount(head, minlength=n_nodes), out=indptr[1:])
    return edge_graph(indptr, tail[order]), torch.from_numpy(order)


def batch_graphs(graphs: Sequence[EdgeGraph]) -> EdgeGraph:
    """Put graphs side by side, so that one call attends in all of them; ``offsets`` separates them.

    Nodes and edges follow each other graph by graph, as ``torch.cat`` joins features and attributes. Without
    dropout the results of ``numba`` and ``triton`` are bitwise those of each graph alone. Dropout is keyed by the
    position in the batch. Keep the batch for as long as the same graphs are used: what an implementation prepares per
    graph, it prepares per batch. Graphs, at least one, are on one device, and may be batches themselves.

    Examples
    --------
    >>> pair, loop = edge_graph([0, 1, 2], [1, 0]), edge_graph([0, 1], [0])
    >>> batch = batch_graphs([pair, loop])
    >>> batch.rowptr.tolist(), batch.col.tolist(), batch.offsets.tolist()
    ([0, 1, 2, 3], [1, 0, 2], [0, 2, 3])
    """
    if not graphs:
        msg = "batch_graphs needs at least one graph, got none"
        raise ValueError(msg)
    nodes, edges = [0], [0]
    for graph in graphs:
        nodes.append(nodes[-1] + graph.n_nodes)
        edges.append(edges[-1] + graph.n_edges)

    def join(name: str, steps: list[int], skipped: int = 0) -> torch.Tensor:
        parts = [getattr(graph, name)[skipped:] + step for graph, step in zip(graphs, steps, strict=False)]
        return torch.cat([parts[0].new_zeros(skipped), *parts])

    return EdgeGraph(
        rowptr=join("rowptr", edges, 1),
        col=join("col", nodes),
        colptr=join("colptr", edges, 1),
        row=join("row", nodes),
        perm=join("perm", edges),
        offsets=join("offsets", nodes, 1),
    )


def _integers(values: ArrayLike, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        msg = f"{name} must be a one-dimensional array of integers, got {array.dtype} of shape {array.shape}"
        raise ValueError(msg)
    return array.astype(np.int64)
