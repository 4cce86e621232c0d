"""Lists of the page that belong to points: neighbours, copies, partners and gene sets.

Legend: P points (one gene in one dataset each), k neighbours, K partners.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.analysis.partners import strongest_partners
from musegnn.analysis.report.packing import cosine_code, falling, gaps, zigzag
from musegnn.vectors import Neighbors, nearest_split

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from musegnn.analysis.report.packing import Packer
    from musegnn.data_store.records import PairTable
    from musegnn.graph import EdgeSet

MOST_PARTNERS, FEWEST_PARTNERS, PARTNER_ENTRIES = 255, 5, 4_000_000
COPY_PAIRS = 2_000_000
Z_STEPS = 20  # per unit of z
SMALLEST_SET = 3


@dataclass(frozen=True, slots=True)
class Points:
    """The points in the order of the page: codes of gene names, keys and datasets, and the row of `adata` of each."""

    order: NDArray[np.int64]
    obs: pd.DataFrame
    key: NDArray[np.int64]
    keys: list[str]
    dataset: NDArray[np.int64]
    datasets: list[str]


def find_neighbors(
    unit: NDArray[np.float32],
    group: NDArray[np.int64],
    typical: NDArray[np.float32],
    k: int,
    progress: Callable[[int, int], None],
) -> tuple[Neighbors, Neighbors]:
    """Return the nearest points inside the own dataset and outside, ranked by cosine less what is typical."""
    by_group = np.argsort(group, kind="stable")  # rows of a dataset side by side are compared fastest
    back = np.argsort(by_group)
    found = nearest_split(unit[by_group], group[by_group], k, typical=typical, progress=progress)
    inside, outside = (
        Neighbors(index=np.where(f.index < 0, -1, by_group[f.index])[back].astype(np.int32), score=f.score[back])
        for f in found
    )
    return inside, outside


def of_points(rows: tuple[Neighbors, Neighbors], order: NDArray[np.int64]) -> tuple[Neighbors, Neighbors]:
    """Return the neighbours of rows as those of the points, which are the rows in another order."""
    point = np.argsort(order).astype(np.int32)
    inside, outside = (
        Neighbors(index=np.where(n.index < 0, -1, point[n.index])[order].astype(np.int32), score=n.score[order])
        for n in rows
    )
    return inside, outside


def pack_neighbors(
    packer: Packer, known: tuple[Neighbors, Neighbors], group: NDArray[np.int64], typical: NDArray[np.float32]
) -> None:
    """Pack the neighbours with their cosines; what is typical for two datasets counts in the ranking alone.

    Neighbours inside the dataset are places among its points, others among all points, from the place of the point.
    """
    place = np.arange(len(group))
    local = np.empty_like(place)
    by_group = np.argsort(group, kind="stable")
    size = np.bincount(group, minlength=1)
    local[by_group] = place - np.repeat(np.cumsum(size) - size, size)
    for name, found, at in zip(("within", "across"), known, (local, place), strict=True):
        cosine = found.score + typical[group[:, None], group[found.index]]
        packer.add(f"{name}_index", np.where(found.index < 0, 0, zigzag(at[found.index] - at[:, None])), "u4")
        packer.add(f"{name}_score", falling(cosine_code(cosine)) % (1 << 16), "u2")


def pack_copies(packer: Packer, unit: NDArray[np.float32], points: Points) -> bool:
    """Pack the cosines of copies, for every key the pairs of its points in the order of datasets, unless too many."""
    size = np.bincount(points.key, minlength=1)
    if int((size * (size - 1) // 2).sum()) > COPY_PAIRS:
        return False
    order = np.lexsort((points.dataset, points.key))
    parts = [np.zeros(0, np.float32)]
    for members in np.split(order, np.flatnonzero(np.diff(points.key[order])) + 1) if len(order) else []:
        if len(members) > 1:
            cosine = unit[members] @ unit[members].T
            parts.append(cosine[np.triu_indices(len(members), 1)])
    packer.add("copy_score", cosine_code(np.concatenate(parts)), "u2")
    return True


def pack_partners(packer: Packer, pairs: Mapping[str, PairTable | EdgeSet], points: Points) -> dict[str, Any]:
    """Pack the strongest partners of every point: their places among the points of the dataset, signs and z."""
    n = len(points.obs)
    k = min(MOST_PARTNERS, PARTNER_ENTRIES // max(n, 1))
    if not pairs or k < FEWEST_PARTNERS:
        return {"k": 0, "least": {}}
    owner, partner, size, first = ([np.zeros(0, np.int64)] for _ in range(4))
    least = {}
    for code, name in enumerate(points.datasets):
        if name not in pairs:
            continue
        mine = np.flatnonzero(points.dataset == code)
        point = mine[np.argsort(points.order[mine], kind="stable")]  # points of the genes in the order of the rows
        local = np.searchsorted(mine, point)
        found = strongest_partners(pairs[name], k)
        count = np.diff(found.indptr)
        owner.append(np.repeat(point, count))
        partner.append(2 * local[found.gene] + (found.z < 0))
        size.append(np.minimum(np.round(np.abs(found.z) * Z_STEPS), 65535).astype(np.int64))
        start = np.zeros(len(found.z), dtype=np.int64)
        start[found.indptr[:-1][count > 0]] = 1
        first.append(start)
        least[name] = float(getattr(pairs[name], "z_store", 0.0))
    owners, partners, sizes, starts = (np.concatenate(part) for part in (owner, partner, size, first))
    order = np.argsort(owners, kind="stable")
    drop = np.where(starts == 1, sizes, -np.diff(sizes, prepend=0))[order]
    packer.add("partner_count", np.bincount(owners, minlength=n), "u1")
    packer.add("partner_index", partners[order], "u4")
    packer.add("partner_z", drop, "u2")
    return {"k": k, "least": least}


def pack_sets(packer: Packer, sets: Mapping[str, Collection[str]], keys: Sequence[str]) -> list[str]:
    """Pack the gene sets that have enough genes here, as gaps of key codes, and return their names."""
    code = {key: n for n, key in enumerate(keys)}
    found = {name: sorted({code[g] for g in genes if g in code}) for name, genes in sorted(sets.items())}
    kept = {name: members for name, members in found.items() if len(members) >= SMALLEST_SET}
    packer.add("set_size", np.array([len(m) for m in kept.values()], dtype=np.int64), "u4")
    packer.add("set_gap", np.concatenate([np.zeros(0, np.int64), *(gaps(np.array(m)) for m in kept.values())]), "u4")
    return list(kept)
