"""All trained baselines by name, on one training graph and placed in one space.

Each is tuned over a stated budget, its dimensions (one for autoencoders, which take longest); all else is as its
authors or its library set it. Baselines of single datasets are rotated into one space by generalised Procrustes on
the genes that training may see, which their authors do not do: without it they could not be compared across
datasets.

Legend: N genes of a dataset, d dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from threadpoolctl import threadpool_limits

from musegnn.evaluation.baselines.alignment import consensus_alignment, pca_vectors
from musegnn.evaluation.baselines.autoencoders import Kind, autoencode
from musegnn.evaluation.baselines.candidates import PCA_DIMS
from musegnn.evaluation.baselines.pooled import diffused_graphs, pooled_profiles
from musegnn.evaluation.baselines.skipgram import gene2vec, hierarchical_node2vec, layered_node2vec, node2vec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from musegnn.graph import GraphData

    Train = Callable[[GraphData, int], NDArray[np.float64]]
    Vectors = dict[str, NDArray[np.float64]]
    Profiles = Mapping[str, NDArray[np.floating]]

DIMS = (32, 64)
AUTOENCODER_DIMS = (32,)


def trained_baselines(graphs: Sequence[GraphData], profiles: Profiles, *, seed: int) -> dict[str, Vectors]:
    """Train the baselines that have a vector per gene and dataset.

    Returns
    -------
    dict
        Vectors by dataset name, shape (N, d), in one space, by ``NAME_DIM``: ``pca_procrustes``, ``gene2vec``,
        ``node2vec``, ``gae``, ``vgae``, ``mae`` (aligned), ``layered_node2vec`` and
        ``hierarchical_node2vec`` (in one space by themselves).
    """

    def autoencoder(kind: Kind) -> Train:
        return lambda graph, dim: autoencode(kind, graph, profiles[graph.name], dim=dim, seed=seed)

    alone: dict[str, tuple[Sequence[int], Train]] = {
        "pca_procrustes": (PCA_DIMS, lambda graph, dim: pca_vectors(profiles[graph.name], dim)),
        "gene2vec": (DIMS, lambda graph, dim: gene2vec(graph, dim=dim, seed=seed)),
        "node2vec": (DIMS, lambda graph, dim: node2vec(graph, dim=dim, seed=seed)),
        **{kind: (AUTOENCODER_DIMS, autoencoder(kind)) for kind in get_args(Kind)},
    }
    found: dict[str, Vectors] = {}
    with threadpool_limits(1, "blas"):
        for name, (dims, train) in alone.items():
            for dim in dims:
                vectors = {graph.name: train(graph, dim) for graph in graphs}
                found[f"{name}_{dim}"] = consensus_alignment(graphs, vectors)
        for dim in DIMS:
            found[f"layered_node2vec_{dim}"] = layered_node2vec(graphs, dim=dim, seed=seed)
            found[f"hierarchical_node2vec_{dim}"] = hierarchical_node2vec(graphs, dim=dim, seed=seed)
    return found


def pooled_baselines(graphs: Sequence[GraphData], profiles: Profiles) -> dict[str, Vectors]:
    """Return the baselines that have one vector per gene, ``gss_DIM`` and ``gemini_DIM``; see :mod:`.pooled`."""
    with threadpool_limits(1, "blas"):
        return {
            **{f"gss_{dim}": pooled_profiles(graphs, profiles, dim=dim) for dim in DIMS},
            **{f"gemini_{dim}": diffused_graphs(graphs, dim=dim) for dim in DIMS},
        }
