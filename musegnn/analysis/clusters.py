"""Clusters of genes: Leiden where igraph is installed, else k-means.

Legend: P points, k neighbours.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from musegnn.errors import MissingDependencyError
from musegnn.evaluation.neighbor_graph import communities, has_leiden
from musegnn.vectors import Neighbors, nearest, unit_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

logger = logging.getLogger(__name__)

N_NEIGHBORS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """Partition of the points.

    Attributes
    ----------
    label
        Cluster of each point; 0 is the largest, shape (P,), int32.
    method
        Description of the method for people.
    """

    label: NDArray[np.int32]
    method: str

    @property
    def n(self) -> int:
        """Number of clusters."""
        return int(self.label.max(initial=-1)) + 1


def cluster(
    vectors: ArrayLike,
    *,
    method: Literal["auto", "leiden", "kmeans"] = "auto",
    neighbors: Neighbors | None = None,
    resolution: float = 1.0,
    n_clusters: int | None = None,
    seed: int = 0,
) -> Clusters:
    """Group points by the direction of their vectors, numbered by falling size, then by first member.

    Parameters
    ----------
    method
        ``leiden``: modularity of the graph of cosine neighbours; ``kmeans``: on unit vectors; ``auto``: Leiden
        where igraph is installed, else k-means, with a warning.
    neighbors
        Neighbours already known, for Leiden; by default the nearest 15.
    resolution
        Resolution of Leiden; larger gives more clusters.
    n_clusters
        Number of clusters of k-means; ``sqrt(P) / 4`` between 2 and 40 by default.

    Raises
    ------
    MissingDependencyError
        When Leiden is asked for by name and igraph is not installed.

    References
    ----------
    Traag, Waltman, van Eck: From Louvain to Leiden. Sci Rep 9, 5233 (2019).
    """
    unit = unit_rows(vectors, dtype=np.float32)
    has_igraph = has_leiden()
    if method == "leiden" and not has_igraph:
        msg = "Leiden clusters need the package igraph"
        raise MissingDependencyError(msg, code="E430", fix="pip install 'musegnn[bio]'")
    if method == "auto" and not has_igraph:
        logger.warning("igraph is not installed: clusters are by k-means; pip install 'musegnn[bio]' for Leiden")
    if len(unit) < 3:
        return Clusters(label=np.zeros(len(unit), np.int32), method="one cluster (fewer than three points)")
    if method == "kmeans" or not has_igraph:
        return _kmeans(unit, n_clusters, seed)
    return _leiden(unit, neighbors, resolution, seed)


def _leiden(unit: NDArray[np.float32], neighbors: Neighbors | None, resolution: float, seed: int) -> Clusters:
    found = neighbors if neighbors is not None else nearest(unit, min(N_NEIGHBORS, len(unit) - 1))
    points, k = found.index.shape
    real = found.index.ravel() >= 0
    rows = np.repeat(np.arange(points), k)[real]
    weight = np.maximum(found.score.ravel()[real].astype(np.float64), 1e-6)
    half = csr_matrix((weight, (rows, found.index.ravel()[real])), shape=(points, points))
    graph = half.maximum(half.T).tocsr()
    graph.sort_indices()
    label = _by_size(communities(graph, resolution, random.Random(seed), n_iterations=10))
    return Clusters(label=label, method=f"Leiden on {k} cosine neighbours, resolution {resolution:g}")


def _kmeans(unit: NDArray[np.float32], n_clusters: int | None, seed: int) -> Clusters:
    wanted = n_clusters if n_clusters is not None else int(np.clip(np.sqrt(len(unit)) / 4.0, 2, 40))
    distinct = len(np.unique(unit, axis=0))
    n = max(1, min(wanted, distinct))
    with threadpool_limits(1):  # the order of its sums follows the number of threads
        label = KMeans(n, n_init=4, random_state=seed).fit_predict(unit.astype(np.float64))
    return Clusters(label=_by_size(label.astype(np.int64)), method=f"k-means on unit vectors, k = {n}")


def _by_size(label: NDArray[np.int64]) -> NDArray[np.int32]:
    values, first, inverse, count = np.unique(label, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(values), dtype=np.int32)
    rank[np.lexsort((first, -count))] = np.arange(len(values), dtype=np.int32)
    numbered: NDArray[np.int32] = rank[inverse]
    return numbered
