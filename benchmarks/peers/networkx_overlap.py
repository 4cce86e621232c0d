"""Neighbourhood overlaps with networkx and Python sets, as the published code computes them (restated).

The published code keeps every graph in networkx under gene names, takes the genes that two graphs share, and of each
the sets of its neighbours. It does so for both orders of a pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx

if TYPE_CHECKING:
    from musegnn.graph import GraphData

EPSILON = 1e-8


def networkx_graph(data: GraphData) -> nx.Graph:
    """Make the graph under gene names; signs are not kept."""
    graph = nx.Graph()
    names = data.keys.tolist()
    graph.add_nodes_from(names)
    rows = data.edges.rows.tolist()
    graph.add_edges_from((names[a], names[b]) for a, b in zip(rows, data.edges.indices.tolist(), strict=True))
    return graph


def overlaps(one: nx.Graph, other: nx.Graph, *, epsilon: float = EPSILON) -> dict[str, float]:
    """Return the weight of each shared gene.

    Parameters
    ----------
    one, other
        Two graphs.
    epsilon
        Added to the size of the union, as published.
    """
    weights = {}
    for gene in sorted(set(one.nodes()) & set(other.nodes())):
        mine, theirs = set(one.neighbors(gene)), set(other.neighbors(gene))
        weights[gene] = len(mine & theirs) / (len(mine | theirs) + epsilon)
    return weights
