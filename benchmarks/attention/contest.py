"""One graph transformer layer, forward and backward, by ours and by others with the same parameters."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch_geometric.nn import TransformerConv

from benchmarks.attention.graphs import make_graph
from benchmarks.peers import materialised_edges
from musegnn.model.conv import EdgeFeaturedTransformerConv

if TYPE_CHECKING:
    from collections.abc import Callable


PYG, COMPILED, MATERIALISED = "PyG eager", "PyG compiled", "one edge per step"


def runs_kernels(device: torch.device) -> bool:
    """Return whether Triton's kernels run there: compiled on a GPU, or in the interpreter."""
    return device.type == "cuda" or os.environ.get("TRITON_INTERPRET", "0") == "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Size of a layer and of the graph it works on."""

    n_nodes: int
    density: float
    heads: int = 4
    dim: int = 32
    n_attributes: int = 2
    dtype: torch.dtype = torch.bfloat16
    structure: str = "uniform"

    @property
    def name(self) -> str:
        """Name it for a row."""
        kind = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[self.dtype]
        sizes = f"H={self.heads} D={self.dim} F={self.n_attributes}"
        return f"{self.n_nodes} d={self.density:g} {sizes} {kind} {self.structure}"

    @property
    def precision(self) -> str:
        """Name of the precision."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def n_numbers(self) -> int:
        """Numbers in one tensor of size edges x heads x dimension."""
        return int(self.n_nodes**2 * self.density) * self.heads * self.dim


class Contest:
    """Contestants on one graph with one set of parameters.

    Parameters
    ----------
    layer
        Sizes of the layer and its graph.
    device
        Device of all tensors.
    impl
        Implementation of the kernels of this project.
    """

    def __init__(self, layer: Layer, device: torch.device, impl: Any) -> None:  # Any: one of the api's names
        self.layer, self.device, self.impl = layer, device, impl
        torch.manual_seed(0)
        width = layer.heads * layer.dim
        self.graph = make_graph(layer.structure, layer.n_nodes, layer.density, device)
        options = {"device": device, "dtype": layer.dtype}
        self.x = torch.randn(layer.n_nodes, width, **options).requires_grad_()
        self.edge_attr = torch.randn(self.graph.n_edges, layer.n_attributes, **options)
        self.ours = EdgeFeaturedTransformerConv(width, layer.dim, layer.heads, edge_dim=layer.n_attributes)
        self.ours = self.ours.to(**options)
        self.theirs = TransformerConv(width, layer.dim, layer.heads, edge_dim=layer.n_attributes).to(**options)
        self.theirs.load_state_dict(self.ours.state_dict())
        self.grad = torch.randn(layer.n_nodes, width, **options)

    def jobs(self, baselines: list[str]) -> dict[str, Callable[[], torch.Tensor]]:
        """Return forward and backward of ours and of the baselines, as functions that return the output."""
        graph, edge_attr = self.graph, self.edge_attr
        forwards: dict[str, Callable[[], torch.Tensor]] = {
            "ours": lambda: self.ours(self.x, graph, edge_attr, impl=self.impl)
        }
        if PYG in baselines or COMPILED in baselines:
            edge_index = torch.stack([graph.col, graph.target])
            if PYG in baselines:
                forwards[PYG] = lambda: self.theirs(self.x, edge_index, edge_attr)
            if COMPILED in baselines:
                compiled = torch.compile(self.theirs)
                forwards[COMPILED] = lambda: compiled(self.x, edge_index, edge_attr)
        if MATERIALISED in baselines:
            forwards[MATERIALISED] = lambda: materialised_edges.convolve(self.ours, self.x, graph, edge_attr)
        return {name: lambda forward=forward: self._both(forward) for name, forward in forwards.items()}

    def bytes_of(self, baseline: str) -> int:
        """Estimate the memory of a baseline: PyG holds about 7 tensors per edge, head and dimension, the other 2."""
        return self.layer.n_numbers * self.edge_attr.element_size() * (2 if baseline == MATERIALISED else 8)

    def _both(self, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        self.x.grad = None
        out = forward()
        out.backward(self.grad)
        return out
