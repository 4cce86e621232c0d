"""Random graphs made on the device, of the structures that co-expression and its hard cases have."""

from __future__ import annotations

import torch

from musegnn.kernels.edge_attention import EdgeGraph

STRUCTURES = ("uniform", "modular", "power-law", "hub", "empty-rows")


def make_graph(structure: str, n_nodes: int, density: float, device: torch.device | str, *, seed: int = 0) -> EdgeGraph:
    """Draw a directed graph with about ``density * n_nodes**2`` edges.

    Parameters
    ----------
    structure
        ``uniform``; ``modular``: 20 blocks hold most edges; ``power-law``: degrees fall as a power of the rank, rows
        and columns alike; ``hub``: one full row and one full column besides; ``empty-rows``: every other row.
    n_nodes, density
        Number of nodes and share of the pairs that are edges.
    device
        Device of the graph.
    seed
        Seed of the draw.
    """
    generator = torch.Generator(device).manual_seed(seed)
    mask = torch.empty((n_nodes, n_nodes), dtype=torch.bool, device=device)
    step = max(1, (1 << 26) // max(1, n_nodes))
    nodes = torch.arange(n_nodes, device=device)
    for first in range(0, n_nodes, step):
        rows = nodes[first : first + step]
        draw = torch.rand((rows.numel(), n_nodes), generator=generator, device=device)
        mask[first : first + step] = draw < _chance(structure, rows, nodes, density)
    if structure == "hub":
        mask[n_nodes // 2] = mask[:, n_nodes // 3] = True
    return graph_of(mask)


def graph_of(mask: torch.Tensor) -> EdgeGraph:
    """Take the edges of an (N, N) boolean matrix."""
    n_nodes = mask.shape[0]
    place = (mask.flatten().cumsum(0, dtype=torch.int32) - 1).view(n_nodes, n_nodes)
    zero = torch.zeros(1, dtype=torch.int64, device=mask.device)
    row_ends, column_ends = mask.sum(1).cumsum(0), mask.sum(0).cumsum(0)
    col = mask.nonzero()[:, 1].contiguous()
    perm = place.T[mask.T].long()
    row = mask.T.nonzero()[:, 1].contiguous()
    offsets = torch.tensor([0, n_nodes], device=mask.device)
    return EdgeGraph(torch.cat([zero, row_ends]), col, torch.cat([zero, column_ends]), row, perm, offsets)


def _chance(structure: str, rows: torch.Tensor, nodes: torch.Tensor, density: float) -> torch.Tensor:
    n_nodes = nodes.numel()
    if structure == "modular":
        n_blocks = min(20, n_nodes)
        same = (rows[:, None] * n_blocks // n_nodes) == (nodes[None, :] * n_blocks // n_nodes)
        inside = min(1.0, 0.8 * density * n_blocks)
        outside = max(0.0, density - inside / n_blocks) / (1 - 1 / n_blocks)
        return torch.where(same, inside, outside)
    if structure == "power-law":
        weight = (nodes + 1.0) ** -0.5
        weight = weight / weight.mean()
        return (density * weight[rows][:, None] * weight[None, :]).clamp(max=1.0)
    if structure == "empty-rows":
        return torch.where(rows % 2 == 0, 2 * density, 0.0)[:, None]
    return torch.full((), density, device=nodes.device)
