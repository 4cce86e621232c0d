"""The published training loop, restated from its description with PyG's layers and pytorch-metric-learning's NT-Xent.

One step per dataset in listed order, each with one random partner: both are encoded, the decoder maps the dense
(N, N) matrix of products through three N x N layers, the target is a dense matrix too, and the contrast hands 2K
embeddings to a general NT-Xent. Two Adam optimisers, one for all encoders, one for all decoders. Weights of shared
genes are vectors made before the first epoch, where the published program looks them up gene by gene.

Legend: N genes of a dataset, M cells, K genes drawn.

References
----------
Liu et al., "MuSe-GNN: Learning Unified Gene Representation From Multimodal Biological Graph Data", NeurIPS 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss
from torch import nn
from torch.nn import functional
from torch_geometric.nn import GraphNorm, TransformerConv

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from musegnn.graph import GraphData
    from musegnn.training.overlap import Overlaps

    Drawing = Callable[[int, int, int], "Drawn"]

DIM, N_CONTRAST, TEMPERATURE, CONTRAST_WEIGHT = 32, 100, 0.07, 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Rows of the contrast: genes of each dataset that the other lacks, and a neighbour of each."""

    anchors_i: NDArray[np.int64]
    positives_i: NDArray[np.int64]
    anchors_j: NDArray[np.int64]
    positives_j: NDArray[np.int64]


class DatasetLayer(nn.Module):
    """One dataset's own convolution, and its decoder."""

    def __init__(self, n_cells: int, n_genes: int) -> None:
        super().__init__()
        self.conv = TransformerConv(n_cells, DIM, heads=4)
        self.norm = GraphNorm(4 * DIM)
        self.decoder = nn.Sequential(
            nn.Linear(n_genes, n_genes), nn.Mish(), nn.Linear(n_genes, n_genes), nn.Mish(), nn.Linear(n_genes, n_genes)
        )


class SharedLayers(nn.Module):
    """The convolutions that datasets of one kind share."""

    def __init__(self) -> None:
        super().__init__()
        self.first = TransformerConv(4 * DIM, DIM, heads=2)
        self.norm = GraphNorm(2 * DIM)
        self.second = TransformerConv(2 * DIM, DIM, heads=1)
        self.residual = TransformerConv(4 * DIM, DIM, heads=1)


class PublishedLoop:
    """Model, data and optimisers.

    Parameters
    ----------
    graphs
        The datasets.
    profiles
        Node features of each, (N, M), float32.
    overlaps
        Weights of shared genes.
    lr_encoder, lr_decoder
        Adam's learning rates.
    seed
        Of weights and draws.

    Attributes
    ----------
    layers, shared
        Modules by dataset and by modality.
    """

    def __init__(
        self,
        graphs: Sequence[GraphData],
        profiles: Sequence[NDArray[np.float32]],
        overlaps: Overlaps,
        *,
        lr_encoder: float = 1e-4,
        lr_decoder: float = 1e-3,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self._random = np.random.default_rng(seed)
        self._graphs, self._overlaps = graphs, overlaps
        self._x = [torch.from_numpy(profile) for profile in profiles]
        self._edge_index = [
            torch.from_numpy(np.stack([g.edges.indices.astype(np.int64), g.edges.rows])) for g in graphs
        ]
        self._target = [self._dense(i) for i in range(len(graphs))]
        self._neighbour = [self._fixed_neighbours(graph) for graph in graphs]
        self._shared_genes = {
            (i, j): self._weights(i, j) for i in range(len(graphs)) for j in range(len(graphs)) if i != j
        }
        self.layers = [DatasetLayer(x.shape[1], x.shape[0]) for x in self._x]
        self.shared = {graph.modality: SharedLayers() for graph in graphs}
        encoders = [p for layer in self.layers for part in (layer.conv, layer.norm) for p in part.parameters()]
        encoders += [p for module in self.shared.values() for p in module.parameters()]
        self._encoder_optimizer = torch.optim.Adam(encoders, lr=lr_encoder)
        self._decoder_optimizer = torch.optim.Adam(
            [p for layer in self.layers for p in layer.decoder.parameters()], lr=lr_decoder
        )
        self._contrast = SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))

    def epoch(self, partner: Sequence[int] | None = None, draw: Drawing | None = None) -> list[tuple[float, ...]]:
        """Step once per dataset.

        Parameters
        ----------
        partner
            Partner of each dataset; ``None``: drawn.
        draw
            Gives the contrast's genes of a dataset and its partner, ``draw(i, j)``; ``None``: drawn as published.

        Returns
        -------
        list of tuple
            Reconstruction, similarity and contrast of each dataset.
        """
        losses = []
        n = len(self._graphs)
        for i in range(n):
            j = int(self._random.choice([k for k in range(n) if k != i])) if partner is None else int(partner[i])
            drawn = self._draw(i, j) if draw is None else draw(i, j)
            losses.append(self._step(i, j, drawn))
        return losses

    def encode(self, i: int) -> torch.Tensor:
        """Return the vectors of all genes of a dataset, (N, d)."""
        layer, shared, edges = self.layers[i], self.shared[self._graphs[i].modality], self._edge_index[i]
        h = functional.mish(layer.norm(layer.conv(self._x[i], edges)))
        first = functional.mish(shared.norm(shared.first(h, edges)))
        vectors: torch.Tensor = shared.second(first, edges) + shared.residual(h, edges)
        return vectors

    def _step(self, i: int, j: int, drawn: Drawn) -> tuple[float, ...]:
        self._encoder_optimizer.zero_grad(set_to_none=True)
        self._decoder_optimizer.zero_grad(set_to_none=True)
        z_i, z_j = self.encode(i), self.encode(j)
        logits = self.layers[i].decoder(z_i @ z_i.T)
        parts = [functional.binary_cross_entropy_with_logits(logits, self._target[i])]
        rows_i, rows_j, weight = self._shared_genes[i, j]
        if len(rows_i):
            parts.append(-(weight * functional.cosine_similarity(z_i[rows_i], z_j[rows_j])).mean())
            anchors = torch.cat([z_i[drawn.anchors_i], z_j[drawn.anchors_j]])
            positives = torch.cat([z_i[drawn.positives_i], z_j[drawn.positives_j]])
            parts.append(self._contrast(anchors, positives))
        loss = sum(weight * part for weight, part in zip((1.0, 1.0, CONTRAST_WEIGHT), parts, strict=False))
        loss.backward()
        self._encoder_optimizer.step()
        self._decoder_optimizer.step()
        return tuple(part.item() for part in parts)

    def _draw(self, i: int, j: int) -> Drawn:
        only_i = np.flatnonzero(~np.isin(self._graphs[i].keys, self._graphs[j].keys))
        only_j = np.flatnonzero(~np.isin(self._graphs[j].keys, self._graphs[i].keys))
        position = self._random.choice(len(only_i), min(N_CONTRAST, len(only_i)))
        anchors_i, anchors_j = only_i[position], only_j[position]
        return Drawn(
            anchors_i=anchors_i,
            positives_i=self._neighbour[i][anchors_i],
            anchors_j=anchors_j,
            positives_j=self._neighbour[j][anchors_j],
        )

    def _dense(self, i: int) -> torch.Tensor:
        n = self._graphs[i].n_genes
        target = torch.zeros((n, n))
        target[self._edge_index[i][1], self._edge_index[i][0]] = 1.0
        return target

    def _fixed_neighbours(self, graph: GraphData) -> NDArray[np.int64]:
        """Draw one neighbour of every gene, itself where it has none."""
        start, degree = graph.edges.indptr[:-1], np.diff(graph.edges.indptr)
        drawn = start + self._random.integers(0, np.maximum(degree, 1))
        ends = np.append(graph.edges.indices.astype(np.int64), 0)
        return np.where(degree > 0, ends[np.minimum(drawn, len(ends) - 1)], np.arange(graph.n_genes))

    def _weights(self, i: int, j: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pair = self._overlaps.pair(i, j)
        return torch.from_numpy(pair.rows_i), torch.from_numpy(pair.rows_j), torch.from_numpy(pair.weight).float()
