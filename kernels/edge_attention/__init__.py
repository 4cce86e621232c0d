"""Multi-head attention over the edges of a graph, with edge attributes."""

from musegnn.kernels.edge_attention.api import EdgeAttentionOutput, available, edge_attention
from musegnn.kernels.edge_attention.graph import EdgeGraph, batch_graphs, edge_graph, edge_graph_from_pairs
from musegnn.kernels.edge_attention.weights import attention_weights

__all__ = [
    "EdgeAttentionOutput",
    "EdgeGraph",
    "attention_weights",
    "available",
    "batch_graphs",
    "edge_attention",
    "edge_graph",
    "edge_graph_from_pairs",
]
