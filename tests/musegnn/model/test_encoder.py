"""The encoder against its equation, initial weights, and sharing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from musegnn.kernels.edge_attention import edge_graph
from musegnn.model.encoder import SharedLayers
from musegnn.model.shared import SharedModules, sharing_key


class Labels:
    def __init__(self, **labels):
        self.labels = labels

    def label(self, attribute):
        return self.labels[attribute]


GRAPHS = [
    Labels(modality="scrna", tissue="lung", species="human"),
    Labels(modality="scatac", tissue="lung", species="human"),
    Labels(modality="scrna", tissue="brain", species="mouse"),
]


@pytest.fixture
def graph():
    dense = np.triu(np.random.default_rng(0).random((9, 9)) < 0.5, 1)
    rows, columns = np.nonzero(dense | dense.T)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=9))])
    return edge_graph(indptr, columns), torch.rand(len(columns), 2, dtype=torch.float64)


def test_shared_layers_follow_their_equation(graph):
    edges, attributes = graph
    layers = SharedLayers(12, 4, 2, head_dim=4, edge_dim=2).double()
    layers.reset_parameters(torch.Generator().manual_seed(0))
    h = torch.randn(9, 12, dtype=torch.float64)
    first = functional.mish(layers.norm(layers.first(h, edges, attributes)))
    expected = layers.second(first, edges, attributes) + layers.residual(h, edges, attributes)
    torch.testing.assert_close(layers(h, edges, attributes), expected)
    assert layers(h, edges, attributes).shape == (9, 4)


def test_relabelling_genes_relabels_vectors(graph):
    edges, attributes = graph
    layers = SharedLayers(5, 4, 2, head_dim=2, edge_dim=2).double()
    layers.reset_parameters(torch.Generator().manual_seed(0))
    h = torch.randn(9, 5, dtype=torch.float64)
    order = torch.from_numpy(np.random.default_rng(2).permutation(9))
    place = torch.argsort(order)
    target, source = place[edges.target], place[edges.col]
    by = np.lexsort((source.numpy(), target.numpy()))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(target.numpy(), minlength=9))])
    permuted = edge_graph(indptr, source.numpy()[by])
    torch.testing.assert_close(layers(h, edges, attributes)[order], layers(h[order], permuted, attributes[by]))


def test_gated_layers_start_as_nothing_and_can_learn(graph):
    edges, attributes = graph
    layers = SharedLayers(5, 4, 2, head_dim=2, edge_dim=2, gated=True).double()
    layers.reset_parameters(torch.Generator().manual_seed(0))
    h = torch.randn(9, 5, dtype=torch.float64)
    correction = layers(h, edges, attributes)
    assert not correction.any()
    (gradient,) = torch.autograd.grad(correction.sum(), [layers.gate])
    assert gradient.abs() > 0


@pytest.mark.parametrize(
    ("share_by", "keys"),
    [
        (("modality",), ["scrna", "scatac", "scrna"]),
        (("modality", "tissue"), ["scrna|lung", "scatac|lung", "scrna|brain"]),
        ((), ["all", "all", "all"]),
    ],
)
def test_datasets_that_agree_share(share_by, keys):
    assert [sharing_key(g, share_by) for g in GRAPHS] == keys
    shared = SharedModules()
    made = []
    shared.add("layers", GRAPHS, share_by, lambda unit: made.append(unit) or torch.nn.Linear(1, 1), owned=[0, 2])
    owned_keys = list(dict.fromkeys(keys[i] for i in (0, 2)))
    assert made == [f"shared/layers/{key}" for key in owned_keys] == list(shared.by_unit)
    assert shared.members == {f"shared/layers/{k}": [i for i in range(3) if keys[i] == k] for k in dict.fromkeys(keys)}
    assert (shared.get("layers", 0) is shared.get("layers", 2)) == (keys[0] == keys[2])
    assert shared.get("projection", 0) is None
    assert shared.units(1) == [f"shared/layers/{keys[1]}"]
