"""Two coordinates per point for drawing (UMAP on cosine neighbours).

Up to ``MOST_POINTS`` points are laid out together. Of more, that many are drawn at random and laid out, and the others
are placed at the mean of their nearest neighbours among those that have a place.

Legend: P points, k neighbours.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from musegnn.kernels.compile_cache import ensure_cache
from musegnn.random import stream
from musegnn.vectors import Neighbors, nearest, unit_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

ensure_cache()  # umap compiles functions when it is imported
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
    warnings.filterwarnings("ignore", "IProgress not found")  # of tqdm in a notebook; no bar of it is shown
    from umap import UMAP

N_NEIGHBORS = 15
MOST_POINTS = 20_000
BLOCK_ROWS = 2048


def umap_layout(
    vectors: ArrayLike,
    *,
    neighbors: Neighbors | None = None,
    n_neighbors: int = N_NEIGHBORS,
    min_dist: float = 0.25,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Return centred coordinates (P, 2), float32, in which vectors near by cosine are near; up to three lie on a line.

    The start is the first two principal components, so that nothing but the seeded draws and optimisation is random; it
    runs on one thread. Equal input is bitwise equal output on one machine.

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
    if points > MOST_POINTS:
        chosen = np.sort(stream(seed, "layout_points").permutation(points)[:MOST_POINTS])
        part = umap_layout(unit[chosen], n_neighbors=n_neighbors, min_dist=min_dist, seed=seed)
        return _placed_around(unit, found, chosen, part)
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


def _placed_around(
    unit: NDArray[np.float32], neighbors: Neighbors, chosen: NDArray[np.int64], part: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Place points around those `chosen`, whose coordinates are `part`; who has no neighbour there, at the nearest."""
    layout = np.zeros((len(unit), 2), dtype=np.float32)
    is_chosen = np.zeros(len(unit), dtype=np.bool_)
    layout[chosen], is_chosen[chosen] = part, True
    near = is_chosen[neighbors.index] & (neighbors.index >= 0)
    count = near.sum(axis=1)
    around = np.flatnonzero(~is_chosen & (count > 0))
    layout[around] = (layout[neighbors.index[around]] * near[around, :, None]).sum(axis=1) / count[around, None]
    rest = np.flatnonzero(~is_chosen & (count == 0))
    for start in range(0, len(rest), BLOCK_ROWS):
        rows = rest[start : start + BLOCK_ROWS]
        layout[rows] = part[(unit[rows] @ unit[chosen].T).argmax(axis=1)]
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
