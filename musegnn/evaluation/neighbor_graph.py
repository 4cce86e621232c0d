"""The weighted neighbour graph that the published metrics are computed on, and its clusters.

Legend: n vectors, d dimensions, k neighbours.
"""

from __future__ import annotations

import heapq
import random
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy.sparse import csr_matrix

from musegnn.errors import MissingDependencyError
from musegnn.random import stream
from musegnn.vectors import in_threads, nearest_euclidean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

N_NEIGHBORS = 15
BISECTIONS = 64
PATH_ROWS = 500


def connectivities(x: NDArray[np.floating], *, n_neighbors: int = N_NEIGHBORS) -> csr_matrix:
    """Compute the fuzzy neighbour graph of UMAP: symmetric weights in (0, 1], shape (n, n), without diagonal.

    With r_i the distance to the nearest neighbour that is not at distance 0 and s_i such that the weights of row i sum
    to ``log2(n_neighbors)``: ``w_ij = exp(-max(0, d_ij - r_i) / s_i)``, made symmetric as ``w + w' - w w'``. A vector
    counts among its own `n_neighbors`, as scanpy counts; fewer vectors than that raise ``ValueError``.

    References
    ----------
    McInnes, Healy, Melville, "UMAP", arXiv:1802.03426, section 3.1; scanpy ``pp.neighbors(n_neighbors=15)``.
    """
    distance, position = nearest_euclidean(x, n_neighbors - 1)
    n = len(distance)
    positive = np.where(distance > 0, distance, np.inf).min(axis=1)
    nearest_distance = np.where(np.isfinite(positive), positive, 0.0)
    excess = np.maximum(distance - nearest_distance[:, None], 0.0)
    scale = _scales(excess, np.log2(n_neighbors))
    mean_distance = distance.mean(axis=1) * (n_neighbors - 1) / n_neighbors  # the vector itself, at 0, counts
    floor = 1e-3 * np.where(nearest_distance > 0, mean_distance, mean_distance.mean())
    scale = np.maximum(scale, floor)
    exponent = np.divide(excess, scale[:, None], out=np.zeros_like(excess), where=excess > 0)
    weight = np.maximum(np.exp(-exponent), np.finfo(np.float64).tiny)
    directed = csr_matrix((weight.ravel(), (np.repeat(np.arange(n), n_neighbors - 1), position.ravel())), shape=(n, n))
    transposed = directed.T.tocsr()
    result = (directed + transposed - directed.multiply(transposed)).tocsr()
    result.sort_indices()
    return result


def _scales(excess: Floats, target: float) -> Floats:
    """Find s with ``sum_j exp(-excess_ij / s_i) = target`` for every row, by bisection."""
    low = np.zeros(len(excess))
    high = np.full(len(excess), np.inf)
    scale = np.ones(len(excess))
    for _ in range(BISECTIONS):
        total = np.exp(-excess / scale[:, None]).sum(axis=1)
        above = total > target
        high = np.where(above, scale, high)
        low = np.where(above, low, scale)
        scale = np.where(np.isinf(high), scale * 2, (low + high) / 2)
    return scale


def path_nearest(graph: csr_matrix, k: int) -> tuple[Floats, Ints]:
    """Find the k nearest other nodes of each node of a symmetric graph, with edge weights as lengths.

    Returns
    -------
    tuple of arrays
        Path lengths and positions, nearest first, equal lengths by position, each shape (n, k). Where fewer than k
        nodes can be reached, length inf and position -1.
    """
    n = graph.shape[0]
    distances = np.full((n, k), np.inf)
    positions = np.full((n, k), -1, dtype=np.int64)
    arrays = graph.indptr, graph.indices, graph.data, distances, positions
    in_threads(lambda start: _path_nearest(start, *arrays), range(0, n, PATH_ROWS))
    return distances, positions


@njit(nogil=True, cache=True)
def _path_nearest(
    start: int,
    indptr: NDArray[np.integer],
    indices: NDArray[np.integer],
    weight: Floats,
    distances: Floats,
    positions: Ints,
) -> None:
    n, k = distances.shape
    for source in range(start, min(start + PATH_ROWS, n)):
        # Dijkstra's algorithm, stopped when k nodes are settled
        own = np.int64(source)
        best = {own: 0.0}
        heap = [(0.0, own)]
        found = -1
        while len(heap) > 0 and found < k:
            length, node = heapq.heappop(heap)
            if length > best[node]:
                continue
            if found >= 0:
                distances[source, found] = length
                positions[source, found] = node
            found += 1
            for entry in range(indptr[node], indptr[node + 1]):
                other = np.int64(indices[entry])
                through = length + weight[entry]
                if other not in best or through < best[other]:
                    best[other] = through
                    heapq.heappush(heap, (through, other))


def has_leiden() -> bool:
    """Return whether igraph, which computes Leiden clusters, is installed."""
    return find_spec("igraph") is not None


def leiden(graph: csr_matrix, *, resolution: float = 1.0, seed: int = 0) -> Ints:
    """Return the Leiden cluster (modularity) of each node of a weighted graph, (n,) int64; equal input, equal labels.

    Raises
    ------
    MissingDependencyError
        When igraph is not installed.

    References
    ----------
    Traag, Waltman, van Eck, "From Louvain to Leiden", Scientific Reports 9, 5233 (2019).
    """
    if not has_leiden():
        msg = "Leiden clusters need the package igraph, which is not installed"
        raise MissingDependencyError(msg, code="E430", fix="pip install 'musegnn[bio]'")
    word = int(stream(seed, "leiden").integers(0, 2**63 - 1))
    return communities(graph, resolution, random.Random(word), n_iterations=-1)


def communities(graph: csr_matrix, resolution: float, generator: random.Random, *, n_iterations: int) -> Ints:
    """Run igraph's Leiden with a random number generator; a negative number of iterations means until nothing moves."""
    import igraph

    upper = graph.tocoo()
    keep = upper.row < upper.col
    edges = np.stack([upper.row[keep], upper.col[keep]], axis=1)
    nodes = igraph.Graph(n=graph.shape[0], edges=edges.tolist())
    igraph.set_random_number_generator(generator)
    try:
        parts = nodes.community_leiden(
            objective_function="modularity",
            weights=upper.data[keep].tolist(),
            resolution=resolution,
            n_iterations=n_iterations,
        )
    finally:
        igraph.set_random_number_generator(random)
    return np.asarray(parts.membership, dtype=np.int64)
