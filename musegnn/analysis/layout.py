"""Two coordinates per point for drawing (UMAP on exact cosine neighbours).

Legend: P points, k neighbours.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from musegnn.kernels.compile_cache import ensure_cache
from musegnn.vectors import Neighbors, nearest, unit_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

ensure_cache()  # umap compiles functions when it is imported
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
    from umap import UMAP

N_NEIGHBORS = 15


def umap_layout(
    vectors: ArrayLike,
    *,
    neighbors: Neighbors | None = None,
    n_neighbors: int = N_NEIGHBORS,
    min_dist: float = 0.25,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Return centred coordinates (P, 2), float32, in which vectors near by cosine are near; up to three lie on a line.

    The neighbours are exact and the start is the first two principal components, so that nothing but the seeded
    optimisation is random; it runs on one thread. Equal input is bitwise equal output on one machine.

    Parameters
    ----------
    neighbors
        Neighbours already known (without the point itself), at least ``n_neighbors - 1`` per point.
    n_neighbors
        Size of a neighbourhood, the point included; lowered to P where there are fewer points.
    min_dist
        Smallest distance of points, in units of the layout.

    Raises
    ------
    ValueError
        When the neighbours are too few or do not fit the vectors.

    References
    ----------
    McInnes, Healy, Melville: UMAP. arXiv:1802.03426 (2018).
    """
    unit = unit_rows(vectors, dtype=np.float32)
    points = len(unit)
    if points < 4:
        line = np.stack([np.arange(points), np.zeros(points)], axis=1)
        return (line - line.mean(axis=0) if points else line).astype(np.float32)
    size = min(n_neighbors, points)
    found = neighbors if neighbors is not None else nearest(vectors, size - 1)
    if found.index.shape[0] != points or found.index.shape[1] < size - 1 or (found.index[:, : size - 1] < 0).any():
        msg = f"expected {size - 1} neighbours of each of {points} points, got shape {found.index.shape}"
        raise ValueError(msg)
    own = np.arange(points, dtype=np.int32)[:, None]
    index = np.concatenate([own, found.index[:, : size - 1]], axis=1)
    distance = np.concatenate([np.zeros((points, 1), np.float32), 1.0 - found.score[:, : size - 1]], axis=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "precomputed_knn", UserWarning)
        model = UMAP(
            n_neighbors=size,
            min_dist=min_dist,
            metric="cosine",
            init=_principal_plane(unit),
            precomputed_knn=(index, np.maximum(distance, 0.0), None),
            random_state=seed,
            n_jobs=1,
        )
        layout: NDArray[np.float32] = model.fit_transform(unit).astype(np.float32)
    layout -= layout.mean(axis=0)
    return layout


def _principal_plane(unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the first two principal components, signs fixed, scaled to [-10, 10]."""
    x = unit.astype(np.float64) - unit.mean(axis=0, dtype=np.float64)
    _, vectors = np.linalg.eigh(x.T @ x)
    plane = np.zeros((len(x), 2))
    for column, axis in enumerate(vectors.T[::-1][:2]):
        plane[:, column] = x @ (axis * np.sign(axis[np.argmax(np.abs(axis))]))
    spread = np.abs(plane).max()
    return (10.0 * plane / spread if spread > 0.0 else plane).astype(np.float32)
