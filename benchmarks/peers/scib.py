"""Values of scib-metrics for a small case, which the tests hold ours against.

``python -m benchmarks.peers.scib > tests/musegnn/evaluation/scib_metrics.json`` in an environment with scib-metrics,
which brings jax and is therefore no dependency of the tests.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

N, DIM, CLUSTERS, DATASETS, NEIGHBORS = 400, 6, 4, 3, 30


def case() -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Draw vectors, datasets that lie half apart, and clusters."""
    random = np.random.default_rng(11)
    cluster = random.integers(0, CLUSTERS, N)
    dataset = random.integers(0, DATASETS, N)
    x = random.normal(size=(N, DIM)) + 4 * np.eye(CLUSTERS, DIM)[cluster]
    x[:, -1] += 1.5 * dataset
    x[:20, :CLUSTERS] = np.roll(x[:20, :CLUSTERS], 1, axis=1)  # rows that lie among those of another cluster
    return x, dataset, cluster


def neighbors(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Find the nearest rows and their distances, each row itself first, (N, NEIGHBORS + 1)."""
    distance = np.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=2))
    order = np.argsort(distance, axis=1)[:, : NEIGHBORS + 1]
    return np.take_along_axis(distance, order, axis=1), order


def main() -> None:
    """Print the values as JSON."""
    import scib_metrics
    from scib_metrics.nearest_neighbors import NeighborsResults

    x, dataset, cluster = case()
    distance, order = neighbors(x)
    found = NeighborsResults(indices=order, distances=distance)
    values = {
        "scib-metrics": version("scib-metrics"),
        "silhouette_batch": float(scib_metrics.silhouette_batch(x, cluster, dataset)),
        "lisi_median": float(np.median(scib_metrics.lisi_knn(found, dataset, perplexity=NEIGHBORS // 3))),
        "ilisi_knn": float(scib_metrics.ilisi_knn(found, dataset, perplexity=NEIGHBORS // 3)),
        "graph_connectivity": float(scib_metrics.graph_connectivity(found, cluster)),
    }
    json.dump(values, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
