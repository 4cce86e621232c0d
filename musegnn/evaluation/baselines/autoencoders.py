"""Graph autoencoders of single datasets, with the layers and losses of PyTorch Geometric.

*GAE* and *VGAE* (Kipf and Welling, 2016) reconstruct the positive edges by the inner product of vectors; *MAE*
hides the features of a quarter of the genes and reconstructs them from their neighbours (as in Hou et al.,
GraphMAE, KDD 2022). All take the residual profile as node features, through two graph convolutions.

Legend: N genes, R profile columns, d dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from musegnn.evaluation.baselines.graphs import positive_graph
from musegnn.random import torch_generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.graph import GraphData

Kind = Literal["gae", "vgae", "mae"]
EPOCHS, RATE, MASKED = 100, 1e-2, 0.25


def autoencode(
    kind: Kind, graph: GraphData, profile: NDArray[np.floating], *, dim: int, seed: int
) -> NDArray[np.float64]:
    """Train an autoencoder on one dataset with a profile (N, R) and return its vectors, (N, d) float64.

    Vectors of ``vgae`` are the means of the posterior. The seed decides weights, masks and negative samples.
    """
    from torch_geometric.nn import GAE, VGAE

    edges = positive_graph(graph)
    edge_index = torch.from_numpy(np.stack([edges.indices, edges.rows]))
    is_edge = torch.eye(graph.n_genes, dtype=torch.bool)
    is_edge[edge_index[0], edge_index[1]] = True
    x = torch.from_numpy(np.asarray(profile - profile.mean(axis=0), dtype=np.float32))
    x = functional.normalize(x, dim=1) * x.shape[1] ** 0.5
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch_generator(seed, kind, graph.name).initial_seed() % 2**31))
        encoder = _Encoder(x.shape[1], dim, variational=kind == "vgae")
        model: Any = VGAE(encoder) if kind == "vgae" else GAE(encoder)  # whose methods PyG leaves untyped
        back = nn.Linear(dim, x.shape[1])
        token = nn.Parameter(torch.zeros(x.shape[1]))
        optimizer = torch.optim.Adam([*model.parameters(), *back.parameters(), token], lr=RATE)
        for _ in range(EPOCHS):
            optimizer.zero_grad()
            if kind == "mae":
                hidden = torch.rand(len(x)) < MASKED
                z = model.encode(torch.where(hidden[:, None], token, x), edge_index)
                loss: Any = functional.mse_loss(back(z[hidden]), x[hidden])  # as `model`
            else:
                z = model.encode(x, edge_index)
                loss = model.recon_loss(z, edge_index, _non_edges(is_edge, edge_index.shape[1]))
                if kind == "vgae":
                    loss = loss + model.kl_loss() / len(x)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            result: NDArray[np.float64] = model.encode(x, edge_index).double().numpy()
    return result


def _non_edges(is_edge: torch.Tensor, n: int) -> torch.Tensor:
    """Draw `n` pairs of genes and keep those that are no edges, (2, at most n)."""
    ends = torch.randint(len(is_edge), (2, n))
    return ends[:, ~is_edge[ends[0], ends[1]]]


class _Encoder(nn.Module):
    """Two graph convolutions; with two heads, mean and log standard deviation, for the variational one."""

    def __init__(self, width: int, dim: int, *, variational: bool) -> None:
        from torch_geometric.nn import GCNConv

        super().__init__()
        self.first = GCNConv(width, 2 * dim)
        self.heads = nn.ModuleList(GCNConv(2 * dim, dim) for _ in range(1 + variational))

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        h = functional.relu(self.first(x, edge_index))
        found = [head(h, edge_index) for head in self.heads]
        return found[0] if len(found) == 1 else (found[0], found[1])
